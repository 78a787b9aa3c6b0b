# SPDX-License-Identifier: Apache-2.0
"""Pods as they are seen in lists and watches: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple


class PodName(NamedTuple):
    """One pod of a cluster."""

    namespace: str
    name: str

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> PodName:
        """Of a pod, or of a manifest that names it, as JSON."""
        return cls(pod["metadata"]["namespace"], pod["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Kind(str, Enum):
    """The state of a pod, as far as the executor has to act on it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"

    FAILED = "failed"
    """It has failed, or waits for something that the user has declared fatal."""

    DELETED = "deleted"
    """Somebody else has deleted it before it ended; ``Observation.started`` says whether the task had begun."""

    RELEASED = "released"
    """It has left the watch's label selector, but exists: another scheduler has adopted it, or it is marked done."""

    REVOKED = "revoked"
    """The executor itself took it back: nothing that happens to it counts."""


@dataclass(frozen=True)
class Observation:
    """One event, understood."""

    kind: Kind

    reason: str | None
    """Why, in one line for the task's event log, e.g. ``OOMKilled: container base, exit code 137``. None where
    there is nothing to explain."""

    started: bool
    """Whether the task's own container is known to have started. False is no proof that it has not: a node
    that is lost reports nothing any more."""

    lives_on: bool = False
    """The task is over, and other containers of its pod still run."""
