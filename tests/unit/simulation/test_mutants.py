# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of transitions that are left out in turn."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from airflow_dispatch_provider.simulation.faults import KINDS, Fault
from airflow_dispatch_provider.simulation.mutants import HEAD, Mutant, line, summary, try_all
from airflow_dispatch_provider.simulation.world import Shape

pytestmark = pytest.mark.once

QUICK = Shape(schedulers=1, batch=6, fault_every=30.0)
FOUND, MISSED, NOT_TAKEN = (
    Mutant(1, True, "it waits for ever", 1234, 5.67),
    Mutant(2, True, None, 2000, 9.0),
    Mutant(3, False, None, 0, 0.0),
)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Worlds log thousands of failures."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def tried(words: str) -> list[str]:
    return [mutant.word for mutant in try_all(100, 60.0, QUICK, 1, words)]


def test_a_row_without_which_a_world_goes_wrong_is_found() -> None:
    """Here nothing is dispatched."""
    assert tried("held Decision: dispatched") == ["found"]


def test_a_row_without_which_all_goes_well_is_missed() -> None:
    """It only tells users."""
    assert tried("sent Stalled: does not start") == ["missed"]


def test_a_row_that_no_world_takes_is_not_tried() -> None:
    """Its removal would change nothing."""
    assert tried("submitted Ended: failed") == ["not taken"]


def test_nothing_is_said_where_a_world_goes_wrong_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seed is."""

    def fails(world: object, fault: Fault) -> str:
        raise ZeroDivisionError

    for kind in KINDS:
        monkeypatch.setitem(KINDS, kind, fails)
    with pytest.raises(ValueError, match="seed 100: raises ZeroDivisionError"):
        tried("")


def test_the_table_is_aligned_and_counts_what_came_out() -> None:
    """Also where there is nothing to count."""
    lines = [line(mutant) for mutant in (FOUND, MISSED, NOT_TAKEN)]
    assert {text.index(f" {text[HEAD.index('row') :]}") + 1 for text in lines} == {HEAD.index("row")}
    assert lines[0].split()[:3] == ["found", "1,234", "5.7"]
    assert summary([FOUND, MISSED, FOUND, NOT_TAKEN]) == (
        "2 removals found, 1 missed, 1 of rows that these worlds do not take"
    )
    assert (FOUND.as_dict()["result"], FOUND.as_dict()["seconds"]) == ("found", 5.7)
