# SPDX-License-Identifier: Apache-2.0
"""Worlds in virtual time: they run what they should, tell the same story twice, and see what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airflow_dispatch_provider.lifecycle.events import Returned
from airflow_dispatch_provider.lifecycle.states import Row, State
from airflow_dispatch_provider.lifecycle.transitions import Case
from airflow_dispatch_provider.simulation.coverage import ALL, without
from airflow_dispatch_provider.simulation.faults import KINDS
from airflow_dispatch_provider.simulation.report import simulate
from airflow_dispatch_provider.simulation.scenario import Scenario
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
    assert not world.struck


def test_the_same_seed_tells_the_same_story() -> None:
    """To the last beginning and end; another seed tells another one."""
    stories = []
    for seed in (7, 7, 8):
        world = Scenario.of(seed, ROUGH, 300).run().world
        stories.append((world.trace, world.now, world.struck))
    assert stories[0] == stories[1] != stories[2]


def test_nothing_goes_wrong_under_faults() -> None:
    """Some hundred of them, of every kind."""
    report = simulate(100, 600, ROUGH, lambda so_far: so_far.faults.total() < 500)
    assert report.violation is None, "\n".join(report.lines())
    assert report.faults.keys() == KINDS.keys()


def lacking(event: type[Any], state: State, words: str) -> Mapping[int, Case]:
    """The table of transitions without one row."""
    (number,) = [
        number
        for number, case in ALL.items()
        if (case.event, case.state) == (event, state) and words in case.words
    ]
    return without(number)


@pytest.mark.parametrize(
    ("event", "state", "words", "wrong"),
    [
        (Row, State.UNCLEAR, "nothing of it has run", "loses a try that had not begun"),
        (Row, State.UNCLEAR, "it will be launched again", "does not come to rest"),
        (Row, State.RETURNING, "Airflow queues it again", "does not come to rest"),
        (Returned, State.SUBMITTED, "returned unsent", ""),
    ],
)
def test_a_row_that_the_table_lacks_is_missed(event: type[Any], state: State, words: str, wrong: str) -> None:
    """Within some hundred faults."""
    cases = lacking(event, state, words)
    report = simulate(100, 600, ROUGH, lambda so_far: so_far.faults.total() < 1000, cases)
    assert report.violation is not None
    assert wrong in report.violation


def test_a_violation_is_told_with_its_seed_and_its_story() -> None:
    """For people, and for programs."""
    cases = lacking(Row, State.UNCLEAR, "nothing of it has run")
    report = simulate(100, 600, ROUGH, lambda so_far: so_far.faults.total() < 5000, cases)
    lines = "\n".join(report.lines())
    assert f"seed {report.seed}: task " in lines
    assert "unclear (local)" in lines
    found = report.as_dict()
    assert (found["seed"], found["violation"]) == (report.seed, report.violation)
    assert sum(found["faults"].values()) == report.faults.total()
