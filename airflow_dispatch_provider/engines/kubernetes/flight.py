# SPDX-License-Identifier: Apache-2.0
"""A task that the executor was given, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value

from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes.adoption import Wanted


@dataclass(slots=True)
class Flight:
    """A workload that was handed over, or adopted."""

    key: WorkloadKey
    ti_id: UUID
    workload: Workload | None
    """None for an adopted task."""

    former_owner: int | None = None
    """Of an adopted task: id of the scheduler's job that it was taken over from."""

    pod: PodName | None = None
    created: float = math.inf
    """When there was a pod for it (monotonic seconds)."""

    launches: int = 1
    stuck: str | None = None

    def land(self) -> None:
        """Its pod is gone, and it gets another."""
        self.launches += 1
        self.pod, self.stuck, self.created = None, None, math.inf


def adopted(key: WorkloadKey, ti: Any) -> Flight:
    return Flight(key, UUID(str(ti.id)), None, former_owner=ti.queued_by_job_id)


def wanted(tis: Mapping[WorkloadKey, Any]) -> Wanted:
    """The pods to look for, to adopt these task instances."""
    workers = {make_safe_label_value(str(ti.queued_by_job_id)) for ti in tis.values()}
    return Wanted(workers, {key: str(ti.id) for key, ti in tis.items()})
