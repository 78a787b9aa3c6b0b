# SPDX-License-Identifier: Apache-2.0
"""Orders, and changes of the file, while two schedulers run tasks: both follow, and no task notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from devkit.deployments.airflow_cluster import AirflowCluster

from .conftest import wait
from .outcome import assert_succeeds
from .records import Records
from .test_live import number_of, write
from .test_operating import status

pytestmark = pytest.mark.acceptance

SCHEDULERS = ("scheduler", "scheduler-2")
LOCAL = {"executor": "LocalExecutor", "slots": 4}
BEFORE = {
    "backends": {"small": LOCAL, "medium": LOCAL},
    "routes": [{"queue": "two", "to": ["small", "medium"]}, {"queue": "spill", "to": ["medium", "small"]}],
    "default": ["medium", "small"],
}
WITH_LARGE = {**BEFORE, "backends": {**BEFORE["backends"], "large": LOCAL}, "default": ["large", "small"]}
WITHOUT_SMALL = {
    "backends": {"medium": LOCAL, "large": LOCAL},
    "routes": [{"queue": "two", "to": ["large", "medium"]}],
    "default": ["medium", "large"],
}
SHORT = 190
"""Tasks that end by themselves; 18 more are of the Dag ``blocked``, 12 of which run until they are released."""


@dataclass
class Schedulers:
    """Both of them, as their logs tell, and how long each took to follow."""

    cluster: AirflowCluster
    took: dict[str, list[float]] = field(default_factory=dict)
    """Seconds until each of them followed, by what was asked."""

    def follow(self, what: str, ask: Callable[[], object], *lines: str) -> float:
        """Ask for something, and wait until every scheduler has said each of these lines once more; returns when
        (seconds since 1970) the last one had."""
        wanted = {name: [count + 1 for count in self._counts(name, lines)] for name in SCHEDULERS}
        began, seconds = time.time(), self.took.setdefault(what, [])
        ask()
        asked = time.time()
        while wanted:
            for name in [name for name in wanted if self._counts(name, lines) >= wanted[name]]:
                del wanted[name]
                seconds.append(time.time() - asked)
            self.cluster.check_running()
            assert time.time() < began + 120, f"{sorted(wanted)} did not say {lines}"
            time.sleep(0.05)
        return time.time()

    def _counts(self, name: str, lines: Sequence[str]) -> list[int]:
        log = self.cluster.log(name).read_text(errors="replace")
        return [log.count(line) for line in lines]

    def order(self, command: str, backend: str) -> float:
        body = {"command": command, "backend": backend, "reason": "a test"}
        line = f"Order of an operator: {command} backend {backend!r}."
        return self.follow(
            command, lambda: self.cluster.request("POST", "/dispatch/api/orders", body=body), line
        )


@pytest.mark.once
def test_orders_and_changes_reach_both_and_no_task_notices(make_cluster, tmp_path):
    """A backend is cordoned, drained and resumed, another is added, and the first removed, in the middle of 208 tasks:
    each of them succeeds at its first try and runs once, and while the order was in force no scheduler gave the
    backend a task."""
    file = write(tmp_path / "dispatch.yaml", BEFORE)
    cluster = make_cluster(DISPATCH_TEST_MAPPED=str(SHORT), AIRFLOW__DISPATCH__CONFIG_FILE=str(file))
    cluster.start_scheduler(SCHEDULERS[1])
    both = Schedulers(cluster)
    wait(lambda: number_of_schedulers(cluster) == 2, 60, cluster)
    runs = {dag_id: cluster.trigger(dag_id) for dag_id in ("blocked", "mapped")}
    records = {dag_id: Records.of(cluster, run_id) for dag_id, run_id in runs.items()}
    wait(lambda: number_of(records["blocked"].starts(), "two") >= 8, 180, cluster)

    def some_more_end() -> None:
        done = len(records["mapped"].completions())
        wait(lambda: len(records["mapped"].completions()) >= done + 10, 120, cluster)

    cordoned = both.order("cordon", "small")
    some_more_end()
    both.order("drain", "small")
    some_more_end()
    resumed = time.time()
    both.order("resume", "small")
    both.follow(
        "add",
        lambda: replace(file, WITH_LARGE),
        "has changed and is in use",
        "Backend 'large' is being started (",
    )
    both.follow("remove", lambda: replace(file, WITHOUT_SMALL), "Backend 'small' gets no new work")
    assert number_of(records["blocked"].completions(), "two") == 0
    unfinished = SHORT - len(records["mapped"].completions())
    records["blocked"].release()

    for dag_id, run_id in runs.items():
        assert_succeeds(cluster, dag_id, run_id, timeout=600)
        rows = cluster.task_instances(dag_id, run_id)
        assert {(row["state"], row["try_number"]) for row in rows} == {("success", 1)}
        assert len(records[dag_id].completions()) == len(rows)
        assert set(records[dag_id].starts().values()) == set(records[dag_id].completions().values()) == {1}
    gone = "Backend 'small' has stopped."
    wait(lambda: all(gone in cluster.log(name).read_text() for name in SCHEDULERS), 60, cluster)
    between = [row for row in to_backend(cluster, "small") if cordoned < when(row) < resumed]
    assert not between
    assert len(queued_by(cluster)) == 2
    print(f"\n{unfinished} of {SHORT} short tasks had not ended when the last change was made.")
    for what, seconds in both.took.items():
        print(f"{what}: " + ", ".join(f"{each:.2f} s" for each in seconds))


def replace(file: Path, settings: object) -> None:
    """At once, as ``airflow dispatch apply`` does."""
    write(file.with_suffix(".new"), settings).replace(file)


def number_of_schedulers(cluster: AirflowCluster) -> int:
    return sum(each["lives"] for each in status(cluster)["schedulers"])


def to_backend(cluster: AirflowCluster, name: str) -> list[dict[str, str]]:
    """The event log's rows of what was dispatched to it."""
    return [row for row in cluster.event_logs(event="dispatched") if f'"backend": "{name}"' in row["extra"]]


def when(row: dict[str, str]) -> float:
    return datetime.fromisoformat(row["when"].replace("Z", "+00:00")).timestamp()


def queued_by(cluster: AirflowCluster) -> set[int]:
    """The schedulers that have queued tasks."""
    engine = create_engine(cluster.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT DISTINCT queued_by_job_id FROM task_instance")))
