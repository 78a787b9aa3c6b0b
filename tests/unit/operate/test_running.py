# SPDX-License-Identifier: Apache-2.0
"""Tasks that the backends of all schedulers have."""

from __future__ import annotations

from airflow_dispatch_provider.operate.running import first_of, running_of

from .documents import NOW, backend, document, reading, runs


def of(backend=None, dag_id=None, limit=10):
    one = document(
        "1",
        backends=[backend_("a", used=3, ahead=1), backend_("b", used=1)],
        running=[runs("new", since=NOW - 1), runs("other", backend="b", dag_id="other")],
    )
    two = document("2", backends=[backend_("a", used=1)], running=[runs("old", since=NOW - 99)])
    dead = document("3", written=NOW - 600, backends=[backend_("a", used=7)], running=[runs("dead")])
    return first_of(running_of(reading(one, two, dead), backend, dag_id), limit)


backend_ = backend


def test_those_that_have_been_there_for_longest_come_first():
    """Of all schedulers that live; the total is of all tasks, named or not."""
    found = of()
    assert [task.task_id for task in found.tasks] == ["old", "other", "new"]
    assert (found.total, found.tasks[0].scheduler) == (6, "2")
    assert [task.task_id for task in of(limit=1).tasks] == ["old"]


def test_filters():
    """By backend, which the total follows, and by Dag."""
    assert [task.task_id for task in of(backend="a").tasks] == ["old", "new"]
    assert of(backend="a").total == 5
    assert [task.task_id for task in of(dag_id="other").tasks] == ["other"]
