# SPDX-License-Identifier: Apache-2.0
"""Meaning of the end of a process for its workload. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from airflow_dispatch_provider.engines.local.messages import Ended, Gone, NotStarted

UNSEEN = "The process ended after its template process had, so that its result was not seen."


@dataclass(frozen=True)
class Outcome:
    """How a hand-over ended, and why if not well."""

    verdict: Literal["success", "failure", "queue again"]
    info: str | None = None


def outcome_of(event: Ended | NotStarted | Gone, *, is_task: bool) -> Outcome:
    """
    A task's true state is in the database: the scheduler compares it with this one, so that for a task
    "success" only says that its process has ended. Other workloads have no other witness.
    """
    if isinstance(event, NotStarted):
        return Outcome("queue again")
    if isinstance(event, Gone):
        return Outcome("success") if is_task else Outcome("failure", UNSEEN)
    if event.status == 0:
        return Outcome("success")
    return Outcome("failure", event.error or describe_status(event.status))


def describe_status(status: int) -> str:
    """An exit code, or minus a signal, in words."""
    if status >= 0:
        return f"The supervising process ended with exit code {status}."
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"The supervising process was ended by {name}."
