# SPDX-License-Identifier: Apache-2.0
"""Backends come, go and change under a real scheduler that runs tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from .conftest import wait
from .outcome import assert_succeeds
from .records import Records, backends_of
from .test_dispatch import TASKS

pytestmark = pytest.mark.acceptance

LOCAL = {"executor": "LocalExecutor", "slots": 4}
BEFORE = {
    "backends": {"small": LOCAL, "medium": LOCAL},
    "routes": [{"queue": "two", "to": ["small", "medium"]}, {"queue": "four", "to": ["medium"]}],
    "default": ["medium", "small"],
}
AFTER = {
    "backends": {"medium": {**LOCAL, "config": {"dispatch": {"local_ahead": 2}}}, "large": LOCAL},
    "routes": [{"queue": "two", "to": ["large"]}, {"queue": "four", "to": ["medium"]}],
    "default": ["large", "medium"],
}


def write(file: Path, settings: object) -> Path:
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.mark.once
def test_the_file_adds_removes_and_changes_backends(make_cluster, tmp_path):
    """While both are full of tasks that run on, one backend is removed and one changed, and a third is added, which
    takes what waits: every task succeeds in its first try, and runs once."""
    file = write(tmp_path / "dispatch.yaml", BEFORE)
    cluster = make_cluster(TASKS, AIRFLOW__DISPATCH__CONFIG_FILE=str(file))
    runs = {dag_id: cluster.trigger(dag_id) for dag_id in ("blocked", "many")}
    records = {dag_id: Records.of(cluster, run_id) for dag_id, run_id in runs.items()}
    wait(lambda: number_of(records["blocked"].starts(), "two") == 8, 300, cluster)
    cluster.cli("dispatch", "apply", str(write(tmp_path / "dispatch.new.yaml", AFTER)), check=True)
    assert yaml.safe_load(file.read_text()) == AFTER
    wait(lambda: number_of(records["blocked"].starts(), "two") == 12, 120, cluster)
    assert number_of(records["blocked"].completions(), "two") == 0
    records["blocked"].release()
    for dag_id, run_id in runs.items():
        assert_succeeds(cluster, dag_id, run_id, timeout=900)
        rows = cluster.task_instances(dag_id, run_id)
        assert {(row["state"], row["try_number"]) for row in rows} == {("success", 1)}
        assert len(records[dag_id].completions()) == len(rows)
        assert set(records[dag_id].completions().values()) == {1}
    log = cluster.log("scheduler")
    steps = (
        "Backend 'small' has stopped.",
        "Backend 'medium' has stopped.",
        "Backend 'medium' is being started (",
    )
    wait(lambda: all(line in log.read_text() for line in steps), 60, cluster)
    # Of the two that are started while threads run.
    assert log.read_text().count("The template process is a fresh interpreter and not a fork") == 2
    ran_on = backends_of(cluster.event_logs(dag_id="blocked", event="dispatched"), runs["blocked"])
    assert Counter(where[-1] for task, where in ran_on.items() if task.startswith("two")) == {
        "small": 4,
        "medium": 4,
        "large": 4,
    }
    assert "could not be done" not in log.read_text()


def number_of(counted: Counter[str], queue: str) -> int:
    return sum(task.startswith(f"{queue}_") for task in counted)
