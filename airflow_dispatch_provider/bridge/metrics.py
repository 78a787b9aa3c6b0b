# SPDX-License-Identifier: Apache-2.0
"""Airflow's metrics client, wherever the installed version keeps it."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS


def stats() -> Any:
    """An object with ``gauge`` and ``incr``."""
    if AIRFLOW_V_3_3_PLUS:
        from airflow.observability import stats as module

        return module
    if AIRFLOW_V_3_2_PLUS:
        from airflow.observability import stats as module

        return module.Stats
    from airflow.stats import Stats

    return Stats


def gauge_backend(backend: str, *, open_slots: int, running: int, held: int) -> None:
    """The gauges that every executor has, under the backend's name, so that two of one class stay apart."""
    client = stats()
    client.gauge(f"executor.open_slots.{backend}", open_slots)
    client.gauge(f"executor.running_tasks.{backend}", running)
    client.gauge(f"executor.queued_tasks.{backend}", held)


def count_dispatches(backend: str, reason: str, number: int) -> None:
    tags = {"backend": backend, "reason": reason}
    stats().incr(f"dispatch.dispatched.{backend}", number, tags=tags)


def count_failure(backend: str) -> None:
    stats().incr(f"dispatch.failures.{backend}", tags={"backend": backend})


def gauge_refused_file(refused: bool) -> None:
    """Whether ``config_file`` on disk is another version than the one in use, because it is wrong."""
    stats().gauge("dispatch.config_file_refused", int(refused))
