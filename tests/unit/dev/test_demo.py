# SPDX-License-Identifier: Apache-2.0
"""What ./dev/demo configures, prints and objects to."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "dev" / "lib"))
from demo_layout import LOCAL, WITH_CELERY, WITH_KUBERNETES, Layout, Options, settings
from demo_report import Outcome, TaskRow, as_json, as_table, check, rows_of

from airflow_dispatch_provider.settings.options import OPTIONS
from airflow_dispatch_provider.settings.source import SettingsSource

pytestmark = pytest.mark.once

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
CELERY = {
    name: {"celery": {"broker_url": f"redis://{name}", "result_backend": "redis://r"}}
    for name in ("large", "batch")
}
KUBERNETES = {name: {"kubernetes_executor": {"cluster_context": name}} for name in ("large", "batch")}
LOCAL_ROW = TaskRow(
    task="bursts_01",
    queue="bursts",
    state="success",
    backend="small",
    route="bursts",
    reason="first_choice",
    detail="free",
    dispatches=1,
    host="here",
    scheduled=BEGAN,
    start=BEGAN + timedelta(seconds=1),
    end=BEGAN + timedelta(seconds=3),
)
CELERY_ROW = replace(
    LOCAL_ROW, task="fast_01", queue="fast", backend="large", route="fast", host="worker-large"
)


class Config:
    """``[dispatch]`` from environment variables."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def get(self, section: str, key: str, *, fallback: object = None) -> object:
        return self._env.get(f"AIRFLOW__{section}__{key}".upper(), OPTIONS[key]["default"])


def problems(rows: Sequence[TaskRow], layout: Layout = WITH_CELERY, run_state: str = "success") -> list[str]:
    return check(rows, run_state, len(rows), layout)


@pytest.mark.parametrize(
    ("layout", "options", "module"),
    [(LOCAL, {}, ""), (WITH_CELERY, CELERY, "celery"), (WITH_KUBERNETES, KUBERNETES, "kubernetes")],
)
def test_the_settings_are_valid(layout: Layout, options: Options, module: str) -> None:
    read = SettingsSource(Config(settings(layout, 10, options))).load()
    executors = {name: backend.class_path for name, backend in read.backends.items()}
    own = "airflow_dispatch_provider.executors"
    assert executors == {
        name: f"{own}.{module}_executor.{layout.executor}"
        if name in layout.workers
        else f"{own}.local_executor.LocalExecutor"
        for name in layout.slots
    }


def test_only_celery_is_told_a_queue() -> None:
    """Elsewhere a task keeps its own, which the coordinators of pods go by."""
    routes = [
        json.loads(settings(layout, 10, {})["AIRFLOW__DISPATCH__ROUTES"])
        for layout in (WITH_CELERY, WITH_KUBERNETES)
    ]
    assert [route["to"] for route in routes[0] if route["queue"] == "fast"] == [
        [{"backend": "large", "queue": "default"}]
    ]
    assert [route["to"] for route in routes[1] if route["queue"] == "fast"] == [["large"]]


def test_each_celery_backend_has_a_broker_of_its_own() -> None:
    backends = json.loads(settings(WITH_CELERY, 10, CELERY)["AIRFLOW__DISPATCH__BACKENDS"])
    assert {name: backend.get("config") for name, backend in backends.items()} == {"small": None, **CELERY}


def test_nothing_is_wrong_with_tasks_on_their_own_workers() -> None:
    assert problems([LOCAL_ROW, CELERY_ROW]) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (replace(CELERY_ROW, state="failed"), "fast_01 ended as failed"),
        (
            replace(CELERY_ROW, dispatches=2),
            "fast_01 has 2 'dispatched' events in Airflow's event log, not one",
        ),
        (
            replace(CELERY_ROW, backend="batch", host="worker-batch"),
            "fast_01 (queue fast) ran on batch, its route allows large",
        ),
        (
            replace(CELERY_ROW, host="worker-batch"),
            "fast_01 (backend large) ran on worker-batch, not on worker-large",
        ),
        (replace(CELERY_ROW, host=None), "fast_01 (backend large) ran on None, not on worker-large"),
        (
            replace(LOCAL_ROW, host="worker-large"),
            "bursts_01 (backend small, which is local) ran on worker-large",
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_said(row: TaskRow, expected: str) -> None:
    assert problems([row]) == [expected]


def test_a_task_that_never_started_has_no_wrong_host() -> None:
    assert problems([replace(CELERY_ROW, state="failed", host=None, start=None)]) == [
        "fast_01 ended as failed"
    ]


def test_what_is_wrong_with_the_run_is_said() -> None:
    assert problems([], run_state="failed") == ["the run ended as 'failed', not as 'success'"]
    assert check([LOCAL_ROW], "success", 2, LOCAL) == ["1 task instances found, 2 expected"]
    assert problems([LOCAL_ROW] * 3) == ["backend small ran 3 tasks at once, its slots are 2"]


def test_hosts_are_in_the_table_and_its_columns_are_aligned() -> None:
    lines = as_table(Outcome([LOCAL_ROW, CELERY_ROW])).splitlines()
    assert lines[1:5] == [
        "task       queue   backend  why                         state    waited  seconds  host",
        "---------  ------  -------  --------------------------  -------  ------  -------  ------------",
        "bursts_01  bursts  small    route bursts: first_choice  success     1.0      2.0  here",
        "fast_01    fast    large    route fast: first_choice    success     1.0      2.0  worker-large",
    ]
    assert "backend large: 1 tasks, at most 1 at once, all on worker-large" in lines


def test_several_hosts_of_a_backend_are_listed() -> None:
    table = as_table(Outcome([CELERY_ROW, replace(CELERY_ROW, host="worker-batch")]))
    assert "backend large: 2 tasks, at most 2 at once, on worker-batch, worker-large" in table


def test_without_celery_hosts_are_nowhere() -> None:
    rows = [replace(LOCAL_ROW, host=None)]
    lines = as_table(Outcome(rows)).splitlines()
    assert lines[1] == "task       queue   backend  why                         state    waited  seconds"
    assert lines[-1] == "backend small: 1 tasks, at most 1 at once"
    assert "host" not in json.loads(as_json(Outcome(rows)))["tasks"][0]


def test_hosts_are_in_the_json() -> None:
    tasks = json.loads(as_json(Outcome([LOCAL_ROW, CELERY_ROW])))["tasks"]
    assert [task["host"] for task in tasks] == ["here", "worker-large"]


@pytest.mark.parametrize(("with_hosts", "expected"), [(True, "worker-large"), (False, None)])
def test_rows_are_joined_from_the_rest_api(with_hosts: bool, expected: str | None) -> None:
    task_instance = {
        "task_id": "fast_01",
        "queue": "fast",
        "state": "success",
        "hostname": "worker-large",
        "scheduled_when": "2026-01-01T00:00:00Z",
        "start_date": "2026-01-01T00:00:01Z",
        "end_date": "2026-01-01T00:00:03Z",
    }
    extra = {"backend": "large", "route": "fast", "reason": "first_choice", "detail": "free"}
    event = {"task_id": "fast_01", "extra": json.dumps(extra)}
    assert rows_of([task_instance], [event], with_hosts) == [replace(CELERY_ROW, host=expected)]
