# SPDX-License-Identifier: Apache-2.0
"""Truth tables: what a Celery result says of a dispatch."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from airflow_dispatch_provider.engines.celery import _flights as module
from airflow_dispatch_provider.engines.celery._flights import Flights
from airflow_dispatch_provider.lifecycle.events import Adopted, Began, Ended, Unknown
from airflow_dispatch_provider.lifecycle.states import Outcome


class TaskAlreadyRunningError(Exception):
    """Named as the SDK's."""


class ServerResponseError(Exception):
    """Named as the SDK's: also what a run may end with."""


REFUSED = TaskAlreadyRunningError("409")


@pytest.fixture
def flights() -> Flights:
    numbers = count(1)
    return Flights(lambda: f"new {next(numbers)}")


@pytest.mark.parametrize(
    ("is_task", "state", "info", "expected"),
    [
        # A worker has the message; the execution API is yet to be asked.
        (True, "STARTED", {"pid": 1}, []),
        # Callbacks ask nobody.
        (False, "STARTED", {"pid": 1}, [Began(1)]),
        (True, "SUCCESS", None, [Ended(1, Outcome.SUCCESS, True)]),
        (False, "SUCCESS", None, [Ended(1, Outcome.SUCCESS, True)]),
        # Whether it had begun, the database knows.
        (True, "FAILURE", ServerResponseError("no"), [Ended(1, Outcome.FAILED, None, "words")]),
        (True, "REVOKED", "terminated", [Ended(1, Outcome.FAILED, None, "words")]),
        # Another copy runs: this one certainly has not begun.
        (True, "FAILURE", REFUSED, [Ended(1, Outcome.FAILED, False, "words")]),
        # The backend knows nothing: it waits in its queue, or its result is lost.
        (True, "PENDING", None, []),
    ],
)
def test_results(flights: Flights, is_task: bool, state: str, info: Any, expected: list[Any]) -> None:
    flight = flights.enter(1, "a", is_task)
    assert flights.take(flight, state, info, "words") == expected
    ended = any(isinstance(event, Ended) for event in expected)
    assert (flights.of(1) is None) == (flights.of_id("a") is None) == ended


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("STARTED", Adopted(1)),
        ("PENDING", Unknown(1)),
        # It may be the end of a first half that deferred: the row tells.
        ("SUCCESS", Unknown(1)),
        ("FAILURE", Unknown(1)),
        ("REVOKED", Unknown(1)),
    ],
)
def test_answers_to_adoption(flights: Flights, state: str, expected: Any) -> None:
    flight = flights.adopt(1, "a", runs=True)
    assert flights.take(flight, state, None, "") == [expected]
    assert len(flights) == isinstance(expected, Adopted)


def test_an_adopted_one_ends_like_any_other(flights: Flights) -> None:
    flight = flights.adopt(1, "a", runs=True)
    flights.take(flight, "STARTED", None, "")
    assert flights.take(flight, "SUCCESS", None, "") == [Ended(1, Outcome.SUCCESS, True)]


def test_airflows_id_is_used_once(flights: Flights) -> None:
    """The database knows it already; a second message under it would be taken for the first."""
    first = flights.enter(1, flights.id_for("assigned"), True)
    assert first.celery_id == "assigned"
    flights.note_sent(first)
    flights.leave(first)
    assert flights.id_for("assigned") == "new 1"
    assert flights.id_for(None) == "new 2"


def test_airflows_id_is_used_again_if_nothing_was_sent_under_it(flights: Flights) -> None:
    flight = flights.enter(1, flights.id_for("assigned"), True)
    assert flights.id_for("assigned") == "new 1"
    flights.leave(flight)
    assert flights.id_for("assigned") == "assigned"


def test_ids_are_not_remembered_for_ever(flights: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED_IDS", 2)
    for name in "abc":
        flights.note_sent(flights.enter(1, name, True))
    assert list(flights._used) == ["b", "c"]


def test_of_two_adopted_under_one_id_the_earlier_is_forgotten(flights: Flights) -> None:
    """The life cycle has asked again, under another number, and waits for no news of the first question."""
    earlier = flights.adopt(1, "a", runs=True)
    later = flights.adopt(2, "a", runs=True)
    assert (flights.of(1), len(flights)) == (None, 1)
    flights.leave(earlier)
    assert flights.take(later, "STARTED", None, "") == [Adopted(2)]
    assert flights.of_id("a") is later


def test_one_that_has_left_may_leave_again(flights: Flights) -> None:
    """It was revoked, and its end was on its way."""
    flight = flights.enter(1, "id", True)
    for _ in range(2):
        flights.leave(flight)
        assert (len(flights), flights.of(1), flights.of_id("id")) == (0, None, None)
