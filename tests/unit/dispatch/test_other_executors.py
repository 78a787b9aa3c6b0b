# SPDX-License-Identifier: Apache-2.0
"""Executors that Airflow runs run behind the router, too."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.testing.workloads import make_task

from .support import given, queue

HERE = "unit.dispatch.other_executors"


def test_a_constructor_without_arguments(make_router: Any) -> None:
    """Airflow makes an executor without telling it its parallelism."""
    router = make_router({"x": {"executor": f"{HERE}.NoArguments", "slots": 3}})
    queue(router, *(make_task() for _ in range(5)))
    router.heartbeat()
    assert len(given(router, "x")) == 3


def test_one_that_counts_what_runs_twice_gets_all_its_slots(make_router: Any) -> None:
    """Its own arithmetic holds nothing back: the router counts."""
    router = make_router({"x": {"executor": f"{HERE}.CountsTwice", "slots": 4}})
    for _ in range(6):
        queue(router, make_task())
        router.heartbeat()
    assert len(given(router, "x")) == 4
