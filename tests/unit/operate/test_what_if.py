# SPDX-License-Identifier: Apache-2.0
"""A routing file that is not in use, against the one that is, and for the tasks that wait."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml
from operate_answers import ROUTING, FakeAnswers, now, waiting_task

from airflow_dispatch_provider.operate.model import Uncounted, Waiting
from airflow_dispatch_provider.operate.what_if import NAME, what_if
from airflow_dispatch_provider.settings.changes import STARTED

NOTHING_WAITS = Waiting(now(), 0, [], [])


def text(**changes: Any) -> str:
    return yaml.safe_dump({**ROUTING, **changes})


def waiting(*queues: str, total: int | None = None) -> Waiting:
    tasks = [waiting_task("dag", f"t{number}", queue=queue) for number, queue in enumerate(queues)]
    return Waiting(now(), len(tasks) if total is None else total, [], tasks)


def test_every_mistake_is_told_and_nothing_else() -> None:
    """Each with place and remedy."""
    broken = text(default="nowhere", routes=[{"queue": "gpu", "to": []}])
    found = what_if(FakeAnswers().settings(None), broken, waiting("gpu"))
    assert [each.where for each in found.mistakes] == [f"{NAME}: routes[0].to", f"{NAME}: default"]
    assert all(each.remedy for each in found.mistakes)
    assert (found.changes, found.moved) == ([], [])


@pytest.mark.parametrize("pasted", ["", "- a list", "a: [", "x" * 1000, "&a [*a]", "\0"])
def test_what_is_no_routing_file_is_a_mistake(pasted: str) -> None:
    """And never an error of the server."""
    assert what_if(FakeAnswers().settings(None), pasted, NOTHING_WAITS).mistakes


def test_the_same_file_changes_nothing() -> None:
    """No task is asked about then."""
    found = what_if(FakeAnswers().settings(None), text(), waiting("gpu", total=9))
    assert (found.mistakes, found.changes, found.moved, found.looked_at, found.waiting) == ([], [], [], 1, 9)


def test_waiting_tasks_that_would_find_other_targets_are_told() -> None:
    """With both routes and both lists of targets; the others are counted."""
    changed = text(routes=[{"queue": "gpu", "to": ["gpu", "local"]}, *ROUTING["routes"][1:]])
    found = what_if(FakeAnswers().settings(None), changed, waiting("gpu", "burst-a", "gpu", total=50))
    assert [each.what for each in found.changes] == ["routes[0]"]
    assert [(each.task_id, each.before, each.after) for each in found.moved] == [
        ("t0", ["gpu"], ["gpu", "local"]),
        ("t2", ["gpu"], ["gpu", "local"]),
    ]
    assert (found.moved_total, found.looked_at, found.waiting) == (2, 3, 50)


def test_tasks_that_nobody_has_taken_over_are_spoken_of() -> None:
    """They wait, too, and cannot be asked."""
    silent = replace(NOTHING_WAITS, uncounted=[Uncounted("3", None, "Scheduler 3 has died.")])
    source = FakeAnswers().settings(None)
    assert what_if(source, text(default="local"), silent).problem == "Scheduler 3 has died."
    assert what_if(source, text(), silent).problem is None


def test_the_effect_on_a_backend_is_told() -> None:
    """As ``changes`` has it; and whether any scheduler would read the file at all."""
    backends = {**ROUTING["backends"], "new": {"executor": "LocalExecutor", "slots": 1}}
    found = what_if(FakeAnswers().settings(None), text(backends=backends), NOTHING_WAITS)
    (change,) = found.changes
    assert (change.what, change.kind, change.effect) == ("backends.new", "added", STARTED)
    assert not found.reads_file


def test_no_executor_of_the_file_is_imported() -> None:
    """A reader could run any module that is installed."""
    backends = {**ROUTING["backends"], "new": {"executor": "antigravity.Executor", "slots": 1}}
    found = what_if(FakeAnswers().settings(None), text(backends=backends), NOTHING_WAITS)
    assert found.changes
    assert "antigravity" not in sys.modules


def test_values_of_options_are_not_told() -> None:
    """Of the configuration in use, which may hold a password."""
    answers = FakeAnswers()
    celery = {
        **ROUTING["backends"]["celery"],
        "config": {"celery": {"broker_url": "redis://:hunter2@broker"}},
    }
    answers.routing = {**ROUTING, "backends": {**ROUTING["backends"], "celery": celery}}
    found = what_if(answers.settings(None), text(), NOTHING_WAITS)
    assert [each.details for each in found.changes] == ["config.celery.broker_url removed"]
    assert "hunter2" not in repr(found)


def test_a_wrong_configuration_in_use_is_named() -> None:
    """There is nothing to compare with."""
    answers = FakeAnswers()
    answers.routing = {"backends": {}}
    found = what_if(answers.settings(None), text(), NOTHING_WAITS)
    assert found.mistakes == []
    assert found.problem is not None
