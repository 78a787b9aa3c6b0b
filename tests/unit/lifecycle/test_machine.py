# SPDX-License-Identifier: Apache-2.0
"""The machine over time: whose trouble is whose, which jobs wait and why, which rows are asked for and refreshed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import lines_executed
from unit.lifecycle.builders import asked, dispatches, machine, of, queued, rooms, route, settings, tick

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    EXECUTION_API,
    BackendRules,
    Began,
    Broken,
    Command,
    Ended,
    Offered,
    Order,
    Recall,
    Recovered,
    Rejected,
    Returned,
    Revoke,
    Room,
    Rows,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import GONE, Outcome, Row, RowState, State
from airflow_dispatch_provider.lifecycle.story import REMEMBERED
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.reasons import Reason

QUEUED, RUNNING = Row(RowState.QUEUED), Row(RowState.RUNNING)


def launched(m, now, *happened, **slots):
    """Keys that are dispatched by a Tick, and to which backend."""
    return {k: d.target.backend for k, d in dispatches(m.handle(now, *happened, tick(**slots))).items()}


def number(m, now, key, **slots):
    """Queue one job, have it dispatched, and return the number of its dispatch."""
    return dispatches(m.handle(now, queued(key), tick(**(slots or {"a": 9}))))[key].number


def launched_number(m, now):
    """Of the one job that is queued again and again."""
    happened = [] if 1 in m else [queued(1)]
    return dispatches(m.handle(now, *happened, tick(a=9)))[1].number


# Holding and sending


def test_jobs_are_bound_to_a_backend_only_when_it_has_room():
    """A job that waits costs nothing, goes by priority, and takes whichever target is free first."""
    m = machine()
    m.handle(0, queued("low", priority=1), queued("high", priority=9), tick(a=0, b=0))
    assert (m.held, m.slots_used) == (2, {"a": 0, "b": 0})
    assert launched(m, 1, a=0, b=1) == {"high": "b"}
    assert launched(m, 2, a=1, b=1) == {"low": "a"}


def test_a_backend_takes_no_more_than_it_says():
    """Slots that are in use count, and so does what may be on its way at a time."""
    m = machine()
    m.handle(0, *(queued(k) for k in range(9)))
    assert len(launched(m, 0, a=Room(slots=5, takes=2))) == 2
    assert len(launched(m, 1, a=Room(slots=5, takes=9))) == 3
    assert repr(m) == "Machine(a 5/5, b 0/0, held 4)"


def test_full_is_a_lane_and_not_a_backend():
    """Jobs of another queue pass those of a full one, and these say why they wait."""
    m = machine(route("*", "a"), rules={"a": BackendRules(by_queue=True)})
    m.handle(0, queued(1, "full", priority=9), queued(2, "other"))
    assert launched(m, 0, a=Room(9, closed={"full": "the queue is full"})) == {2: "a"}
    assert m.waits(1) is Reason.WAITS_FULL


def test_a_targets_queue_is_its_lane():
    """A lane is what fills up at the backend, under the name that it has there."""
    m = machine(route("*", ("a", "there"), "b"), rules={"a": BackendRules(by_queue=True)})
    assert launched(m, 0, queued(1, "here"), a=Room(9, closed={"there": ""}), b=9) == {1: "b"}


def test_a_lane_of_a_jobs_own():
    """A namespace of a pod_override is a lane, too."""
    m = machine(route("*", "a"))
    job = queued(1)._replace(lanes={"a": "other-namespace"})
    assert launched(m, 0, job, queued(2), a=Room(9, closed={"other-namespace": "quota"})) == {2: "a"}


def test_a_lane_that_only_the_engine_finds_out():
    """A job that is returned with its lane is held by that: others pass it, and it uses no try."""
    m = machine(route("*", "a"), launch_retries=0)
    one = number(m, 0, 1)
    closed = Room(9, closed={"hooked": "quota"})
    assert launched(m, 1, Returned(one, "quota", "hooked"), queued(2), a=closed) == {2: "a"}
    assert m.waits(1) is Reason.WAITS_FULL
    assert launched(m, 99, a=closed) == {}
    assert launched(m, 99, a=9) == {1: "a"}


def test_overflow_after_seconds_without_any_event():
    """Time alone lets a job overflow, though nothing else changes."""
    m = machine(route("q", "a", "b", overflow_after=30))
    assert launched(m, 0, queued(1), a=0, b=1) == {}
    assert launched(m, 29.9, a=0, b=1) == {}
    assert launched(m, 30.0, a=0, b=1) == {1: "b"}


def test_only_the_first_dispatch_of_a_job_is_its_first():
    """Whatever names the job in the outside world may name an earlier dispatch from then on, at any backend."""
    m = machine(route("*", "a", "b"))
    first = dispatches(m.handle(0, queued(1), tick(a=1, b=1)))[1]
    second = dispatches(m.handle(1, Returned(first.number), tick(a=0, b=1)))[1]
    assert [(each.target.backend, each.again) for each in (first, second)] == [("a", False), ("b", True)]
    third = dispatches(m.handle(2, queued(1), tick(a=1, b=1)))
    assert third == {}
    again = dispatches(m.handle(3, Returned(second.number), tick(a=1, b=1)))[1]
    assert not again.again


def test_returned_to_its_old_place():
    """A job that could not be sent through no fault of its own goes before younger equals."""
    m = machine(route("*", "a"))
    first = number(m, 0, "first", a=1)
    m.handle(1, queued("second"), Returned(first))
    assert launched(m, 2, a=1) == {"first": "a"}


# Whose trouble it is


def test_one_jobs_trouble_is_its_own():
    """A job that is rejected goes behind the others, for longer each time, and the circuit stays closed."""
    m = machine(route("*", "a"))
    bad = number(m, 0, "bad")
    delays, now = [], 0.0
    for _ in range(5):
        m.handle(now, Rejected(bad, "too large"))
        assert m.waits("bad") is Waits.LAUNCH
        rejected_at = now
        while not (again := dispatches(m.handle(now, tick(a=9)))):
            now += 0.5
        bad = again["bad"].number
        delays.append(now - rejected_at)
    assert delays == [1, 2, 4, 8, 16]
    assert m.circuit("a") is CircuitState.CLOSED


def test_what_one_backend_rejects_the_next_target_has_at_once():
    """However often the first one has done so: the job fails only when no target is left that could have it."""
    m = machine(launch_retries=0)
    m.handle(0, *map(queued, range(20)))
    now, sent = 0.0, set()
    while len(sent) < 20:
        now += 1
        for each in dispatches(m.handle(now, tick(a=20, b=20))).values():
            assert each.reason is (Reason.FIRST_CHOICE if each.target.backend == "a" else Reason.REFUSED)
            if each.target.backend == "a":
                m.handle(now, Rejected(each.number, "no"), Recovered("a"))
            else:
                sent.add(each.key)
                m.handle(now, Sent(each.number), Ended(each.number, Outcome.SUCCESS, True))
        assert now < 10
    assert len(m) == 0


def test_what_every_target_rejects_fails_with_the_reason():
    """Each has it once in a round; the rounds have growing delays, and an end."""
    m = machine(launch_retries=2)
    m.handle(0, queued(1))
    now, tried, found = 0.0, [], []
    while 1 in m:
        now += 1
        found = m.handle(now, tick(a=9, b=9))
        for each in dispatches(found).values():
            tried.append(each.target.backend)
            found = m.handle(now, Rejected(each.number, "too large"))
            if asks := of(found, actions.LookUp):
                found = m.handle(now, Rows(asks[0].asked, {1: QUEUED}))
    assert tried == ["a", "b"] * 3
    assert of(found, actions.Emit) == [actions.Emit(1, Outcome.FAILED, "too large")]


def test_what_was_rejected_may_be_tried_there_again_while_the_others_are_full():
    """After a while that grows; it never fails as long as another target has not had it."""
    m = machine(route("*", "a", "b"), launch_retries=0)
    m.handle(0, queued(1))
    delays, before = [], 0.0
    for tenth in range(200):
        for each in dispatches(m.handle(tenth / 10, tick(a=9, b=0))).values():
            delays.append(tenth / 10 - before)
            before = tenth / 10
            m.handle(before, Rejected(each.number, "no"))
    assert delays == [0, 1, 2, 4, 8]
    assert launched(m, 20, a=9, b=9) == {1: "b"}


def test_what_its_backend_gives_back_again_and_again_is_kept_from_it():
    """That job alone, for longer each time: the others go on, and it may take another target."""
    m = machine(route("q", "a"))
    m.handle(0, queued("back"))
    tries, others = [], 0
    for tenth in range(100):
        now = tenth / 10
        for key, each in dispatches(m.handle(now, queued(tenth), tick(a=2))).items():
            if key == "back":
                tries.append(now)
                m.handle(now, Returned(each.number, "not now"))
            else:
                others += 1
                m.handle(now, Sent(each.number), Ended(each.number, Outcome.SUCCESS, True))
    assert tries == [0, 0.1, 1.1, 3.1, 7.1]
    assert (others, m.waits("back")) == (100, Waits.LAUNCH)
    m.handle(10, settings(route("q", "a", "b")))
    assert launched(m, 16, a=0, b=1) == {"back": "b"}


def test_what_was_asked_back_may_go_there_again_at_once():
    """A backend that was told to give it back has nothing against it."""
    m = machine(route("*", "a"))
    for now in range(5):
        one = launched_number(m, now)
        (asked_back,) = of(m.handle(now, Recall(1)), actions.Withdraw)
        assert asked_back.dispatches == [one]
        m.handle(now, Returned(one))


def test_others_succeed_beside_a_rejected_job():
    """The job of highest priority is rejected again and again; the others all start."""
    m = machine(route("*", "a"))
    m.handle(0, queued("bad", priority=99), *(queued(k) for k in range(20)))
    started, now = set(), 0.0
    for _ in range(30):
        for key, each in dispatches(m.handle(now, tick(a=Room(30, takes=1)))).items():
            m.handle(now, Rejected(each.number, "poison") if key == "bad" else Sent(each.number))
            started.add(key)
        now += 0.1
    assert started == {"bad", *range(20)}


def test_what_different_jobs_meet_is_the_backends_trouble():
    """Two jobs rejected with no success in between open the circuit; the others take the next target."""
    m = machine()
    first, second = number(m, 0, 1), number(m, 0, 2)
    found = m.handle(0, Rejected(first, "no"), Rejected(second, "no"))
    assert m.circuit("a") is CircuitState.OPEN
    assert of(found, actions.Log)[0].arguments[0] == "a"
    assert launched(m, 0.1, queued(3), a=9, b=9) == {1: "b", 2: "b", 3: "b"}


def test_a_success_in_between_clears_it():
    """Two poisoned jobs among good ones are two jobs' trouble."""
    m = machine()
    one, good, two = (number(m, 0, key) for key in (1, "good", 2))
    m.handle(0, Rejected(one), Sent(good), Rejected(two))
    assert m.circuit("a") is CircuitState.CLOSED


def test_a_neutral_request_clears_it():
    """The server answers: what different jobs met is theirs, all the same."""
    m = machine()
    one, two = number(m, 0, 1), number(m, 0, 2)
    m.handle(0, Rejected(one), Rejected(two), Recovered("a"))
    assert m.circuit("a") is CircuitState.CLOSED


def test_half_open_lets_one_job_try():
    """One careful try at a time, until something was sent."""
    m = machine(route("*", "a"))
    m.handle(0, Broken("a", "away"), *(queued(k) for k in range(5)))
    assert launched(m, 0, a=9) == {}
    (tried,) = dispatches(m.handle(2, tick(a=9))).values()
    assert launched(m, 2.1, a=9) == {}
    m.handle(2.2, Sent(tried.number))
    assert len(launched(m, 2.3, a=9)) == 4


def test_an_engine_that_does_not_answer_keeps_no_later_try_waiting():
    """A job that was submitted before the failure may wait for long, for a quota, say; so may the try itself."""
    m = machine(route("*", "a"))
    number(m, 0, "before")
    lost = [number(m, 0, key) for key in (1, 2)]
    question = asked(m.handle(1, *(Ended(each, Outcome.FAILED, False, "lost") for each in lost)))
    m.handle(2, Rows(question.asked, {1: QUEUED, 2: QUEUED}))
    assert m.state("before") is State.SUBMITTED
    assert len(launched(m, 20, a=9)) == 1
    assert launched(m, 21, a=9) == {}
    assert len(launched(m, 20 + 61, a=9)) == 1
    assert m.circuit("a") is CircuitState.HALF_OPEN


def test_what_a_backend_has_lost_makes_it_no_suspect():
    """A broker that came back empty works: what it has lost is launched again, and the others are not held up."""
    m = machine(route("*", "a"))
    lost = [number(m, 0, key) for key in range(3)]
    ends = (Ended(each, Outcome.FAILED, None, "lost", mishap=True) for each in lost)
    question = asked(m.handle(1, *ends))
    m.handle(2, Rows(question.asked, dict.fromkeys(range(3), QUEUED)))
    assert m.circuit("a") is CircuitState.CLOSED
    assert len(launched(m, 30, a=9)) == 3


def test_one_outage_is_logged_once():
    """However many jobs come to nothing in it."""
    m = machine(route("*", "a"))
    numbers = {key: number(m, 0, key) for key in range(6)}
    question = asked(m.handle(1, *(Ended(each, Outcome.FAILED, False, "lost") for each in numbers.values())))
    done = m.handle(2, Rows(question.asked, dict.fromkeys(numbers, QUEUED)))
    done += m.handle(9, tick(a=9))
    assert len([each for each in of(done, actions.Log) if each.error]) == 1


def test_a_backend_on_which_nothing_begins():
    """Two jobs that were sent and came to nothing open the circuit; that a third was sent says nothing."""
    m = machine()
    numbers = {key: number(m, 0, key) for key in (1, 2, 3)}
    question = asked(m.handle(1, *(Ended(numbers[k], Outcome.FAILED, False, "crash") for k in (1, 2))))
    m.handle(2, Rows(question.asked, {1: QUEUED, 2: QUEUED}))
    assert m.circuit("a") is CircuitState.OPEN
    m.handle(2, Sent(numbers[3]))
    assert m.circuit("a") is CircuitState.OPEN
    m.handle(2, Began(numbers[3]))
    assert m.circuit("a") is CircuitState.CLOSED


def test_what_came_to_nothing_takes_another_target_first():
    """A job that does not begin on one backend may on the next; each has its turn."""
    m = machine(route("*", "a", "b"), launch_retries=9, look_every=1e9)
    m.handle(0, queued(1))
    now, tried = 0.0, []
    while len(tried) < 4:
        now += 0.5
        for each in dispatches(m.handle(now, tick(a=9, b=9))).values():
            tried.append(each.target.backend)
            question = asked(m.handle(now, Ended(each.number, Outcome.FAILED, False, "crash")))
            m.handle(now, Rows(question.asked, {1: QUEUED}))
    assert tried == ["a", "b", "a", "b"]
    assert now < 10


@pytest.mark.parametrize(("later", "first"), [(1, False), (59, False), (61, True)])
def test_a_backend_that_comes_and_goes_is_tried_less_often(later, first):
    """Only one that has worked for a minute begins with the shortest delay again."""
    m = machine()
    m.handle(0, Broken("a", "away"))
    m.handle(5, Recovered("a"))
    (line,) = of(m.handle(5 + later, Broken("a", "away")), actions.Log)
    assert (line.arguments[1] <= 1.0) is first


def test_what_is_not_sent_is_withdrawn_from_a_broken_backend():
    """It may take the next target; what was sent stays."""
    m = machine()
    sent, unsent = number(m, 0, "sent"), number(m, 0, "unsent")
    m.handle(0, Sent(sent))
    assert of(m.handle(1, Broken("a", "away")), actions.Withdraw) == [actions.Withdraw("a", [unsent])]
    assert launched(m, 1.1, Returned(unsent), a=9, b=9) == {"unsent": "b"}


def test_retries_are_spread_over_schedulers_and_told_again():
    """Two schedulers do not try again in step; the same one does the same in every run."""
    delays = []
    for seed in ("one", "two", "one"):
        m = Machine(settings(), seed)
        (line,) = of(m.handle(0, Broken("a", "away")), actions.Log)
        delays.append(line.arguments[1])
    assert delays[0] == delays[2] != delays[1]
    assert all(0.5 <= delay <= 1 for delay in delays)


# Begun or not


def test_ended_before_it_began_uses_no_try():
    """It is launched again, after growing delays, and fails with the reason after ``launch_retries``."""
    m = machine(route("*", "a"), launch_retries=2, look_every=1e9)
    m.handle(0, queued(1))
    now, launches = 0.0, 0
    while 1 in m:
        now += 1
        found = m.handle(now, tick(a=9))
        for each in dispatches(found).values():
            launches += 1
            question = asked(m.handle(now, Ended(each.number, Outcome.FAILED, None, "no memory")))
            found = m.handle(now, Rows(question.asked, {1: QUEUED}))
    assert launches == 3
    assert of(found, actions.Emit) == [actions.Emit(1, Outcome.FAILED, "no memory")]


def test_while_the_execution_api_is_away_nothing_is_launched_and_nothing_counts():
    """A job that ends meanwhile waits for it, however often, and says so."""
    m = machine(route("*", "a"), launch_retries=0)
    one = number(m, 0, 1)
    m.handle(0, Sent(one), Broken(EXECUTION_API, "refused"))
    question = asked(m.handle(0.1, Ended(one, Outcome.FAILED, None, "cannot connect")))
    m.handle(0.2, Rows(question.asked, {1: QUEUED}))
    assert launched(m, 0.9, queued(2), a=9) == {}
    assert (m.waits(1), m.waits(2)) == (Waits.API, Waits.API)
    assert set(launched(m, 2, Recovered(EXECUTION_API), a=9)) == {1, 2}


def test_what_is_not_sent_is_asked_back_while_the_execution_api_is_away():
    """Once for an outage; it is logged when it begins and when it ends."""
    m = machine(route("*", "a"))
    sent, unsent = number(m, 0, 1), number(m, 0, 2)
    found = m.handle(1, Sent(sent), Broken(EXECUTION_API, "refused"), Broken(EXECUTION_API, "again"))
    assert of(found, actions.Withdraw) == [actions.Withdraw("a", [unsent])]
    assert [(each.error, each.arguments) for each in of(found, actions.Log)] == [(True, ("refused",))]
    found = m.handle(2, Recovered(EXECUTION_API), Recovered(EXECUTION_API))
    assert [(each.error, each.arguments) for each in of(found, actions.Log)] == [(False, ())]
    assert all(each.message for each in of(found, actions.Log))


def test_one_job_at_a_time_tries_the_execution_api_until_one_begins():
    """After 1, 2, 4 ... 60 s; however often one of them fails, it costs nothing."""
    m = machine(route("*", "a"), launch_retries=2, launch_delay_max=1.0)
    m.handle(0, *(queued(k) for k in range(5)), Broken(EXECUTION_API, "refused"))
    now = 0.0
    for delay in (1, 2, 4, 8, 16, 32, 60, 60):
        assert launched(m, now + delay - 0.1, a=9) == {}
        now += delay
        ((key, each),) = dispatches(m.handle(now, tick(a=9))).items()
        assert launched(m, now, Sent(each.number), a=9) == {}
        m.handle(now, Broken(EXECUTION_API, "refused"))
        question = asked(m.handle(now, Ended(each.number, Outcome.FAILED, False, "cannot connect")))
        assert of(m.handle(now, Rows(question.asked, {key: QUEUED})), actions.Emit) == []
    ((_, each),) = dispatches(m.handle(now + 60, tick(a=9))).items()
    assert len(launched(m, now + 60, Began(each.number), a=9)) == 4


@pytest.mark.parametrize(
    "news",
    [
        lambda each, asked: Ended(each.number, Outcome.SUCCESS, True),
        lambda each, asked: Ended(each.number, Outcome.FAILED, True, "its own fault"),
        lambda each, asked: Rows(asked, {each.key: RUNNING}),
    ],
)
def test_whatever_shows_that_the_one_has_begun_lets_the_others_go(news):
    """An engine that sees no beginning may see the end; another knows by the row alone."""
    m = machine(route("*", "a"), look_every=0.5)
    m.handle(0, queued(1), queued(2), Broken(EXECUTION_API, "refused"))
    found = m.handle(5, tick(a=9))
    ((_, each),) = dispatches(found).items()
    found = m.handle(6, Sent(each.number), tick(a=9))
    m.handle(6, news(each, asked(found).asked))
    assert m.waits(2) is None


def test_one_that_waits_for_a_worker_does_not_keep_the_others_for_ever():
    """Its backend may have a backlog of hours."""
    m = machine(route("*", "a"))
    m.handle(0, queued(1), queued(2), Broken(EXECUTION_API, "refused"))
    ((_, each),) = dispatches(m.handle(1, tick(a=9))).items()
    assert launched(m, 60.9, Sent(each.number), a=9) == {}
    assert len(launched(m, 61, a=9)) == 1


def test_the_execution_api_is_asked_where_no_job_could_try_it():
    """What is out is judged by its absence: without a question nothing would show that it is back."""
    m = machine(route("*", "a"))
    sent = number(m, 0, 1)
    m.handle(0, Sent(sent), Broken(EXECUTION_API, "refused"))
    now = 0.0
    for delay in (1, 2, 4):
        assert of(m.handle(now + delay - 0.1, tick(a=9)), actions.AskApi) == []
        now += delay
        assert of(m.handle(now, tick(a=9)), actions.AskApi) == [actions.AskApi()]
        assert of(m.handle(now + 0.1, tick(a=9), tick(a=9)), actions.AskApi) == []
        m.handle(now, Broken(EXECUTION_API, "refused"))
    assert of(m.handle(now + 8, tick(a=9)), actions.AskApi) == [actions.AskApi()]
    m.handle(now + 9, Recovered(EXECUTION_API))
    assert set(launched(m, now + 9, queued(2), a=9)) == {2}


def test_a_job_tries_the_execution_api_rather_than_a_question():
    """It shows whether tasks reach it; and a question that is lost is put again."""
    m = machine(route("*", "a"))
    m.handle(0, Broken(EXECUTION_API, "refused"))
    assert of(m.handle(1, tick(a=9)), actions.AskApi) == [actions.AskApi()]
    assert of(m.handle(60.9, tick(a=9)), actions.AskApi) == []
    assert of(m.handle(61, tick(a=9)), actions.AskApi) == [actions.AskApi()]
    found = m.handle(121, queued(1), tick(a=9))
    assert set(dispatches(found)) == {1}
    assert of(found, actions.AskApi) == []


def test_the_execution_api_is_asked_why_a_job_came_to_nothing():
    """Before the database, so that its absence is no failure of the job, nor of a backend whose engine cannot know."""
    m = machine(route("*", "a"), launch_retries=0)
    one, two = number(m, 0, 1), number(m, 0, 2)
    m.handle(0, Sent(one), Sent(two))
    found = m.handle(1, *(Ended(each, Outcome.FAILED, None, "exit code 1") for each in (one, two)))
    assert [type(each) for each in found] == [actions.AskApi, actions.LookUp]
    m.handle(2, Broken(EXECUTION_API, "refused"))
    found = m.handle(2, Rows(asked(found).asked, {1: QUEUED, 2: QUEUED}))
    assert of(found, actions.Emit) == []
    assert (m.waits(1), m.waits(2), m.circuit("a")) == (Waits.API, Waits.API, CircuitState.CLOSED)


@pytest.mark.parametrize(
    "end",
    [
        lambda number: Ended(number, Outcome.FAILED, False, "no such image"),
        lambda number: Ended(number, Outcome.FAILED, None, "lost", mishap=True),
        lambda number: Ended(number, Outcome.SUCCESS),
    ],
)
def test_the_execution_api_is_not_asked_where_the_engine_knows(end):
    """What went wrong then was something else, or nothing."""
    m = machine(route("*", "a"))
    one = number(m, 0, 1)
    assert of(m.handle(1, Sent(one), end(one)), actions.AskApi) == []


AWAY = Broken(EXECUTION_API, "refused", "a")


def away_from_a(m, now):
    """Number of a job on a that meets no execution API, after one on b has begun; both have been told."""
    m.handle(now, queued("first", "a", 9), queued("other", "b", 1))
    first = dispatches(m.handle(now, tick(a=1, b=0)))["first"].number
    back = Ended(first, Outcome.FAILED, False, "refused")
    question = asked(m.handle(now, AWAY, back))
    m.handle(now, Rows(question.asked, {"first": QUEUED}))
    return first


def test_the_execution_api_is_tried_first_where_no_trouble_was_met():
    """The jobs of the backend that cannot reach it may be the more important ones, for ever."""
    m = machine(route("a", "a"), route("b", "b"))
    away_from_a(m, 0)
    assert set(launched(m, 2, a=9, b=9)) == {"other"}


def test_one_backend_that_cannot_reach_the_execution_api_keeps_no_other_waiting():
    """Once a task has begun elsewhere the trouble is that backend's own, and still nothing counts there; the first that
    begins there ends it."""
    m = machine(route("a", "a"), route("b", "b"), launch_retries=2, launch_delay_max=1.0)
    away_from_a(m, 0)
    now, tried = 2.0, []
    m.handle(now, Began(dispatches(m.handle(now, tick(a=9, b=9)))["other"].number))
    for turn in range(6):
        now += 70
        m.handle(now, queued(turn, "b"))
        found = dispatches(m.handle(now, tick(a=9, b=9)))
        assert set(found) == {"first", turn}
        question = asked(
            m.handle(now + 1, AWAY, Ended(found["first"].number, Outcome.FAILED, False, "refused"))
        )
        answer = Rows(question.asked, {"first": QUEUED})
        assert of(m.handle(now + 1, Began(found[turn].number), answer), actions.Emit) == []
        tried.append(m.circuit("a"))
        assert m.waits("first") is not Waits.API
    assert set(tried) == {CircuitState.OPEN}
    found = dispatches(m.handle(now + 70, tick(a=9, b=9)))
    m.handle(now + 70, Sent(found["first"].number))
    assert m.circuit("a") is not CircuitState.CLOSED
    m.handle(now + 70, Began(found["first"].number))
    assert m.circuit("a") is CircuitState.CLOSED


def test_two_backends_that_cannot_reach_the_execution_api_are_witnesses_of_its_outage():
    """A beginning that was before the last trouble refutes nothing."""
    m = machine(route("a", "a"), route("b", "b"))
    away_from_a(m, 0)
    m.handle(2, Began(dispatches(m.handle(2, tick(a=9, b=9)))["other"].number))
    m.handle(3, AWAY, queued(2, "b"))
    m.handle(60, AWAY)
    assert m.waits(2) is Waits.API


@pytest.mark.parametrize(("silent", "answers"), [(1.0, True), (26.0, False), (40.0, False)])
def test_a_heartbeat_of_any_task_shows_that_the_execution_api_answers(silent, answers):
    """Nothing may be held with which it could be tried, for hours. A heartbeat that may be of the time before shows
    nothing."""
    m = machine(route("*", "a", "b"))
    found = dispatches(m.handle(0, queued(1), queued(2), tick(a=1, b=1)))
    m.handle(0, Sent(found[1].number), Began(found[1].number), Sent(found[2].number))
    m.handle(
        1, Broken(EXECUTION_API, "refused", "b"), Ended(found[2].number, Outcome.FAILED, None, "refused")
    )
    m.handle(2, queued(3, "q"))
    question = asked(m.handle(30, tick(a=0, b=0)))
    m.handle(31, Rows(question.asked, {1: Row(RowState.RUNNING, silent=silent), 2: QUEUED}))
    assert (m.waits(3) is not Waits.API) is answers


def test_the_user_of_a_task_is_told_what_it_waits_for_once():
    """After half a minute, and again when the reason is another one; nothing for what waits for its turn."""
    m = machine(route("q", "a"), route("p", "b"), rules={"b": BackendRules(cordoned=True)})
    m.handle(0, queued(1), queued(2, "p"), tick(a=Room(1, unavailable="no broker"), b=9))
    away = tick(a=Room(1, unavailable="no broker"), b=9)
    assert of(m.handle(29, away), actions.Record) == []
    assert of(m.handle(30, away), actions.Record) == [
        actions.Record(1, "waits_blocked", "a: no broker."),
        actions.Record(2, "waits_blocked", "b: It is cordoned."),
    ]
    m.handle(59, Broken(EXECUTION_API, "refused"))
    assert of(m.handle(60, tick(a=0, b=9)), actions.Record) == [
        actions.Record(key, "waits_api", "The execution API answers nobody. refused") for key in (1, 2)
    ]
    m.handle(61, Recovered(EXECUTION_API))
    assert of(m.handle(90, tick(a=0, b=9)), actions.Record) == [
        actions.Record(2, "waits_blocked", "b: It is cordoned.")
    ]
    assert of(m.handle(120, tick(a=0, b=9)), actions.Record) == []


def test_silent_while_the_execution_api_is_away_is_not_dead():
    """A process that cannot reach it sends no heartbeat; only silence since its return counts."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    question = asked(m.handle(0, Sent(one), Ended(one, Outcome.FAILED, None, "lost")))
    silent = Row(RowState.RUNNING, silent=400.0)
    m.handle(1, Broken(EXECUTION_API, ""), Rows(question.asked, {1: silent}))
    m.handle(100, Recovered(EXECUTION_API))
    found = m.handle(101, tick(a=9))
    assert of(m.handle(101, Rows(asked(found).asked, {1: silent})), actions.Emit) == []
    found = m.handle(125, tick(a=9))
    assert len(of(m.handle(125, Rows(asked(found).asked, {1: silent})), actions.Emit)) == 1


def test_what_was_let_begin_and_never_heard_so_uses_no_try():
    """The server died before it could answer: the row runs, and nothing does. Airflow queues it again in the same try,
    however often its row is locked; what was launched again meanwhile is judged anew."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    silent, lost = Row(RowState.RUNNING, silent=400.0), Outcome.FAILED
    question = asked(m.handle(0, Sent(one), Ended(one, lost, None, "refused", nothing_ran=True)))
    assert of(m.handle(1, Rows(question.asked, {1: silent})), actions.Unstart) == []
    question = asked(m.handle(25, tick(a=9)))
    again = asked(m.handle(25, Rows(question.asked, {1: silent})), actions.Unstart)
    (adopt,) = of(m.handle(26, Rows(again.asked, {1: silent})), actions.Adopt)
    question = asked(m.handle(27, Unknown(adopt.found[0].number)))
    assert of(m.handle(27, Rows(question.asked, {1: silent})), actions.Restart) == []
    question = asked(m.handle(60, tick(a=9)))
    again = asked(m.handle(60, Rows(question.asked, {1: silent})), actions.Unstart)
    assert m.handle(61, Rows(again.asked, {1: GONE}))[-1:] == [
        actions.Revoke("a", adopt.found[0].number, True)
    ]
    assert 1 not in m


def test_what_is_launched_again_may_have_run():
    """Of the next dispatch nothing is known yet."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    question = asked(m.handle(0, Sent(one), Ended(one, Outcome.FAILED, None, "refused", nothing_ran=True)))
    m.handle(1, Rows(question.asked, {1: QUEUED}))
    (two,) = dispatches(m.handle(9, tick(a=9))).values()
    question = asked(m.handle(9, Sent(two.number), Ended(two.number, Outcome.FAILED, None, "lost")))
    found = m.handle(40, Rows(question.asked, {1: Row(RowState.RUNNING, silent=400.0)}))
    assert of(found, actions.Emit) == [actions.Emit(1, Outcome.FAILED, "lost")]


# The database as a witness


def test_late_news_of_an_earlier_dispatch_changes_nothing():
    """A task defers on a, comes back on b; the end of its first half frees its slot, and nothing else."""
    m = machine()
    first = number(m, 0, 1, a=9)
    m.handle(0, Sent(first))
    assert launched(m, 1, queued(1), a=0, b=9) == {}
    assert m.waits(1) is Waits.EARLIER
    assert launched(m, 12, a=0, b=9) == {1: "b"}
    found = m.handle(13, Ended(first, Outcome.FAILED, True, "late"))
    assert found == []
    assert (m.state(1), m.slots_used) == (State.SUBMITTED, {"a": 0, "b": 1})


def test_comes_back_as_soon_as_the_earlier_dispatch_has_ended():
    """It waits for that, and not for the whole grace."""
    m = machine()
    first = number(m, 0, 1)
    m.handle(1, Sent(first), queued(1))
    assert launched(m, 2, Ended(first, Outcome.SUCCESS, True), a=9) == {1: "a"}


def test_what_is_over_in_airflow_leaves_the_hold_queue():
    """Marked, cleared, deleted: it is asked about, and released."""
    m = machine(look_every=30)
    m.handle(0, queued(1), queued(2), tick(a=0))
    question = asked(m.handle(30, tick(a=0)))
    assert question.keys == [1, 2]
    m.handle(31, Rows(question.asked, {1: GONE, 2: QUEUED}))
    assert list(m) == [2]


def test_a_slot_whose_end_was_lost_is_free_within_a_minute():
    """Two looks at the database are the second witness; what is left at the engine is ended."""
    m = machine(look_every=30)
    one = number(m, 0, 1)
    m.handle(0, Sent(one))
    m.handle(31, Rows(asked(m.handle(30, tick(a=9))).asked, {1: GONE}))
    assert m.slots_used["a"] == 1
    found = m.handle(60.5, Rows(asked(m.handle(60, tick(a=9))).asked, {1: GONE}))
    assert found == [actions.Revoke("a", one, over=True)]
    assert (m.slots_used["a"], len(m)) == (0, 0)


def test_an_answer_is_not_believed_about_what_has_changed_since():
    """The database said so of an earlier life of the same key."""
    m = machine()
    m.handle(0, queued(1), tick(a=0))
    question = asked(m.handle(30, tick(a=0)))
    m.handle(31, Revoke(1), queued(1))
    m.handle(32, Rows(question.asked, {1: GONE}))
    assert 1 in m


def test_an_answer_about_a_held_job_is_not_believed_of_its_dispatch():
    """Asked in the heartbeat in which it was dispatched, the database tells of what was before."""
    m = machine(route("*", "a"), look_every=30)
    m.handle(0, queued(1), tick(a=0))
    found = m.handle(30, tick(a=9))
    assert list(dispatches(found)) == [1]
    m.handle(31, Rows(asked(found).asked, {1: GONE}))
    m.handle(60, Rows(asked(m.handle(60, tick(a=9))).asked, {1: GONE}))
    assert m.slots_used["a"] == 1


def test_what_cannot_be_set_back_yet_is_not_asked_for_in_every_heartbeat():
    """Its row may be locked for as long as another transaction likes."""
    m = machine(look_again=10)
    m.handle(0, Offered(1, TaskRef("q"), runs=False))
    answers, asked_at = [], []
    for now in range(1, 40):
        found = m.handle(now, *answers, tick(a=9))
        questions = of(found, actions.PutBack)
        answers = [Rows(each.asked, {1: QUEUED}) for each in questions]
        asked_at += [now for _ in questions]
    assert asked_at == [1, 12, 23, 34]


def test_a_backend_that_does_not_answer_keeps_no_slot_with_what_had_not_begun():
    """One of its servers cannot be asked: after a minute such a task is set back. One that has begun meanwhile is
    asked for under the same number, since its engine may still be looking."""
    m = machine(route("*", "a"))
    m.handle(0, *(Offered(key, TaskRef("q"), key == "runs", "a") for key in (1, 2, "runs")))
    (adopt,) = of(m.handle(1, tick(a=9)), actions.Adopt)
    rows = {1: QUEUED, 2: QUEUED, "runs": RUNNING}
    question = asked(m.handle(31, tick(a=9)))
    assert of(m.handle(31, Rows(question.asked, rows)), actions.PutBack) == []
    question = asked(m.handle(61, tick(a=9)))
    put_back = asked(m.handle(61, Rows(question.asked, rows)), actions.PutBack)
    assert (list(put_back.keys), m.slots_used["a"]) == ([1, 2], 1)
    found = m.handle(62, Rows(put_back.asked, {1: Row(RowState.OVER), 2: RUNNING}))
    assert of(found, actions.Revoke) == [actions.Revoke("a", adopt.found[0].number, over=True)]
    (again,) = of(found, actions.Adopt)
    assert again.found == [adopt.found[1]._replace(runs=True)]


def test_what_waits_is_refreshed_and_what_runs_is_not():
    """Airflow takes a task for stuck that is queued for too long; one whose engine cannot revoke is kept, too."""
    m = machine(route("c", "c"), route("*", "a"), rules={"c": BackendRules(revokes=False)}, refresh_every=150)
    m.handle(0, *(queued(k) for k in (1, 2)), queued("kept", "c"))
    found = m.handle(0, tick(a=1, c=1))
    m.handle(0, *(Sent(each.number) for each in dispatches(found).values()))
    assert of(m.handle(149, tick(a=1, c=1)), actions.Refresh) == []
    assert of(m.handle(151, tick(a=1, c=1)), actions.Refresh) == [actions.Refresh([2, "kept"])]
    assert of(m.handle(302, tick(a=1, c=1)), actions.Refresh) == [actions.Refresh([2, "kept"])]


def test_what_has_ended_costs_nothing_later():
    """When its row would have been looked up or refreshed, nothing walks over it."""
    lines = []
    for size in (20, 400):
        m = machine()
        m.handle(0, *map(queued, range(size)), *map(Revoke, range(size)))
        lines.append(lines_executed(lambda ended=m: ended.handle(200, tick(a=1))))
    assert lines[0] == lines[1]


def test_what_cannot_be_revoked_is_not_given_up():
    """Airflow is told so, and the task stays where it is."""
    m = machine(route("*", "c"), rules={"c": BackendRules(revokes=False)})
    m.handle(0, Sent(number(m, 0, 1, c=1)))
    assert not m.can_revoke(1)
    assert m.handle(1, Revoke(1)) == []
    assert m.state(1) is State.SENT


def test_an_engine_that_says_nothing_about_what_it_was_to_stop_is_told_again():
    """Half a minute later; after a minute the slot is free, and the engine has to leave nothing behind."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    told = {0: m.handle(0, Sent(one), Revoke(1))}
    for now in range(1, 70):
        told[now] = list(m.handle(now, tick(a=9)))
        assert m.slots_used["a"] == (now < 60)
    assert {now: of(found, actions.Revoke) for now, found in told.items() if found} == {
        0: [actions.Revoke("a", one)],
        30: [actions.Revoke("a", one)],
        60: [actions.Revoke("a", one, over=True)],
    }


def test_what_was_queued_again_is_not_stopped_with_what_was_before():
    """An engine may know both by the same key."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    m.handle(0, Sent(one), Revoke(1), queued(1))
    told = [each for now in range(1, 70) for each in of(m.handle(now, tick(a=9)), actions.Revoke)]
    assert told == [actions.Revoke("a", one, over=True)]


def test_what_was_let_go_is_forgotten_and_not_stopped():
    """It may be what runs; its engine may never hear of its end."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    m.handle(0, Sent(one), queued(1))
    kinds = (actions.Revoke, actions.Forget)
    told = [(now, each) for now in range(1, 70) for each in of(m.handle(now, tick(a=9)), kinds)]
    assert told == [(60, actions.Forget("a", one))]
    assert m.slots_used["a"] == 1


def test_after_a_pause_the_database_is_asked_first():
    """Another scheduler may have taken what is held here: nothing is launched before the answer."""
    m = machine(route("*", "a"), paused_after=25, look_every=1e9)
    m.handle(0, queued(1), queued(2), tick(a=0))
    found = m.handle(100, tick(a=9))
    assert dispatches(found) == {}
    assert m.waits(1) is Waits.ROWS
    m.handle(101, Rows(asked(found).asked, {1: QUEUED, 2: Row(RowState.QUEUED, mine=False)}))
    assert launched(m, 102, a=9) == {1: "a"}
    assert 2 not in m


@pytest.mark.parametrize(("silent", "is_pause"), [(25.0, False), (25.1, True)])
def test_how_long_a_scheduler_may_be_silent(silent, is_pause):
    """Before its first heartbeat it is not."""
    m = machine(route("*", "a"), paused_after=25, look_every=1e9)
    m.handle(1000, queued(1), tick(a=0))
    assert (launched(m, 1000 + silent, a=9) == {}) is is_pause


def test_a_lost_question_after_a_pause_is_asked_again():
    """Launching does not wait for ever for an answer that was lost."""
    m = machine(route("*", "a"), paused_after=25, look_every=1e9)
    m.handle(0, queued(1), tick(a=0))
    m.handle(100, tick(a=9))
    assert of(m.handle(105, tick(a=9)), actions.LookUp) == []
    question = asked(m.handle(111, tick(a=9)))
    assert launched(m, 112, Rows(question.asked, {1: QUEUED}), a=9) == {1: "a"}


def test_loops_that_are_all_too_long_launch_all_the_same():
    """The database is asked after each of them; an answer that comes with a heartbeat is as new as can be."""
    m = machine(route("*", "a"), paused_after=25, look_every=1e9)
    m.handle(0, queued(0), tick(a=0))
    now, launches, answers = 0.0, 0, []
    for key in range(1, 7):
        now += 40
        found = m.handle(now, *answers, tick(a=9))
        launches += len(dispatches(found))
        answers = [Rows(each.asked, dict.fromkeys(each.keys, QUEUED)) for each in of(found, actions.LookUp)]
        m.handle(now + 1, queued(key))
    assert launches >= 5


def test_an_answer_that_takes_longer_than_a_loop_counts():
    """Asked again meanwhile, the first answer lets the held jobs go."""
    m = machine(route("*", "a"), paused_after=25, look_every=1e9)
    m.handle(0, queued(1), tick(a=0))
    first = asked(m.handle(40, tick(a=9)))
    m.handle(80, tick(a=9))
    assert launched(m, 120, Rows(first.asked, {1: QUEUED}), a=9) == {1: "a"}


def test_any_news_ends_a_silence():
    """A scheduler that hears of its engines in between has not been silent, however rarely it ticks."""
    m = machine(route("*", "a"), paused_after=25, look_every=1e9)
    m.handle(0, queued(1), tick(a=0))
    m.handle(20)
    m.handle(40)
    assert launched(m, 60, a=9) == {1: "a"}


# Adoption


def test_what_is_queued_and_has_no_evidence_is_put_back():
    """At the next heartbeat: by then Airflow has committed that it is ours."""
    m = machine()
    assert m.handle(0, Offered(1, TaskRef("q"), runs=False, candidates=("a",))) == []
    question = asked(m.handle(1, tick(a=9)), actions.PutBack)
    assert question.keys == [1]
    m.handle(2, Rows(question.asked, {1: GONE}))
    assert (len(m), m.slots_used["a"]) == (0, 0)


def test_who_has_what_runs_is_asked_one_after_another():
    """Without a row in the event log every candidate is asked, and none is believed to have it before it says so."""
    m = machine()
    m.handle(0, Offered(1, TaskRef("q"), runs=True, candidates=("b", "a")))
    (first,) = of(m.handle(0, tick(a=9, b=9)), actions.Adopt)
    (second,) = of(m.handle(1, Unknown(first.found[0].number)), actions.Adopt)
    assert (first.backend, second.backend) == ("b", "a")


def test_an_orphan_keeps_its_slot_until_its_backend_can_be_asked():
    """It runs there, by evidence; asked again as soon as the backend recovers."""
    m = machine()
    m.handle(0, Broken("a", "away"), Offered(1, TaskRef("q"), runs=True, evidence="a"))
    assert (m.state(1), m.slots_used["a"]) == (State.ORPHANED, 1)
    (adopt,) = of(m.handle(5, Recovered("a")), actions.Adopt)
    assert adopt.found[0].key == 1


# Settings and orders


def test_changed_settings_route_everything_anew():
    """A held job goes where the new routes say, and a backend that is gone is drained."""
    m = machine(route("*", "a"))
    sent = number(m, 0, "sent")
    m.handle(0, Sent(sent), queued("held"), tick(a=1))
    changed = replace(settings(route("*", "b")), backends={"b": BackendRules()})
    m.handle(1, changed)
    assert launched(m, 2, a=9, b=9) == {"held": "b"}
    assert m.slots_used["a"] == 1
    m.handle(3, Ended(sent, Outcome.SUCCESS, True))
    m.handle(4, changed)
    assert "a" not in m.slots_used


@pytest.mark.parametrize(("command", "withdrawn"), [(Command.CORDON, 0), (Command.DRAIN, 1)])
def test_cordon_and_drain(command, withdrawn):
    """No new work; a drain takes back what is not sent as well; resume undoes both."""
    m = machine(route("*", "a"))
    number(m, 0, 1)
    assert len(of(m.handle(1, Order(command, "a")), actions.Withdraw)) == withdrawn
    assert launched(m, 2, queued(2), a=9) == {}
    assert m.waits(2) is Reason.WAITS_BLOCKED
    assert launched(m, 3, Order(Command.RESUME, "a"), a=9) == {2: "a"}


def test_recall_takes_back_what_is_not_sent():
    """A better target is free: the job is withdrawn, and goes there if it could be."""
    m = machine()
    one = number(m, 0, 1, a=0, b=1)
    assert of(m.handle(1, Recall(1)), actions.Withdraw) == [actions.Withdraw("b", [one])]
    assert launched(m, 2, Returned(one), a=1, b=1) == {1: "a"}


# Being asked


def test_free_slots():
    """Those that a new task could really get, and room to hold while others are in the way."""
    m = machine(route("a", "a"), route("b", "b"), max_held=100)
    assert m.free_slots() == 0
    m.handle(0, tick(a=3, b=2))
    assert m.free_slots() == 5
    m.handle(1, *(queued(k, "a") for k in range(5)), tick(a=3, b=2))
    assert m.free_slots() == 98
    m.handle(2, tick(a=3, b=0))
    assert m.free_slots() == 0


def test_free_slots_of_backends_that_take_nothing():
    """One that is blocked has none, and one that is full is in nobody's way as long as nothing waits for it."""
    m = machine(route("a", "a"), route("b", "b"), max_held=100)
    m.handle(0, tick(a=0, b=2))
    assert m.free_slots() == 2
    m.handle(1, tick(a=3, b=2), Order(Command.CORDON, "a"))
    assert m.free_slots() == 2
    m.handle(2, queued(1, "a"))
    assert m.free_slots() == 99
    m.handle(3, *(queued(k, "b") for k in (2, 3)))
    assert m.free_slots() == 0


def test_queries_change_nothing():
    """A snapshot, a repr or a story may be had from anywhere, at any time."""
    m = machine()
    m.handle(0, queued(1), Broken("a", "away"), tick(a=9, b=0))
    before = repr(m), m.snapshot(), m.waits(1), m.story(1), m.free_slots(), m.held, m.can_revoke(1), list(m)
    after = repr(m), m.snapshot(), m.waits(1), m.story(1), m.free_slots(), m.held, m.can_revoke(1), list(m)
    assert before == after


def test_story():
    """It tells what happened to a job and why, in order, while it lives and for a while after."""
    m = machine(route("*", "a"))
    one = number(m, 1, 1)
    m.handle(2, Rejected(one, "too large"))
    two = dispatches(m.handle(4, tick(a=9)))[1].number
    m.handle(5, Sent(two), Began(two))
    m.handle(9, Ended(two, Outcome.SUCCESS, True))
    assert [str(step) for step in m.story(1)] == [
        "1.0 held: queued",
        "1.0 submitted (a): dispatched",
        "2.0 held (a): could not be sent; the others go first: too large",
        "4.0 held (a): may be launched now",
        "4.0 submitted (a): dispatched",
        "5.0 sent (a): sent",
        "5.0 running (a): began",
        "9.0 ended (a): succeeded",
    ]


def test_stories_are_bounded():
    """A long life keeps its beginning and its end, and only the last stories are kept."""
    m = machine(route("*", "a"), launch_retries=10**6, launch_delay=0)
    m.handle(0, queued(1))
    for now in range(100):
        for each in dispatches(m.handle(now, tick(a=9))).values():
            m.handle(now, Rejected(each.number))
    assert len(m.story(1)) == 24
    assert m.story(1)[0].words == "queued"
    for key in range(REMEMBERED + 1):
        m.handle(200, queued(key), Revoke(key))
    assert m.story(0) == ()
    assert m.story(REMEMBERED)[-1].words == "revoked"


def test_a_long_story_loses_its_oldest_step_but_for_the_beginning():
    """One for each that comes."""
    m = machine(route("*", "a"))
    one = number(m, 0, 1)
    for now in range(1, 30):
        m.handle(now, Sent(one))
    assert [step.at for step in m.story(1)] == [0, 0, 1, 2, 3, 4, *range(12, 30)]


def test_the_last_story_of_a_key_is_told():
    """Others have ended in between."""
    m = machine(route("*", "a"))
    m.handle(1, queued(1), Revoke(1), queued(2), Revoke(2))
    m.handle(5, queued(1), Revoke(1))
    assert [step.at for step in m.story(1)] == [5, 5]
    assert [step.at for step in m.story(2)] == [1, 1]
    assert m.story(3) == ()


def test_what_the_caller_knows_a_task_by_is_kept_as_long_as_it_is_in_our_care():
    """Queued or offered; of what has ended nothing is kept."""
    m = machine()
    m.handle(0, queued(1)._replace(subject="a task"), Offered(2, TaskRef("q"), False, subject="another"))
    assert (m.subject(1), m.subject(2), m.subject(3)) == ("a task", "another", None)
    m.handle(1, Revoke(1))
    assert m.subject(1) is None


def test_unheard_of_things_are_ignored():
    """News of dispatches, keys and backends that nobody knows changes nothing."""
    m = machine()
    nothing = [Sent(7), Ended(8, Outcome.SUCCESS), Revoke("x"), Recall("x"), Broken("x", ""), Recovered("x")]
    assert m.handle(0, *nothing, Order(Command.DRAIN, "x"), Rows(0, {"x": GONE}), tick(**rooms())) == []
