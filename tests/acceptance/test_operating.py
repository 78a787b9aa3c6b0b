# SPDX-License-Identifier: Apache-2.0
"""Commands about a whole Airflow that runs: an operator sees what waits and why, and gives orders."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import DEFAULT, SLOTS, wait
from .outcome import assert_succeeds
from .records import Records

pytestmark = pytest.mark.acceptance


def ask(cluster: Any, *arguments: str) -> Any:
    """The answer of a command as JSON, whatever its exit code."""
    done = cluster.cli("dispatch", *arguments, "--output", "json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def state_of(cluster: Any, backend: str) -> str:
    """Asked of the API server: a command takes a core for some seconds, and this is asked again and again."""
    return next((each["state"] for each in status(cluster)["backends"] if each["name"] == backend), "")


def status(cluster: Any) -> Any:
    return cluster.request("GET", "/dispatch/api/status")


@pytest.mark.once
def test_an_operator_sees_why_tasks_wait_and_gives_orders(make_cluster):
    """Both slots of `small` are taken and ten tasks are held: status, waiting and story say so; drained and resumed
    meanwhile, the backend loses none of them, and every task ends in success at its first try."""
    cluster = make_cluster()
    run_id = cluster.trigger("blocked")
    records = Records.of(cluster, run_id)
    wait(lambda: len(records.starts()) == 6 + SLOTS["small"], 180, cluster)

    def held() -> int:
        return sum(each["held"] for each in status(cluster)["backends"])

    wait(lambda: held() == 10, 60, cluster)
    small = next(each for each in ask(cluster, "status")["backends"] if each["name"] == "small")
    assert (small["used"], small["slots"], small["state"]) == (2, 2, "open")
    assert small["dags"] == {"blocked": 2}
    found = ask(cluster, "waiting", "--backend", "small")
    assert [(each["reason"], each["held"]) for each in found["groups"]] == [("waits_full", 10)]
    assert [task["position"] for task in found["tasks"]] == list(range(1, 11))
    one = found["tasks"][0]
    story = ask(cluster, "story", "blocked", run_id, one["task_id"])
    assert story["waiting"]["reason"] == "waits_full"
    assert story["steps"][0]["event"] == "scheduled"

    for word, state in (("cordon", "cordoned"), ("drain", "draining")):
        given = ask(cluster, word, "small", "--reason", "new nodes", "--for", "2h")
        assert (given["command"], given["reason"]) == (word, "new nodes")
        wait(lambda state=state: state_of(cluster, "small") == state, 60, cluster)
    records.release()
    assert cluster.cli("dispatch", "drain", "small", "--wait", "--timeout", "2m").returncode == 0
    wait(lambda: len(records.completions()) == 6 + SLOTS["small"], 120, cluster)
    assert ask(cluster, "resume", "small")["command"] == "drain"
    assert ask(cluster, "resume", "small") is None
    assert_succeeds(cluster, "blocked", run_id, timeout=180)
    assert set(records.completions().values()) == {1}
    assert {row["try_number"] for row in cluster.task_instances("blocked", run_id)} == {1}
    words = [step["event"] for step in ask(cluster, "story", "blocked", run_id, one["task_id"])["steps"]]
    assert [word for word in words if word in ("scheduled", "dispatched", "ended")] == [
        "scheduled",
        "dispatched",
        "ended",
    ]
    audited = {row["event"] for row in cluster.event_logs() if row["event"].startswith("dispatch_")}
    assert audited == {"dispatch_cordon", "dispatch_drain", "dispatch_resume"}


@pytest.mark.once
def test_an_order_outlives_the_scheduler(make_cluster):
    """Cordoned, the scheduler killed, another one started: no task goes there until it is resumed."""
    cluster = make_cluster()
    wait(lambda: state_of(cluster, DEFAULT) == "open", 60, cluster)
    ask(cluster, "cordon", "small")
    wait(lambda: state_of(cluster, "small") == "cordoned", 60, cluster)
    cluster.kill_scheduler()
    cluster.start_scheduler()
    run_id = cluster.trigger("blocked")
    records = Records.of(cluster, run_id)
    wait(lambda: sum(records.completions().values()) == 6, 180, cluster)
    assert {task.split("_")[0] for task in records.starts()} == {"four", "glob-x"}
    ask(cluster, "resume", "small")
    records.release()
    assert_succeeds(cluster, "blocked", run_id, timeout=180)
