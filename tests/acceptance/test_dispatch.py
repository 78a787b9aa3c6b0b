# SPDX-License-Identifier: Apache-2.0
"""The router under a real scheduler, api-server and dag-processor, on PostgreSQL."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from .conftest import DEFAULT, QUICK_ADOPTION, ROUTES, SLOTS, wait
from .outcome import all_about, assert_succeeds
from .records import Records, backends_of, most_at_once

pytestmark = pytest.mark.acceptance

TASKS = int(os.environ.get("DISPATCH_TEST_MANY", "60"))
"""Each takes about a second of CPU: more of them, when somebody has the time."""


def allowed(task_id: str) -> list[str]:
    """Backends that the routes name for a task."""
    queue = task_id.rsplit("_", 1)[0]
    return ROUTES.get("glob-*" if queue.startswith("glob-") else queue, [DEFAULT])


@pytest.mark.once
def test_many_tasks_each_run_once_where_their_route_says(make_cluster):
    """Many tasks over five queues and three backends: none lost, none twice, no slot exceeded."""
    cluster = make_cluster(TASKS)
    run_id = cluster.trigger("many")
    assert_succeeds(cluster, "many", run_id, timeout=600)
    records = Records.of(cluster, run_id)
    assert len(records.completions()) == TASKS
    assert set(records.starts().values()) == set(records.completions().values()) == {1}
    ran_on = backends_of(cluster.event_logs(dag_id="many", event="dispatched"), run_id)
    assert len(ran_on) == TASKS
    assert {task: where for task, where in ran_on.items() if where[-1] not in allowed(task)} == {}
    spans = records.spans()
    for backend, slots in SLOTS.items():
        on_it = [spans[task] for task, where in ran_on.items() if where[-1] == backend]
        assert most_at_once(on_it) <= slots


@pytest.mark.once
def test_a_full_backend_delays_nobody_and_what_it_holds_stays_alive(make_cluster):
    """With both slots of `small` taken and ten more tasks of higher priority held for it, the others' tasks
    run. Held for several times `task_queued_timeout`, the ten are neither failed nor rescheduled, and their
    tokens are valid when they run."""
    timeout = 5
    cluster = make_cluster(
        AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT=str(timeout),
        AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL="1",
        # A dispatched task whose process takes that long to start, on a busy machine, is rescheduled.
        AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES="100",
        AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME="60",
    )
    run_id = cluster.trigger("blocked")
    records = Records.of(cluster, run_id)
    others_done = wait(lambda: sum(records.completions().values()) == 6, 180, cluster)
    assert {task.split("_")[0] for task in records.completions()} == {"four", "glob-x"}
    running = wait(lambda: len(records.starts()) == 6 + SLOTS["small"], 60, cluster)
    held = waiting(cluster, run_id)
    assert len(held) == 10
    found_before = len(stuck(cluster))  # such a one is held by now
    wait(lambda: time.monotonic() > max(others_done, running) + 3 * timeout, 60, cluster)
    assert waiting(cluster, run_id) == held
    assert held & set(stuck(cluster)[found_before:]) == set()
    records.release()
    assert_succeeds(cluster, "blocked", run_id, timeout=180)
    assert set(records.completions().values()) == {1}
    rows = {row["task_id"]: row for row in cluster.task_instances("blocked", run_id)}
    assert {rows[task]["try_number"] for task in held} == {1}


def test_the_scheduler_is_killed_and_nothing_is_lost(make_cluster):
    """SIGKILL in the middle, another scheduler: every task ends in success, none runs to its end twice."""
    cluster = make_cluster(TASKS, **QUICK_ADOPTION)
    run_id = cluster.trigger("many")
    records = Records.of(cluster, run_id)
    wait(lambda: sum(records.completions().values()) >= TASKS // 3, 300, cluster)
    cluster.kill_scheduler()
    cluster.start_scheduler()
    assert_succeeds(cluster, "many", run_id, timeout=600)
    assert len(records.completions()) == TASKS
    assert {task: n for task, n in records.completions().items() if n > 1} == {}


@pytest.mark.recent
def test_the_api_server_is_away_and_what_had_not_begun_uses_no_try(make_cluster):
    """Killed while tasks start, and started again once backends have met that nobody answers. Tasks whose code ran
    already may fail, for want of the answers that Airflow owes it; no other does."""
    cluster = make_cluster(
        TASKS,
        AIRFLOW__WORKERS__EXECUTION_API_RETRIES="3",
        # Just started, it may need longer than the default of 5 s for its first answers on a busy machine, and set a
        # task running whose process waits for that no more.
        AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="60",
    )
    run_id = cluster.trigger("many")
    records = Records.of(cluster, run_id)
    wait(lambda: sum(records.completions().values()) >= TASKS // 5, 300, cluster)
    killed = datetime.now(UTC)
    cluster.kill_component("api-server")
    met = "The execution API answers nobody"
    wait(lambda: met in cluster.log("scheduler").read_text(errors="replace"), 120, cluster)
    cluster.start_component("api-server")
    cluster.wait_until_healthy()
    cluster.wait_for_run("many", run_id, timeout=600)
    rows = cluster.task_instances("many", run_id)
    begun = {row["task_id"] for row in rows if row["start_date"] and when(row["start_date"]) < killed}
    others = [row for row in rows if row["task_id"] not in begun]
    wrong = [row for row in others if (row["state"], row["try_number"]) != ("success", 1)]
    assert not wrong, f"killed at {killed}\n{all_about(cluster, wrong)}"
    assert len(rows) == TASKS > len(begun)
    assert set(records.completions().values()) == {1}


def when(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def waiting(cluster, run_id: str) -> set[str]:
    """Tasks that are queued."""
    rows = cluster.task_instances("blocked", run_id)
    return {row["task_id"] for row in rows if row["state"] == "queued"}


def stuck(cluster) -> list[str]:
    """Tasks that Airflow found queued for too long, in order."""
    return [row["task_id"] for row in cluster.event_logs(dag_id="blocked") if "stuck" in row["event"]]
