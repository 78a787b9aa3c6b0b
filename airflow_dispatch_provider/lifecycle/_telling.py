# SPDX-License-Identifier: Apache-2.0
"""Effects of transitions that enter a row about a task in the event log, for its user; see ``_effects``."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle._guards import is_recalled
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.events import (
    BEGAN_FIRST,
    RECALLED,
    TAKEN_OVER,
    WAITS_START,
    WITHDRAWN,
)
from airflow_dispatch_provider.lifecycle.job import Job


def stalled(ledger: Ledger, job: Job, event: Any) -> None:
    """It can still be put right."""
    _tell(ledger, job, WAITS_START, event.reason)


def withdrawn(ledger: Ledger, job: Job, event: Any) -> None:
    """Where there is a reason: an outage concerns too many at once, and is told while they wait."""
    if event.reason:
        detail = f"{event.reason}: it is taken back from {job.backend!r}, unless it has been sent"
        _tell(ledger, job, WITHDRAWN, detail)


def recalled(ledger: Ledger, job: Job, event: Any) -> None:
    detail = (
        f"an operator has taken it back from {job.backend!r}: it is scheduled again, unless it begins first"
    )
    _tell(ledger, job, RECALLED, detail)


def adopted(ledger: Ledger, job: Job, event: Any) -> None:
    """Its backend was asked for it, since its scheduler has died, or since it began though it was recalled."""
    if is_recalled(ledger, job, event):
        detail = f"it began on {job.backend!r} before it could be set back to scheduled, and goes on there"
        _tell(ledger, job, BEGAN_FIRST, detail)
    else:
        detail = f"{job.backend!r} was found to have it, and this scheduler watches it from now on"
        _tell(ledger, job, TAKEN_OVER, detail)


def _tell(ledger: Ledger, job: Job, word: str, detail: str) -> None:
    if job.is_task:
        ledger.do(actions.Record(job.key, word, detail))
