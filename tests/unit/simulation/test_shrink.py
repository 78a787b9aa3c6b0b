# SPDX-License-Identifier: Apache-2.0
"""The fewest faults that lead to a violation."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from airflow_dispatch_provider.lifecycle.transitions import rows_of
from airflow_dispatch_provider.simulation.coverage import ALL, name_of, without
from airflow_dispatch_provider.simulation.faults import Fault
from airflow_dispatch_provider.simulation.report import simulate
from airflow_dispatch_provider.simulation.scenario import Scenario
from airflow_dispatch_provider.simulation.shrink import shrink, shrunk
from airflow_dispatch_provider.simulation.world import Shape

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Worlds log thousands of failures."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def scenario_of(number: int) -> Scenario:
    """So many faults, one a second, that differ in ``whom``."""
    faults = tuple(Fault(float(n), "run lost", n / number, 1.0) for n in range(number))
    return Scenario(1, Shape(), 3600.0, faults)


def moments(scenario: Scenario) -> set[float]:
    return {fault.at for fault in scenario.faults}


@pytest.mark.parametrize("needed", [set(), {0.0}, {99.0}, {3.0, 4.0}, {0.0, 41.0, 99.0}])
def test_only_the_faults_that_are_needed_are_left(needed: set[float]) -> None:
    """In the order of their time, and the time after the last one is left out too."""
    smallest = shrink(scenario_of(100), lambda tried: needed <= moments(tried), lambda smallest: True)
    assert moments(smallest) == needed
    assert list(smallest.faults) == sorted(smallest.faults)
    assert smallest.seconds == max(needed, default=0.0) + 60.0


def test_the_search_ends_when_it_is_told_to() -> None:
    """With the smallest so far, which still fails."""
    tries = iter(range(5))
    smallest = shrink(
        scenario_of(100), lambda tried: 7.0 in moments(tried), lambda smallest: next(tries, None) is not None
    )
    assert 7.0 in moments(smallest)
    assert 1 < len(smallest.faults) < 100


def test_a_violation_is_shrunk_to_one_of_its_kind_that_is_run_again_from_json() -> None:
    """Here the table lacks a row, without which tries are lost."""
    (number,) = [number for number in ALL if "nothing of it has run" in name_of(number)]
    found = simulate(100, 600, Shape(fault_every=10.0), lambda so_far: True, without(number)).wrong
    rows = rows_of(without(number))
    assert found is not None
    assert found.violation is not None
    tries = iter(range(25))
    smallest = shrunk(found, lambda smallest: next(tries, None) is not None, rows)
    assert smallest.violation is not None
    assert smallest.violation.kind == found.violation.kind
    assert len(smallest.scenario.faults) < len(found.scenario.faults) / 2
    kept = json.loads(json.dumps(smallest.as_dict()))
    again = Scenario.from_dict(kept).run(rows)
    assert str(again.violation) == str(smallest.violation) == kept["violation"]
    assert [fault["hit"] for fault in kept["faults"]] == [hit for _, _, hit in again.world.struck]
