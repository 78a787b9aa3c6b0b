# SPDX-License-Identifier: Apache-2.0
"""The messages between the scheduler's thread and the thread of the API calls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes._seen import PodName


@dataclass(slots=True, eq=False)
class Job:
    """A workload that is to become a pod."""

    key: WorkloadKey
    workload: Workload
    manifest: dict[str, Any] | None = None
    """Made once: a name that is kept makes creating it again harmless."""

    doubtful: bool = False
    """The server may have created it; only the same name tells."""

    failures: int = 0
    """Troubles of its own that count against ``[dispatch] launch_retries``."""

    troubles: int = 0
    """All troubles of its own, for the growing delays."""

    minted: float = -math.inf
    """When its token was made (monotonic seconds); nobody knows how long it was on its way here."""

    @property
    def pod(self) -> PodName:
        """Once it has a manifest."""
        assert self.manifest is not None
        return PodName.of(self.manifest)

    @property
    def lane(self) -> str | None:
        """The namespace of its pod; None until it has a manifest."""
        return self.manifest["metadata"]["namespace"] if self.manifest is not None else None


class End(str, Enum):
    """How a pod was seen to end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETED = "deleted"
    """Somebody deleted it before it was through."""

    VANISHED = "vanished"
    """It is not there any more, and nobody saw how it went."""


@dataclass(frozen=True, slots=True)
class Created:
    """There is a pod for it."""

    key: WorkloadKey
    pod: PodName


@dataclass(frozen=True, slots=True)
class Rejected:
    """It can never become a pod."""

    key: WorkloadKey
    reason: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """Its pod has not started yet, and this is why."""

    key: WorkloadKey
    pod: PodName
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Its pod has completed. Reported once for each pod."""

    key: WorkloadKey
    pod: PodName | None
    """None where there was none to be found."""

    end: End
    reason: str = ""
    """One line, for people."""

    started: bool = False
    """Whether its container is known to have run."""

    container_reason: str | None = None
    """Kubernetes' word for the container's state, e.g. ``Error`` or ``OOMKilled``."""

    row: Stored | None = None
    """The task's row in Airflow's database; see ``ends``."""


@dataclass(frozen=True, slots=True)
class Released:
    """Another scheduler has taken its pod over."""

    key: WorkloadKey
    pod: PodName


@dataclass(frozen=True, slots=True)
class PutBack:
    """It had not begun, and Airflow schedules it again without a try used."""

    key: WorkloadKey


@dataclass(frozen=True, slots=True)
class Over:
    """Airflow has nothing more to do with it, while its pod has not been seen to end."""

    key: WorkloadKey
    state: str | None


@dataclass(frozen=True, slots=True)
class Searched:
    """Which tasks have a pod here, and which have none."""

    found: frozenset[WorkloadKey]
    absent: frozenset[WorkloadKey]


Report = Created | Rejected | Stuck | Ended | Released | PutBack | Over | Searched
