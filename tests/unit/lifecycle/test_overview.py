# SPDX-License-Identifier: Apache-2.0
"""A look from another thread: the same words and figures as the decisions, and nothing is changed by it."""

from __future__ import annotations

import threading

import pytest
from builders import QUEUED, RUNNING, asked, launched_number, machine, number, queued, route, tick

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    Broken,
    Command,
    Ended,
    Offered,
    Order,
    Recall,
    Recovered,
    Revoke,
    Room,
    Rows,
    Sent,
)
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.overview import NOT_BEGUN, given_at, has_begun, longest_out, users
from airflow_dispatch_provider.lifecycle.states import GONE, Outcome
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.reasons import Reason


def test_figures_of_a_backend():
    """Slots, what is used and free, and how many came out and ended since the start."""
    m = machine()
    first = number(m, 1, 1, a=3)
    number(m, 2, 2, a=3)
    question = asked(m.handle(3, Began(first), Ended(first, Outcome.SUCCESS, True)))
    m.handle(4, Rows(question.asked, {1: GONE}))
    figures = {each.name: each for each in m.overview().backends}
    assert (figures["a"].slots, figures["a"].given) == (3, 2)
    assert figures["a"].used + figures["a"].free == 3
    assert figures["a"].ended == figures["a"].given - figures["a"].used
    assert (figures["b"].given, figures["b"].used, figures["b"].is_failing) == (0, 0, False)


def ended_on_a(m):
    return next(each.ended for each in m.overview().backends if each.name == "a")


def test_only_what_ended_there_has_ended():
    """Neither what is recalled before it begins, nor what a dead scheduler had there, nor what is revoked unbegun."""
    m = machine()
    sent, begun = (number(m, 1, key) for key in (1, 2))
    m.handle(2, Sent(sent), Sent(begun), Began(begun))
    question = asked(m.handle(3, Recall(1, sent=True)), actions.PutBack)
    m.handle(4, Rows(question.asked, {1: GONE}))
    m.handle(5, Offered(3, TaskRef("q"), runs=False, evidence="a"), tick(a=9))
    assert m.overview().out()["a"][-1].key == 3
    question = asked(m.handle(6, Broken("a", "away"), tick(a=9)), actions.PutBack)
    m.handle(7, Rows(question.asked, {3: GONE}), Recovered("a"), tick(a=9))
    unbegun = number(m, 8, 4)
    m.handle(9, Sent(unbegun), Revoke(4))
    m.handle(10, Ended(unbegun, Outcome.FAILED))
    assert (len(m), ended_on_a(m)) == (1, 0)
    m.handle(11, Revoke(2))
    m.handle(12, Ended(begun, Outcome.FAILED, True))
    assert ended_on_a(m) == 1


def test_what_waits_stands_in_lines_with_the_reason_that_the_decision_has():
    """One line for each list of targets; the best come first; the oldest is known."""
    m = machine(route("gpu", "b"))
    m.handle(1, queued(1, "gpu"), tick(a=1, b=0))
    m.handle(2, queued(2, "gpu", priority=9), queued(3, "gpu"), tick(a=1, b=0))
    (line,) = m.overview().lines(2)
    assert (line.route, [target.backend for target in line.targets], line.held) == ("gpu", ["b"], 3)
    assert [job.key for job in line.first] == [2, 1]
    assert (line.since, line.reason) == (1, Reason.WAITS_FULL)
    assert all(m.waits(job.key) is line.reason for job in line.first)


def test_the_trouble_of_the_targets_is_told():
    """A job that waits for a broken backend says what is wrong with it."""
    m = machine(route("gpu", "b"))
    m.handle(1, tick(a=1, b=1), Broken("b", "no route to host"))
    m.handle(1.1, queued(2, "gpu"), tick(a=1, b=1))
    (line,) = m.overview().lines(1)
    assert (line.reason, line.detail) == (Reason.WAITS_BLOCKED, "b: no route to host.")


def test_an_order_is_seen():
    """A backend that is cordoned takes no work, and says so until it is resumed."""
    m = machine()
    m.handle(1, Order(Command.CORDON, "a"), tick(a=1, b=1))
    assert next(each for each in m.overview().backends if each.name == "a").is_cordoned
    m.handle(2, Order(Command.RESUME, "a"))
    assert not next(each for each in m.overview().backends if each.name == "a").is_cordoned


def test_what_waits_for_its_next_launch_stands_apart():
    """It is in no line, and has a reason of its own."""
    m = machine(route("q", "a"))
    m.handle(0, tick(a=9))
    dispatch = launched_number(m, 1)
    answers = m.handle(2, Ended(dispatch, Outcome.FAILED, False, "no image"))
    m.handle(3, Rows(asked(answers).asked, {1: QUEUED}))
    overview = m.overview()
    assert list(overview.lines(5)) == []
    assert [job.key for job in overview.apart] == [1]
    assert overview.reason(overview.apart[0]) is Waits.LAUNCH


def test_who_uses_the_slots():
    """Dispatches that are out, by backend and Dag."""
    m = machine()
    one, two = number(m, 1, 1, a=3), number(m, 2, 2, a=3)
    m.handle(3, Sent(one), Began(one))
    out = m.overview().out()["a"]
    assert users(out) == {"dag": 2}
    assert [job.dispatch for job in longest_out(reversed(out), 5)] == [one, two]
    assert [given_at(job) for job in out] == [1, 2]
    assert [job.state in NOT_BEGUN for job in out] == [False, True]
    assert [has_begun(job) for job in out] == [True, False]


def recalled(m, now, key):
    """The question to set back one that was sent to a, and that an operator recalls."""
    dispatch = number(m, now, key)
    m.handle(now, Sent(dispatch))
    return asked(m.handle(now + 1, Order(Command.RECALL, "a")), actions.PutBack)


def test_what_is_set_back_is_known_until_the_database_says_so():
    """It has no slot any more, and may still begin."""
    m = machine()
    question = recalled(m, 1, 1)
    overview = m.overview()
    assert (overview.returning(), overview.out()) == ({"a": 1}, {})
    m.handle(3, Rows(question.asked, {1: GONE}))
    assert m.overview().returning() == {}


@pytest.mark.parametrize("comes", [True, False])
def test_what_comes_back_or_begins_during_a_look_is_in_one_count(comes):
    """In the middle of a look it loses its slot, or gets it again: it is never missed."""
    m = machine()
    if comes:
        m.handle(1, Sent(number(m, 1, 1)))
        overview = m.overview()
        m.handle(2, Order(Command.RECALL, "a"))
    else:
        question = recalled(m, 1, 1)
        overview = m.overview()
        m.handle(3, Rows(question.asked, {1: RUNNING}))
    assert overview.returning() == {"a": 1}


@pytest.mark.parametrize(
    ("runs", "news", "begun"),
    [
        (False, None, None),
        (False, Adopted(1), False),
        (False, Adopted(1, began=True), True),
        # The database has it as running.
        (True, None, True),
    ],
)
def test_nobody_knows_of_what_is_offered_until_its_backend_has_answered(runs, news, begun):
    """Unless the database does."""
    m = machine()
    m.handle(1, tick(a=1), Offered(1, TaskRef("q"), runs, "a"))
    m.handle(2, tick(a=1), *([news] if news else []))
    assert [has_begun(job) for job in m.overview().out()["a"]] == [begun]


def test_another_thread_may_look_while_everything_changes():
    """Thousands of jobs come and go meanwhile: no look fails."""
    m, stop, errors = machine(route("gpu", "b")), threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            try:
                overview = m.overview()
                (
                    list(overview.lines(5)),
                    overview.apart,
                    [given_at(job) for out in overview.out().values() for job in out],
                )
            except BaseException as error:
                errors.append(error)
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for at in range(400):
            m.handle(at, queued(at), queued(f"gpu {at}", "gpu"), tick(a=at % 3, b=Room(at % 5)))
            m.handle(at, *(Ended(number, Outcome.SUCCESS, True) for number in range(at - 9, at)))
    finally:
        stop.set()
        thread.join()
    assert errors == []
