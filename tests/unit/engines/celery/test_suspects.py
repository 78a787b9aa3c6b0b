# SPDX-License-Identifier: Apache-2.0
"""Which messages a worker may have dropped, and when that is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_dispatch_provider.engines.celery._flights import Flight
from airflow_dispatch_provider.engines.celery._suspects import LOOK_AFTER, LOOK_AGAIN, Suspects


def flight(number: int = 1, queue: str = "q", **fields: bool) -> Flight:
    return replace(Flight(number, f"id {number}", is_task=True, sent=True, queue=queue), **fields)


def after_outage(*flights: Flight) -> Suspects:
    """It has ended at 0."""
    suspects = Suspects()
    suspects.note(0, 1, False, flights)
    return suspects


def count(suspects: Suspects, now: float, **counts: int) -> list[int]:
    """Those that are judged to be nowhere, at the moment at which it is to be looked at."""
    assert suspects.queues(now)
    return [each.dispatch for each in suspects.judge(counts)]


def test_what_is_twice_in_no_queue_is_nowhere() -> None:
    """Once may be a moment between two servers."""
    suspects = after_outage(flight(1), flight(2))
    assert suspects.queues(LOOK_AFTER - 1) == []
    assert suspects.queues(LOOK_AFTER) == ["q"]
    assert suspects.judge({"q": 0}) == []
    assert suspects.queues(LOOK_AFTER + LOOK_AGAIN - 1) == []
    assert count(suspects, LOOK_AFTER + LOOK_AGAIN, q=0) == [1, 2]
    assert suspects.queues(1e9) == []


def test_while_something_waits_in_its_queue_it_may_be_that() -> None:
    """It is counted from the beginning then, and each queue by itself."""
    suspects = after_outage(flight(1, "a"), flight(2, "b"))
    assert count(suspects, 60, a=0, b=1) == []
    assert count(suspects, 90, a=1, b=0) == []
    assert count(suspects, 120, a=0, b=0) == [2]
    assert count(suspects, 150, a=0) == [1]


def test_without_an_answer_nothing_is_judged() -> None:
    """The broker may be away."""
    suspects = after_outage(flight())
    for now in (60, 90, 120):
        assert count(suspects, now) == []


@pytest.mark.parametrize("fields", [{"sent": False}, {"taken": True}, {"is_task": False}])
def test_who_is_no_suspect(fields: dict[str, bool]) -> None:
    """One that is not sent yet, one that a worker has, and callbacks, of which nobody knows whether they have run."""
    assert after_outage(flight(**fields)).queues(1e9) == []


@pytest.mark.parametrize("field", ["taken", "over"])
@pytest.mark.parametrize("when", ["before it is counted", "while it is counted"])
def test_a_suspect_that_is_heard_of_is_none_any_more(field: str, when: str) -> None:
    """Its result has come."""
    one, other = flight(1), flight(2)
    suspects = after_outage(one, other)
    count(suspects, 60, q=0)
    if when == "before it is counted":
        setattr(one, field, True)
    assert suspects.queues(90)
    setattr(one, field, True)
    assert suspects.judge({"q": 0}) == [other]


def test_in_the_next_outage_nobody_is_judged() -> None:
    """And after it everybody anew."""
    one = flight()
    suspects = after_outage(one)
    suspects.note(50, 1, True, [one])
    assert suspects.queues(80) == []
    suspects.note(90, 2, False, [one])
    assert suspects.queues(90 + LOOK_AFTER - 1) == []
    assert suspects.queues(90 + LOOK_AFTER) == ["q"]


def test_without_an_outage_nobody_is_suspect() -> None:
    """A message may wait in a worker for hours."""
    suspects = Suspects()
    suspects.note(0, 0, False, [flight()])
    assert suspects.queues(1e9) == []
