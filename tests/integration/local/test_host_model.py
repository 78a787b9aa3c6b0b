# SPDX-License-Identifier: Apache-2.0
"""The simulation's machine is tied to this one: the same scripts run on both, and both say the same."""

from __future__ import annotations

import pytest
from integration.sides import said

from airflow_dispatch_provider.lifecycle.events import Adopted, Ended, Rejected, Returned, Sent, Unknown
from airflow_dispatch_provider.lifecycle.states import Outcome

from .host_sides import ModelSide, RealSide, Side
from .test_local_engine import make_engine

__all__ = ["make_engine"]

pytestmark = pytest.mark.recent

SENT, BEGAN = ("Sent", None, None), ("Began", None, None)
FAILED, SUCCESS = Outcome.FAILED, Outcome.SUCCESS


@pytest.fixture(params=["model", "real"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "model":
        return ModelSide()
    return RealSide(request.getfixturevalue("make_engine"))


def all_said(side: Side, number: int, heir: bool = False) -> list[object]:
    """Up to its end."""
    return [said(event) for event in side.hears(number, Ended | Returned, heir)]


def test_from_submission_to_end(side: Side) -> None:
    """Each once, in this order."""
    assert all_said(side, side.submit()) == [SENT, BEGAN, ("Ended", SUCCESS, True)]


@pytest.mark.parametrize("begun", [False, True])
def test_a_process_that_is_killed(side: Side, begun: bool) -> None:
    """It is known whether the task had begun."""
    number = side.begun() if begun else side.held()
    side.kill(number)
    assert all_said(side, number)[-1] == ("Ended", FAILED, begun)


@pytest.mark.parametrize("begun", [False, True])
def test_a_process_that_is_revoked(side: Side, begun: bool) -> None:
    """The same."""
    number = side.begun() if begun else side.held()
    side.hears(number, Sent)
    side.revoke(number)
    assert all_said(side, number)[-1] == ("Ended", FAILED, begun)


def test_of_what_a_dead_template_process_had_forked_the_end_is_seen(side: Side) -> None:
    """How it has ended, the database has to say."""
    begun, held = side.begun(), side.held()
    side.hears(held, Sent)
    side.kill_template()
    side.wait_until(lambda: side.room().unavailable is not None)
    side.kill(held)
    assert all_said(side, held) == [SENT, ("Ended", FAILED, None)]
    side.end_all()
    assert all_said(side, begun) == [SENT, BEGAN, ("Ended", SUCCESS, True)]


def test_what_a_dead_template_process_had_not_forked_is_returned(side: Side) -> None:
    """And the next one forks."""
    side.stop_template()
    number = side.submit()
    side.kill_template()
    assert all_said(side, number) == [("Returned", None, None)]
    side.wait_until(lambda: bool(side.room().takes))
    assert all_said(side, side.submit())[-1] == ("Ended", SUCCESS, True)


def test_what_is_given_ahead_starts_when_another_one_ends(side: Side) -> None:
    """In its order."""
    first = [side.held() for _ in range(4)]
    ahead = [side.submit(holds=True) for _ in range(2)]
    for ended, number in zip(first, ahead, strict=False):
        assert side.pid(number) is None
        side.kill(ended)
        side.wait_until(lambda number=number: side.pid(number) is not None)


def test_what_is_given_ahead_can_be_withdrawn(side: Side) -> None:
    """One that has started cannot."""
    first = [side.held() for _ in range(4)]
    ahead = side.submit(holds=True)
    side.withdraw(first[0], ahead)
    assert all_said(side, ahead) == [("Returned", None, None)]
    assert side.pid(first[0]) is not None


def test_what_cannot_be_forked_is_returned(side: Side) -> None:
    """And the backend says why."""
    side.starve_template()
    assert all_said(side, side.submit()) == [("Returned", None, None)]
    assert "could start no process" in str(side.room().unavailable)


def test_what_cannot_be_pickled_keeps_no_other(side: Side) -> None:
    """It alone is rejected."""
    spoilt, other = side.submit_spoilt(), side.submit()
    assert [type(event) for event in side.hears(spoilt, Rejected)] == [Rejected]
    assert all_said(side, other)[-1] == ("Ended", SUCCESS, True)


def test_another_scheduler_adopts_processes(side: Side) -> None:
    """Those that run and those that have not begun; it sees each of them end, and not how."""
    begun, held = side.begun(), side.held()
    runs, waits, nobody = side.adopt(begun, True), side.adopt(held, False), side.adopt(None, True)
    assert said(side.hears(runs, Adopted, heir=True)[0]) == ("Adopted", None, True)
    assert said(side.hears(waits, Adopted, heir=True)[0]) == ("Adopted", None, False)
    assert [type(event) for event in side.hears(nobody, Unknown, heir=True)] == [Unknown]
    side.kill(held)
    assert all_said(side, waits, heir=True)[-1] == ("Ended", FAILED, None)
    side.end_all()
    assert all_said(side, runs, heir=True)[-1] == ("Ended", SUCCESS, True)
