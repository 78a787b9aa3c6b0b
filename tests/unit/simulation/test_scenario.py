# SPDX-License-Identifier: Apache-2.0
"""Plans of faults, and runs of them that can be repeated."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from airflow_dispatch_provider.simulation.coverage import ALL, counted
from airflow_dispatch_provider.simulation.faults import KINDS, Fault, plan
from airflow_dispatch_provider.simulation.hosts import HostEngine
from airflow_dispatch_provider.simulation.scenario import Outcome, Scenario
from airflow_dispatch_provider.simulation.tasks import Violation
from airflow_dispatch_provider.simulation.world import Shape

pytestmark = pytest.mark.once

ROUGH = Shape(fault_every=10.0)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Worlds log thousands of failures."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_longer_plan_begins_like_a_shorter_one() -> None:
    """Each fault has chance of its own, and all kinds come."""
    short, long = plan(3, 300.0, 10.0), plan(3, 9000.0, 10.0)
    assert long[: len(short)] == short
    assert all(before.at < after.at < 9000.0 for before, after in pairwise(long))
    assert {fault.kind for fault in long} == set(KINDS)
    assert plan(4, 300.0, 10.0) != short


def test_a_fault_hits_one_of_those_that_are_there() -> None:
    """Chances are kept with six digits, so that one may be 1."""
    assert [Fault(0.0, "", whom, 0.0).pick("abc") for whom in (0.0, 0.334, 0.999999, 1.0)] == [*"abcc"]


def test_faults_that_are_left_out_change_nothing_before_them() -> None:
    """The others strike when they did; those that strike later may hit something else."""
    scenario = Scenario.of(5, ROUGH, 300)
    every = scenario.run().world.struck
    middle = len(every) // 2
    fewer = scenario.only(scenario.faults[:middle] + scenario.faults[middle + 1 :]).run().world.struck
    assert fewer[:middle] == every[:middle]
    assert [hit[:2] for hit in fewer[middle:]] == [hit[:2] for hit in every[middle + 1 :]]


def test_a_scenario_comes_back_from_json() -> None:
    """Also one that lacks faults."""
    scenario = Scenario.of(5, ROUGH, 300)
    scenario = scenario.only(scenario.faults[1:4])
    assert Scenario.from_dict(json.loads(json.dumps(scenario.as_dict()))) == scenario


def test_an_error_of_the_code_under_test_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its traceback."""

    def fails(world: object, fault: Fault) -> str:
        raise ZeroDivisionError("broken")

    monkeypatch.setitem(KINDS, "run lost", fails)
    outcome = Scenario(5, ROUGH, 60.0, (Fault(20.0, "run lost", 0.0, 1.0),)).run()
    assert str(outcome.violation) == "raises ZeroDivisionError: broken"
    assert "in fails" in "\n".join(outcome.story())
    assert [(at, kind) for at, kind, _ in outcome.world.struck] == [(20.0, "run lost")]


@pytest.mark.parametrize("error", [ZeroDivisionError("broken"), Violation("goes wrong", detail="broken")])
def test_the_loop_under_test_hides_nothing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """It guards itself against whatever an engine raises, but no model raises an error that is not a violation."""

    def fails(engine: HostEngine, jobs: object) -> None:
        raise error

    monkeypatch.setattr(HostEngine, "submit", fails)
    outcome = Scenario(5, ROUGH, 60.0, ()).run()
    assert outcome.violation is not None
    assert "broken" in str(outcome.violation)
    assert ("in fails" in outcome.traceback) is isinstance(error, ZeroDivisionError)


ONLY_WITH = {
    "backend mute": "scheduler killed",
    "log cleaned": "scheduler killed",
    "rules wrong": "task taken back",
}
"""Faults that change nothing by themselves, and another one that lets them."""

BATCHES, WHOM = (60.0, 120.0, 180.0), (0.05, 0.3, 0.55, 0.8, 0.95)


def with_faults(*kinds: str) -> tuple[Outcome, Counter[int]]:
    """A world in which these strike everybody, one kind after the other, and the rows of the table that it takes."""
    faults = [
        Fault(batch + place * 0.7 - 0.5 + number / 10, kind, whom, 15.0)
        for number, kind in enumerate(kinds)
        for batch in BATCHES
        for place, whom in enumerate(WHOM)
    ]
    taken = Counter[int]()
    scenario = Scenario(2, Shape(batch=24), 240.0, tuple(sorted(faults)))
    return scenario.run(counted(ALL, taken)), taken


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_changes_what_happens_and_alone_harms_nothing(kind: str) -> None:
    """Other rows of the table are taken than without it, or something begins elsewhere or at another time."""
    other = [ONLY_WITH[kind]] if kind in ONLY_WITH else []
    outcome, taken = with_faults(kind, *other)
    assert outcome.violation is None, "\n".join(outcome.story())
    without, taken_without = with_faults(*other)
    assert (taken, outcome.world.trace) != (taken_without, without.world.trace)
