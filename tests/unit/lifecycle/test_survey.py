# SPDX-License-Identifier: Apache-2.0
"""The numbers of a machine, as metrics have them."""

from __future__ import annotations

from unit.lifecycle.builders import QUEUED, asked, dispatches, machine, queued, route, tick

from airflow_dispatch_provider.lifecycle import survey
from airflow_dispatch_provider.lifecycle.events import (
    EXECUTION_API,
    BackendRules,
    Began,
    Broken,
    Ended,
    Recall,
    Rejected,
    Returned,
    Room,
    Rows,
    Sent,
)
from airflow_dispatch_provider.lifecycle.states import Outcome, Row, RowState


def backlog(m):
    """The first one that is complete, and in how many steps it was made."""
    for steps, found in enumerate(survey.backlogs(m), 1):
        if found is not None:
            return found, steps
    raise AssertionError


def counts(m):
    return {(name, what): number for name, what, number in survey.counts(m)}


def test_backends_have_their_numbers():
    """Slots, used, ahead, free, held, open, cordoned; one that takes no work has nothing free."""
    m = machine(
        route("q", "a"),
        route("p", "b"),
        route("r", "c"),
        rules={"b": BackendRules(cordoned=True), "c": BackendRules()},
    )
    rooms = tick(a=2, b=9, c=Room(3, unavailable="no broker"))
    m.handle(0, *(queued(number) for number in range(5)), queued(9, "p"), rooms)
    assert {each.name: tuple(each)[1:] for each in survey.backends(m)} == {
        "a": (2, 2, 0, 0, 3, False, False),
        "b": (9, 0, 0, 0, 1, False, True),
        "c": (3, 0, 0, 0, 0, True, False),
    }


def test_what_waits_is_counted_by_its_reason():
    """Those of one lane that have waited long enough to overflow wait for something else than the others."""
    m = machine(route("q", "a", "b", overflow_after=10), route("p", "b"))
    m.handle(0, queued(1), queued(2), tick(a=0, b=0))
    m.handle(9, queued(3), queued(4, "p"), tick(a=0, b=0))
    m.handle(11, tick(a=0, b=0))
    found, _ = backlog(m)
    assert found.reasons == {("a", "waits_full"): 2, ("a", "waits_overflow"): 1, ("b", "waits_full"): 1}
    assert found.since == {"a": 0, "b": 9}


def test_without_the_execution_api_everything_waits_for_it():
    """Whatever is free."""
    m = machine(route("*", "a"))
    m.handle(0, queued(1), Broken(EXECUTION_API, "refused"), tick(a=0))
    assert backlog(m)[0].reasons == {("a", "waits_api"): 1}
    assert survey.has_no_api(m)


def test_what_would_be_dispatched_now_has_no_reason():
    """It is held until the next heartbeat, and waits for nothing."""
    m = machine(route("*", "a"))
    m.handle(0, tick(a=1))
    m.handle(0, queued(1))
    assert backlog(m)[0].reasons == {}


def test_a_long_backlog_is_looked_at_in_many_steps():
    """None of them goes through all that waits; lanes cost more than jobs."""
    m = machine(*(route(f"q{number}", "a") for number in range(100)))
    m.handle(0, *(queued(number, f"q{number % 100}") for number in range(3000)), tick(a=0))
    found, steps = backlog(m)
    assert found.reasons == {("a", "waits_full"): 3000}
    assert steps >= 10


def test_a_new_look_begins_where_one_has_ended():
    """With all that has come since."""
    m = machine(route("*", "a"))
    looks = survey.backlogs(m)
    assert next(looks).reasons == {}
    m.handle(0, queued(1), tick(a=0))
    assert next(looks).reasons == {("a", "waits_full"): 1}


def test_dispatches_are_counted_by_what_came_of_them():
    """One that began and ended, one that was recalled, one that was refused and launched anew."""
    m = machine(route("*", "a"), look_every=1e9)
    one, two, three = (
        each.number for each in dispatches(m.handle(0, queued(1), queued(2), queued(3), tick(a=3))).values()
    )
    m.handle(1, Sent(one), Began(one), Recall(2), Returned(two), Rejected(three, "too large"))
    m.handle(2, Ended(one, Outcome.SUCCESS, True))
    assert counts(m) == {
        ("a", "began"): 1,
        ("a", "ended"): 3,
        ("a", "returned"): 1,
        ("a", "launch_failures"): 1,
    }


def test_a_task_begins_once_whoever_says_so():
    """The database, the engine, or its end alone."""
    m = machine(route("*", "a"), look_every=30)
    found = dispatches(m.handle(0, queued(1), queued(2), tick(a=2)))
    m.handle(0, Sent(found[1].number), Sent(found[2].number))
    question = asked(m.handle(30, tick(a=0)))
    m.handle(31, Rows(question.asked, {1: Row(RowState.RUNNING), 2: QUEUED}), Began(found[1].number))
    assert counts(m) == {("a", "began"): 1}
    m.handle(32, Ended(found[2].number, Outcome.SUCCESS, True))
    assert counts(m)["a", "began"] == 2


def test_what_had_not_begun_is_a_launch_that_failed_once_the_database_says_so():
    """Its engine could not tell."""
    m = machine(route("*", "a"), look_every=1e9)
    number = dispatches(m.handle(0, queued(1), tick(a=1)))[1].number
    question = asked(m.handle(1, Sent(number), Ended(number, Outcome.FAILED, None, "lost")))
    assert ("a", "launch_failures") not in counts(m)
    m.handle(2, Rows(question.asked, {1: QUEUED}))
    assert counts(m)["a", "launch_failures"] == 1
    assert survey.held_back(m) == 1
