# SPDX-License-Identifier: Apache-2.0
"""Worlds in virtual time: they run what they should, tell the same story twice, and see what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_dispatch_provider.lifecycle import transitions
from airflow_dispatch_provider.lifecycle.events import Returned
from airflow_dispatch_provider.lifecycle.states import Row, State
from airflow_dispatch_provider.simulation.report import Report, simulate
from airflow_dispatch_provider.simulation.world import Shape, World

pytestmark = pytest.mark.once

ROUGH = Shape(fault_every=10.0)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Worlds log thousands of failures."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_without_faults_every_task_runs_once() -> None:
    """In its first try, and nothing is left."""
    world = World(1, Shape(fault_every=1e9))
    world.run(600)
    tasks = world.tasks.by_number.values()
    assert len(tasks) > 100
    assert {(task.state, task.completed, task.attempt) for task in tasks} == {("success", 1, 1)}
    assert not world.faults


def test_the_same_seed_tells_the_same_story() -> None:
    """To the last beginning and end; another seed tells another one."""
    stories = []
    for seed in (7, 7, 8):
        world = World(seed, ROUGH)
        world.run(300)
        stories.append((world.trace, world.now, dict(world.faults)))
    assert stories[0] == stories[1] != stories[2]


def test_nothing_goes_wrong_under_faults() -> None:
    """Some hundred of them, of every kind."""
    report = simulate(100, 600, ROUGH, lambda so_far: so_far.faults.total() < 500)
    assert report.violation is None, "\n".join(report.lines())
    assert len(report.faults) == 8


def without(monkeypatch: pytest.MonkeyPatch, event: type[Any], state: State, words: str) -> None:
    """A table of transitions that lacks a row."""
    rows = transitions._CASES[event][state]
    left = [row for row in rows if words not in row[1].words]
    assert len(left) == len(rows) - 1
    monkeypatch.setitem(transitions._CASES[event], state, left)


@pytest.mark.parametrize(
    ("event", "state", "words", "wrong"),
    [
        (Row, State.UNCLEAR, "nothing of it has run", "loses a try that had not begun"),
        (Row, State.UNCLEAR, "it will be launched again", "without faults"),
        (Row, State.RETURNING, "Airflow queues it again", "without faults"),
        (Returned, State.SUBMITTED, "returned unsent", ""),
    ],
)
def test_a_row_that_the_table_lacks_is_missed(
    monkeypatch: pytest.MonkeyPatch, event: type[Any], state: State, words: str, wrong: str
) -> None:
    """Within some hundred faults."""
    without(monkeypatch, event, state, words)
    report = Report()
    try:
        report = simulate(100, 600, ROUGH, lambda so_far: so_far.faults.total() < 1000)
    except AssertionError as error:  # the life cycle's own
        report.violation = repr(error)
    assert report.violation is not None
    assert wrong in report.violation


def test_a_violation_is_told_with_its_seed_and_its_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """For people, and for programs."""
    without(monkeypatch, Row, State.UNCLEAR, "nothing of it has run")
    report = simulate(100, 600, ROUGH, lambda so_far: so_far.faults.total() < 5000)
    lines = "\n".join(report.lines())
    assert f"seed {report.seed}: task " in lines
    assert "unclear (local)" in lines
    found = report.as_dict()
    assert (found["seed"], found["violation"]) == (report.seed, report.violation)
    assert sum(found["faults"].values()) == report.faults.total()
