# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of every kind: waiting for a condition, and workloads of each Airflow version."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from airflow.executors import workloads

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 60.0) -> T:
    """The first true value of ``condition``; fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still not so after {timeout} s: {condition}"
        time.sleep(0.01)
    return value


def lines_executed(call: Callable[[], object]) -> int:
    """How many lines of Python a call executes: its cost, by a measure that is the same on every machine."""
    lines = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def make_task(task_id: str = "t", *, priority: int = 1, queue: str = "default", **fields: Any) -> Any:
    """An ``ExecuteTask`` as the scheduler would send it."""
    ti = workloads.TaskInstance(
        **{
            "id": uuid.uuid4(),
            "dag_version_id": uuid.uuid4(),
            "task_id": task_id,
            "dag_id": "dag",
            "run_id": "run",
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "queue": queue,
            "priority_weight": priority,
            **fields,
        }
    )
    return workloads.ExecuteTask(
        token="token",
        ti=ti,
        dag_rel_path="dag.py",
        bundle_info=workloads.BundleInfo(name="dags-folder"),
        log_path=None,
    )


def make_callback(path: str = "builtins.dict", **kwargs: Any) -> Any:
    """An ``ExecuteCallback``; Airflow 3.2 and later."""
    assert AIRFLOW_V_3_2_PLUS
    from airflow.executors.workloads.base import BundleInfo
    from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod, ExecuteCallback

    return ExecuteCallback(
        token="token",
        callback=CallbackDTO(
            id=str(uuid.uuid4()),
            fetch_method=CallbackFetchMethod.IMPORT_PATH,
            data={"path": path, "kwargs": kwargs},
        ),
        dag_rel_path="dag.py",
        bundle_info=BundleInfo(name="dags-folder"),
        log_path=None,
    )


def make_connection_test(connection_id: str = "c") -> Any:
    """A ``TestConnection``; Airflow 3.3 and later."""
    assert AIRFLOW_V_3_3_PLUS
    from airflow.executors.workloads import TestConnection

    return TestConnection(
        token="token", connection_test_id=uuid.uuid4(), connection_id=connection_id, timeout=10
    )


def require(there: bool, reason: str) -> None:
    """Skip a test for which something is missing; in CI it fails instead."""
    if there:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
