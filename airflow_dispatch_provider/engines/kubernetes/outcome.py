# SPDX-License-Identifier: Apache-2.0
"""Judges what follows for a task from how its pod has ended. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

from airflow_dispatch_provider.bridge.task_instances import OPEN, SUCCESS
from airflow_dispatch_provider.engines.kubernetes.model import End, Ended

_QUEUED = OPEN[0]
_UNDECIDED = (None, *OPEN)


class Next(str, Enum):
    """The next step for a task."""

    FINISH = "finish"
    """Its slot is free; Airflow has its state, or finds out."""

    LAUNCH_AGAIN = "launch again"
    PUT_BACK = "put back"
    """It had not begun, and how to launch it again only Airflow knows."""

    LOOK_AGAIN = "look again"
    """Airflow has not stored yet whose task it is."""

    FAIL = "fail"


@dataclass(frozen=True)
class Launches:
    """Attempts for a task so far, and how many the options allow."""

    done: int
    most: int
    """Below 0: any number."""

    excluded_reasons: Collection[str | None]
    """``[kubernetes_executor] pod_launch_failure_excluded_container_reasons``."""

    adopted: bool
    """Another scheduler launched it."""

    former_owner: int | None
    """Of an adopted task: id of the scheduler's job that it was taken over from."""

    token_expired: bool
    """The Execution API would refuse the pod by now, and may have refused it."""

    after_expiry: int = 10
    """Launches after which an expired token excuses no more."""


def after(report: Ended, job_id: Any, launches: Launches) -> Next:
    """
    :param job_id: of this scheduler
    """
    row = report.row
    state = row.state if row is not None else None
    if row is not None and launches.adopted and row.queued_by_job_id == launches.former_owner != job_id:
        return Next.LOOK_AGAIN
    if report.end is End.SUCCEEDED or (row is not None and row.queued_by_job_id != job_id):
        return Next.FINISH
    if report.end is End.VANISHED and state not in _UNDECIDED:
        return Next.FINISH
    if state != _QUEUED:
        return Next.FAIL
    # Its user's code has not begun: no try is used.
    if launches.adopted:
        return Next.PUT_BACK
    return Next.LAUNCH_AGAIN if _may_launch(report, launches) else Next.FAIL


def state_after(row_state: Any) -> Any:
    """The state to report of a task that is finished: what it has told itself is not contradicted."""
    return SUCCESS if row_state in _UNDECIDED else row_state


def _may_launch(report: Ended, launches: Launches) -> bool:
    if launches.token_expired and launches.done <= launches.after_expiry:
        return True
    if report.container_reason in launches.excluded_reasons:
        return False
    return launches.most < 0 or launches.done <= launches.most
