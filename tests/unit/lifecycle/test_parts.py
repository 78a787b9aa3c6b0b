# SPDX-License-Identifier: Apache-2.0
"""Parts of the machine by themselves: a backend, the execution API, moments that are due, what blocks a guard."""

from __future__ import annotations

from math import inf

import pytest

from airflow_dispatch_provider.lifecycle._api import ExecutionApi
from airflow_dispatch_provider.lifecycle._backend import Backend, Stage
from airflow_dispatch_provider.lifecycle._timing import Round, Timers
from airflow_dispatch_provider.lifecycle.events import BackendRules, Began, Ended, Room, Sent
from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.lifecycle.states import Outcome, State
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.routing.decide import Decision
from airflow_dispatch_provider.routing.model import BackendView, Target
from airflow_dispatch_provider.routing.reasons import Reason

KINDS, CLOSED = frozenset({"ExecuteCallback"}), {"lane": "full"}


def backend(room: Room | None = None, **rules) -> Backend:
    made = Backend("a", BackendRules(**rules), "seed")
    made.room = room or Room(5, 3, CLOSED, None, KINDS)
    return made


def broken(at: float = 0.0, **rules) -> Backend:
    """Its circuit is half-open from ``at + 2`` on."""
    made = backend(min_delay=2.0, **rules)
    made.circuit = made.circuit.failed(at, "away", 1.0)
    return made


# A backend


@pytest.mark.parametrize(
    ("slots", "takes", "out", "free"), [(5, 9, 0, 5), (5, 3, 0, 3), (5, 9, 3, 2), (5, 9, 5, 0), (5, 9, 7, 0)]
)
def test_free_slots(slots: int, takes: int, out: int, free: int) -> None:
    """Never less than none, and no more than it takes at a time."""
    made = backend(Room(slots, takes))
    made.out = out
    assert made.free == free


def gone(made: Backend) -> None:
    made.gone = True


def away(made: Backend) -> None:
    made.room = Room(5, unavailable="no broker")


def ordered(made: Backend) -> None:
    made.ordered = True


def failed(made: Backend) -> None:
    made.broke(0, "no route to host.")


def nothing(made: Backend) -> None:
    pass


GONE = "It is no longer configured so: it gets no new work, and ends when it is empty."


@pytest.mark.parametrize(
    ("happened", "usable", "blocked", "trouble"),
    [
        (nothing, True, None, ""),
        (gone, True, Reason.UNKNOWN_BACKEND, GONE),
        (away, False, Reason.CIRCUIT_OPEN, "no broker."),
        (failed, False, Reason.CIRCUIT_OPEN, "no route to host."),
        (ordered, True, Reason.CORDONED, "It is cordoned."),
    ],
)
def test_why_it_takes_no_work(happened, usable: bool, blocked: Reason | None, trouble: str) -> None:
    """In a sentence for people, and as a decision sees it."""
    made = backend()
    happened(made)
    assert (made.usable(0.1), made.trouble(0.1)) == (usable, trouble)
    view = made.view(0.1)
    assert (view.free, view.blocked) == (3 if blocked is None else 0, blocked)
    if happened is not away:
        assert (view.kinds, view.closed) == (KINDS, CLOSED)


def test_new_rules_count_at_once() -> None:
    """One that was gone is back; what is known of its failures is kept."""
    made = broken()
    made.gone = True
    made.use(BackendRules(cordoned=True, min_delay=7.0, max_delay=70.0))
    assert (made.cordoned, made.gone) == (True, False)
    circuit = made.circuit
    assert (circuit.min_delay, circuit.max_delay, circuit.failures) == (7.0, 70.0, 1)


def test_one_try_at_a_time() -> None:
    """Until its engine has answered, or for the longest delay."""
    made = broken(max_delay=60.0)
    assert made.view(1.9) == BackendView(0, Reason.CIRCUIT_OPEN, KINDS, CLOSED)
    assert made.view(2).free == 1
    made.launched(7, 2)
    assert [made.view(now).free for now in (2, 61.9, 62)] == [0, 0, 1]
    made.answered(8)
    assert made.view(2).free == 0
    made.answered(7)
    assert made.view(2).free == 1


def test_a_launch_while_it_works_is_no_try() -> None:
    """It keeps no later try waiting."""
    made = backend()
    made.launched(7, 0)
    made.broke(0, "away")
    assert made.view(1).free == 1


@pytest.mark.parametrize(
    ("met", "opened"),
    [
        ([(1, Stage.SEND)], False),
        ([(1, Stage.SEND), (1, Stage.SEND)], False),
        ([(1, Stage.SEND), (2, Stage.SEND)], True),
        ([(1, Stage.SEND), (2, Stage.START)], False),
        ([(1, Stage.START), (2, Stage.START)], True),
        # With a success in between, of that stage or of a later one.
        ([(1, Stage.SEND), Stage.SEND, (2, Stage.SEND)], False),
        ([(1, Stage.SEND), Stage.START, (2, Stage.SEND)], False),
        ([(1, Stage.START), Stage.START, (2, Stage.START)], False),
        ([(1, Stage.START), Stage.SEND, (2, Stage.START)], True),
    ],
)
def test_a_different_job_has_to_meet_the_same(met, opened: bool) -> None:
    """At the same stage, with no success of that stage in between."""
    made, last = backend(), False
    for each in met:
        if isinstance(each, Stage):
            assert not made.worked(each, 1.0)
        else:
            last = made.met(each[0], each[1], 1.0, "no")
    assert last is opened
    assert made.circuit.state(1.0) is (CircuitState.OPEN if opened else CircuitState.CLOSED)


@pytest.mark.parametrize(
    ("broke", "worked", "closed"),
    [
        (Stage.SEND, Stage.SEND, True),
        (Stage.SEND, Stage.START, True),
        (Stage.START, Stage.SEND, False),
        (Stage.START, Stage.START, True),
    ],
)
def test_what_mends_one_stage_says_nothing_of_the_next(broke: Stage, worked: Stage, closed: bool) -> None:
    """A job that was sent does not show that any can start."""
    made = backend()
    made.broke(1.0, "no", broke)
    made.api_away = True
    assert made.worked(worked, 9.0) is closed
    assert made.api_away is not closed
    assert (made.circuit.closed_at == 9.0) is closed


def test_delays_differ_between_schedulers_backends_and_failures() -> None:
    """By nothing but these, so that a story can be told again."""
    delays = set()
    for name, seed, failures in (("a", "s", 1), ("b", "s", 1), ("a", "t", 1), ("a", "s", 2), ("a", "s", 1)):
        made = Backend(name, BackendRules(min_delay=8.0, max_delay=8.0), seed)
        for number in range(failures):
            made.broke(100.0 * number, "away")
        assert made.circuit.retry_at is not None
        delay = made.circuit.retry_at - 100.0 * (failures - 1)
        assert 4.0 <= delay <= 8.0
        delays.add(round(delay, 6))
    assert len(delays) == 4


# The execution API


def job(state: State = State.SUBMITTED, dispatch: int = 7) -> Job:
    made = Job("x", 1, 0.0, 1)
    made.state, made.dispatch = state, dispatch
    return made


def test_it_is_tried_by_one_job_after_a_delay() -> None:
    """Until that one has ended, or for the longest delay."""
    api, tries = ExecutionApi(), job()
    api.broke(10, "refused")
    assert (api.next_at(), api.may_try(10.9), api.may_try(11)) == (11, False, True)
    api.tries(tries, 11)
    assert (api.next_at(), api.may_ask(20.9), api.may_ask(21)) == (21, False, True)
    api.asked(21)
    assert (api.next_at(), api.may_ask(80.9), api.may_ask(81)) == (71, False, True)
    assert (api.may_try(70.9), api.may_try(71)) == (False, True)
    for state, is_under_way in ((State.SENT, True), (State.HELD, False), (State.UNCLEAR, False)):
        tries.state = state
        assert api.may_try(20) is not is_under_way
        assert api.next_at() == (71 if is_under_way else 81)
    tries.state, tries.dispatch = State.SENT, 8
    assert api.may_try(20)
    api.broke(20, "refused")
    assert (api.may_try(21.9), api.may_try(22), api.next_at()) == (False, True, 22)


@pytest.mark.parametrize(
    ("event", "shows"),
    [
        (Began(7), True),
        (Ended(7, Outcome.SUCCESS, True), True),
        (Ended(7, Outcome.SUCCESS), False),
        (Ended(7, Outcome.FAILED, True), True),
        (Ended(7, Outcome.FAILED), False),
        (Ended(7, Outcome.FAILED, False), False),
        (Sent(7), False),
        # Of another dispatch.
        (Began(8), False),
        (Ended(8, Outcome.SUCCESS, True), False),
    ],
)
def test_what_shows_that_the_try_has_succeeded(event, shows: bool) -> None:
    """That it was let begin."""
    api, tries = ExecutionApi(), job()
    assert not api.hear(tries, event)
    api.tries(tries, 1)
    assert api.hear(tries, event) is shows
    api.answered(2)
    assert not api.hear(tries, event)


def test_the_database_may_show_it_as_well() -> None:
    """Of that job, in that dispatch."""
    api, tries = ExecutionApi(), job(State.RUNNING)
    assert not api.see(tries, False)
    api.tries(tries, 1)
    assert (api.see(tries, False), api.see(job(State.RUNNING), False)) == (True, False)
    tries.state = State.SENT
    assert not api.see(tries, False)
    tries.state, tries.dispatch = State.RUNNING, 8
    assert not api.see(tries, False)


def at(backend: str, state: State = State.RUNNING) -> Job:
    made = job(state)
    made.backend = backend
    return made


@pytest.mark.parametrize(
    ("event", "refutes"),
    [
        (Began(9), True),
        (Ended(9, Outcome.SUCCESS, True), True),
        (Ended(9, Outcome.SUCCESS), False),
        (Ended(9, Outcome.FAILED), False),
        (Sent(9), False),
    ],
)
def test_a_beginning_elsewhere_makes_it_that_backends_trouble(event, refutes: bool) -> None:
    """Once: each time it has to be refuted anew. A success that nobody saw begin is none."""
    api = ExecutionApi()
    assert not api.take_refutation("a")
    assert not api.take_refutation("b")
    api.hear(at("c"), event)
    assert (api.take_refutation("a"), api.take_refutation("a")) == (refutes, False)
    assert api.take_refutation("b") is refutes


def test_a_beginning_on_the_backend_itself_ends_its_trouble() -> None:
    """The others have met it all the same."""
    api = ExecutionApi()
    for name in ("a", "b"):
        api.take_refutation(name)
    api.hear(at("a"), Began(9))
    assert (api.take_refutation("a"), api.take_refutation("b")) == (False, True)
    tries = at("a")
    api.tries(tries, 1)
    assert api.see(tries, False)
    assert (api.take_refutation("a"), api.take_refutation("b")) == (False, True)


def test_it_is_tried_on_a_backend_that_has_met_no_trouble() -> None:
    """If there is one."""
    api = ExecutionApi()
    first, second, third = (
        Decision(job(), Target(backend=name), "q", Reason.FIRST_CHOICE) for name in ("a", "b", "c")
    )
    assert list(api.choose([first, second])) == [first]
    api.take_refutation("a")
    assert list(api.choose([first, second, third])) == [second]
    assert list(api.choose([first])) == [first]
    assert list(api.choose([])) == []


def test_once_it_has_answered_it_is_as_before() -> None:
    """A failure soon after goes on with the delays."""
    api = ExecutionApi()
    api.broke(0, "refused")
    api.tries(job(), 1)
    api.answered(2)
    assert (api.may_try(2), api.next_at()) == (True, 0)
    api.broke(3, "refused")
    assert api.next_at() == 5


# Moments


def test_the_last_moment_that_was_set_counts() -> None:
    """Each job is woken once."""
    timers, one, two = Timers(), job(), job()
    timers.set(one, 5)
    timers.set(two, 4)
    timers.set(one, 3)
    assert timers.pop(2.9) == []
    assert timers.pop(3) == [one]
    assert one.due == inf
    assert timers.pop(9) == [two]
    assert timers.pop(9) == []


def test_what_is_due_at_once_is_woken_in_the_order_in_which_that_was_set() -> None:
    """Jobs need not be comparable for that."""
    timers, jobs = Timers(), [job() for _ in range(9)]
    for each in jobs:
        timers.set(each, 1)
    assert timers.pop(1) == jobs


def test_what_is_set_for_the_moment_that_was_just_woken_is_woken_next() -> None:
    """Jobs that are set in a row for one moment stand together, but not with those that have been woken."""
    timers, one, two = Timers(), job(), job()
    timers.set(one, 1)
    assert timers.pop(1) == [one]
    timers.set(two, 1)
    assert timers.pop(1) == [two]


def test_what_has_ended_is_not_woken() -> None:
    """Its timer may still be there."""
    timers, one = Timers(), job()
    timers.set(one, 1)
    one.state = State.ENDED
    assert timers.pop(1) == []


def test_a_round_visits_what_is_due_and_no_more_than_five_hundred_at_a_time() -> None:
    """In the order in which they were entered; the rest comes with the next heartbeat."""
    jobs, visited = [job() for _ in range(600)], Round()
    for number, each in enumerate(jobs):
        visited.add(each, 1.0 if number < 550 else 2.0)
    assert list(visited.pop(0.9)) == []
    assert list(visited.pop(1.0)) == jobs[:500]
    visited.discard(jobs[500])
    visited.discard(jobs[0])
    assert list(visited.pop(1.0)) == jobs[501:550]
    assert list(visited) == [(each, 2.0) for each in jobs[550:]]
    assert list(visited.pop(2.0)) == jobs[550:]
    assert list(visited.pop(9.0)) == []
