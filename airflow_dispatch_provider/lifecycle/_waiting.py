# SPDX-License-Identifier: Apache-2.0
"""Rows for the user of a task that is held because something is broken: one each time the reason changes."""

from __future__ import annotations

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.job import Job, Waits
from airflow_dispatch_provider.routing.reasons import Reason


def tell(ledger: Ledger, job: Job, waits: Reason | Waits | None) -> None:
    """Called from time to time with why a held job waits. What waits for its turn alone gets no row."""
    if waits is Waits.API:
        detail = f"The execution API answers nobody. {ledger.api_trouble or ''}".rstrip()
    elif waits is Reason.WAITS_BLOCKED:
        detail = _troubles(ledger, job)
    else:
        return
    if job.told != waits.value:
        job.told = waits.value
        ledger.do(actions.Record(job.key, waits.value, detail))


def is_anything_broken(ledger: Ledger) -> bool:
    """Whether any job could get such a row now."""
    if ledger.api_trouble is not None:
        return True
    return any(not backend.usable(ledger.now) or backend.cordoned for backend in ledger.backends.values())


def _troubles(ledger: Ledger, job: Job) -> str:
    lane = ledger.holding.lane_of(job.key)
    names = dict.fromkeys(target.backend for target in lane.targets) if lane is not None else {}
    backends = [ledger.backends[name] for name in names if name in ledger.backends]
    return " ".join(f"{backend.name}: {backend.trouble(ledger.now)}" for backend in backends)
