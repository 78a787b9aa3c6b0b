# SPDX-License-Identifier: Apache-2.0
"""./dev/demo: what it configures, prints and objects to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.settings.options import OPTIONS
from airflow_dispatch_provider.settings.source import SettingsSource
from devkit.demo import layout as demo_layout
from devkit.demo.layout import LOCAL, WITH_CELERY, WITH_KUBERNETES, Layout, Options, settings
from devkit.demo.report import Outcome, TaskRow, as_json, as_table, check, rows_of
from devkit.demo.text import activation, introduction, status, tour

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
            replace(CELERY_ROW, dispatches=0),
            "fast_01 has no 'dispatched' event in Airflow's event log",
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


def test_the_tables_are_aligned_and_name_the_slots() -> None:
    spilled = replace(
        CELERY_ROW, task="spill_02", queue="spill", route="spill", reason="overflow", detail="full"
    )
    lines = as_table(Outcome([LOCAL_ROW, CELERY_ROW, spilled]), WITH_CELERY).splitlines()
    assert lines[1:] == [
        "task       queue   backend  route   reason        waited  ran  state",
        "---------  ------  -------  ------  ------------  ------  ---  -------",
        "bursts_01  bursts  small    bursts  first_choice     1.0  2.0  success",
        "fast_01    fast    large    fast    first_choice     1.0  2.0  success",
        "spill_02   spill   large    spill   overflow         1.0  2.0  success",
        "",
        "first_choice: free",
        "overflow: full",
        "waited: seconds from being scheduled to running; ran: seconds of running",
        "",
        "backend  slots  tasks  most at once  on host",
        "-------  -----  -----  ------------  ------------",
        "small        2      1             1  here",
        "large        8      2             2  worker-large",
        "batch        4      0             0  this machine",
    ]


@pytest.mark.parametrize("layout", [LOCAL, WITH_CELERY, WITH_KUBERNETES])
def test_everything_fits_into_80_columns(layout: Layout) -> None:
    longest = replace(LOCAL_ROW, task="reports_100", queue="reports", route="reports", host="worker-large")
    rows = [replace(longest, end=BEGAN + timedelta(seconds=1000), detail=reason.words) for reason in Reason]
    texts = [
        as_table(Outcome(rows), layout),
        introduction(layout),
        "   " + status(rows * 4, layout) + " (15 s)",
    ]
    assert [line for text in texts for line in text.splitlines() if len(line) > 80] == []


def test_several_hosts_of_a_backend_are_listed() -> None:
    rows = [CELERY_ROW, replace(CELERY_ROW, host="worker-batch")]
    assert "large        8      2             2  worker-batch, worker-large" in as_table(
        Outcome(rows), WITH_CELERY
    )


def test_every_route_is_introduced_with_its_backends_in_order_and_what_happens_when_they_are_full() -> None:
    lines = introduction(LOCAL).splitlines()
    for expected in (
        "   bursts     small              held while small is full",
        "   spill      small, then large  overflow: runs on large while small is full",
        "   any other  batch              the default: the demo's queue misc",
        "   small        2  LocalExecutor",
    ):
        assert expected in lines


def test_the_backends_that_have_servers_of_their_own_are_introduced_with_them() -> None:
    assert "large        8  CeleryExecutor  own broker, worker worker-large" in introduction(WITH_CELERY)
    assert "batch        4  KubernetesExecutor  own cluster, node node-batch" in introduction(WITH_KUBERNETES)


def test_the_queue_that_is_said_to_have_no_route_is_one_of_the_dag() -> None:
    source = Path(demo_layout.__file__).with_name("dag.py").read_text()
    assert f'"{LOCAL.unrouted}"' in source
    assert LOCAL.unrouted not in LOCAL.routes


def test_the_status_names_busy_slots_and_what_is_held() -> None:
    running = replace(LOCAL_ROW, state="running", end=None)
    held = replace(LOCAL_ROW, state="queued", backend=None, start=None, end=None)
    assert status([LOCAL_ROW, running, held], LOCAL) == (
        "1/3 done, 1 held; busy: small 1 of 2, large 0 of 8, batch 0 of 4"
    )


def test_the_status_says_why_nothing_is_busy_though_tasks_are_held() -> None:
    held = replace(LOCAL_ROW, state="queued", backend=None, start=None, end=None)
    assert status([LOCAL_ROW, held], LOCAL) == "1/2 done, 1 held until the scheduler's next loop"


def test_this_machine_is_not_called_by_its_name() -> None:
    """Airflow records it for local tasks, and a worker's own name for the others."""
    rows = [replace(LOCAL_ROW, host=socket.getfqdn())]
    assert "this machine" in as_table(Outcome(rows), LOCAL)
    assert socket.getfqdn() not in as_table(Outcome(rows), LOCAL)


def test_the_activation_gives_a_shell_the_settings_and_programs_of_the_demo(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    inherited = {
        "AIRFLOW__CORE__EXECUTOR": "old",
        "AIRFLOW_OLD": "1",
        "PATH": os.environ["PATH"],
        "SAME": "1",
    }
    env = {"AIRFLOW__CORE__EXECUTOR": "it's new", "SAME": "1"}
    text = activation(env, inherited, tmp_path / "a folder")
    assert "SAME" not in text
    (tmp_path / "activate").write_text(text)
    shown = subprocess.run(
        ["sh", "-c", '. ./activate; echo "$AIRFLOW__CORE__EXECUTOR|${AIRFLOW_OLD-unset}|${PATH%%:*}"'],
        cwd=tmp_path,
        env=inherited,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == f"it's new|unset|{tmp_path}/a folder"


def test_the_tour_says_where_airflow_is_and_how_to_get_its_environment() -> None:
    text = tour("http://127.0.0.1:1", Path("/tmp/a b"), "demo")
    for expected in (
        "http://127.0.0.1:1/dags/demo (no login)",
        "AIRFLOW_HOME  /tmp/a b\n",
        "\n   . '/tmp/a b/activate'\n",
    ):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_celery_hosts_are_not_in_the_json() -> None:
    assert "host" not in json.loads(as_json(Outcome([replace(LOCAL_ROW, host=None)])))["tasks"][0]


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
