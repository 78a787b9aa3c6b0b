# SPDX-License-Identifier: Apache-2.0
"""Workloads on their way to a broker, and what may become of them there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from airflow_dispatch_provider.masking import describe


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """One workload on its way to the broker."""

    celery_id: str
    """Celery's task id, which Airflow keeps as ``external_executor_id``."""

    key: Hashable
    """By which whoever sends it knows it."""

    workload: Any
    queue: str

    def payload(self) -> str:
        """The only argument of the task, as Airflow's workers read it."""
        return str(self.workload.model_dump_json())


class Why(Enum):
    """Whose affair a refusal is."""

    MESSAGE = "message"
    """It cannot be made, or is too large."""

    QUEUE = "queue"
    """Its queue may not be used, whatever the message."""

    FULL = "full"
    """Its queue takes no more at the moment."""


class Refusal(NamedTuple):
    """A message that is certainly not with the broker, though the broker works."""

    outgoing: Outgoing
    reason: str
    why: Why = Why.MESSAGE


class SendFailed(Exception):
    """A batch was not accepted as a whole. What is neither ``unsent`` nor ``unknown`` was accepted, or refused."""

    def __init__(
        self,
        cause: BaseException,
        unsent: Iterable[Outgoing] = (),
        unknown: Iterable[Outgoing] = (),
        refusals: Sequence[Refusal] = (),
    ) -> None:
        """
        :param unsent: certainly not with the broker
        :param unknown: may be with the broker: the connection broke before it said so
        """
        super().__init__(describe(cause))
        self.unsent, self.unknown, self.refusals = list(unsent), list(unknown), list(refusals)
