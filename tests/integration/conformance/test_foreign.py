# SPDX-License-Identifier: Apache-2.0
"""Airflow's own LocalExecutor behind the engine protocol, with real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.executors.local_executor import LocalExecutor

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.engine import Job
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle.events import Ended, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing.workloads import make_task

from .test_conformance import kill_workers


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    """Its tasks fail at once: nobody listens where they look for the API server."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:1/execution/")
    made = LocalExecutor(parallelism=2)
    yield made
    kill_workers(made)
    made.end()


def test_every_dispatch_has_one_end_and_nobody_knows_whether_it_began(executor: LocalExecutor) -> None:
    """More jobs than processes: each is ended once, under its number. One that ends within a heartbeat is not said to
    be sent before."""
    x = ForeignEngine("x", lambda: executor, 2)
    x.start("1")
    tasks = [make_task() for _ in range(4)]
    x.submit(
        [Job(number, airflow_api.workload_key(executor, task), task) for number, task in enumerate(tasks)]
    )
    events: list[Any] = []
    deadline = time.monotonic() + 60
    while len([event for event in events if isinstance(event, Ended)]) < 4:
        assert time.monotonic() < deadline, events
        events += x.poll()
        time.sleep(0.02)
    sent = [event.dispatch for event in events if isinstance(event, Sent)]
    assert set(sent) <= {0, 1, 2, 3}
    assert len(sent) == len(set(sent))
    ends = [event for event in events if isinstance(event, Ended)]
    assert sorted(event.dispatch for event in ends) == [0, 1, 2, 3]
    assert {(event.how, event.began) for event in ends} == {(Outcome.FAILED, None)}
    assert x.room().unavailable is None
