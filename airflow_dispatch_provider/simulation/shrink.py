# SPDX-License-Identifier: Apache-2.0
"""The fewest faults that still lead to the same violation, by delta debugging (Zeller and Hildebrandt, 2002)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from airflow_dispatch_provider.lifecycle.transitions import ROWS, Rows
from airflow_dispatch_provider.simulation.scenario import Outcome, Scenario

Fails = Callable[[Scenario], bool]
"""Whether a scenario leads to the violation that is looked for."""


def shrink(scenario: Scenario, fails: Fails, goes_on: Callable[[Scenario], bool]) -> Scenario:
    """Leave out faults, and then time, as long as it fails; the smallest scenario found.

    :param scenario: one that fails
    :param goes_on: told the smallest so far before each try; False ends the search
    """
    pieces = 2
    while True:
        for smaller in _smaller(scenario, pieces):
            if not goes_on(scenario):
                return scenario
            if fails(smaller):
                scenario, pieces = smaller, max(pieces - 1, 2)
                break
        else:
            if pieces >= len(scenario.faults):
                return _shorten(scenario, fails)
            pieces = min(pieces * 2, len(scenario.faults))


def _smaller(scenario: Scenario, pieces: int) -> Iterator[Scenario]:
    """Each lacks one of so many pieces; the last ones are left out first, since they matter least."""
    faults = scenario.faults
    size = -(-len(faults) // pieces) or 1
    for begin in reversed(range(0, len(faults), size)):
        yield scenario.only(faults[:begin] + faults[begin + size :])


def _shorten(scenario: Scenario, fails: Fails) -> Scenario:
    """Come to rest soon after the last fault."""
    last = max((fault.at for fault in scenario.faults), default=0.0)
    shorter = replace(scenario, seconds=min(scenario.seconds, last + 60.0))
    return shorter if shorter != scenario and fails(shorter) else scenario


def shrunk(found: Outcome, goes_on: Callable[[Scenario], bool], rows: Rows = ROWS) -> Outcome:
    """The smallest run with a violation of the same kind.

    :param found: a run with a violation
    :param goes_on: see ``shrink``
    :param rows: of the table of transitions, by which it went
    """
    assert found.violation is not None
    kind, best = found.violation.kind, found

    def fails(scenario: Scenario) -> bool:
        nonlocal best
        outcome = scenario.run(rows)
        if outcome.violation is None or outcome.violation.kind != kind:
            return False
        best = outcome
        return True

    struck = tuple(fault for fault in found.scenario.faults if fault.at <= found.world.now)
    shrink(found.scenario.only(struck), fails, goes_on)
    return best
