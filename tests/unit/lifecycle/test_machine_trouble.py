# SPDX-License-Identifier: Apache-2.0
"""Whose trouble it is when a job comes to nothing, and who is left alone for how long."""

from __future__ import annotations

import pytest
from unit.lifecycle.builders import (
    QUEUED,
    asked,
    dispatches,
    launched,
    launched_number,
    machine,
    number,
    of,
    queued,
    route,
    settings,
    tick,
)

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    Began,
    Broken,
    Ended,
    Queued,
    Recall,
    Recovered,
    Rejected,
    Returned,
    Revoke,
    Room,
    Rows,
    Sent,
)
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Outcome, State
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.reasons import Reason


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
                m.handle(now, Revoke(each.key))
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


BAD = [Queued(number, TaskRef("q", "bad", str(number)), 1, "workload") for number in range(4)]
GOOD = Queued("good", TaskRef("q", "good", "x"), 1, "workload")


def test_after_the_trouble_of_one_dag_another_one_has_the_next_try():
    """Hundreds of its tasks may have the same wrong image: each would have its try before anything else."""
    m = machine(route("q", "a"))
    m.handle(0.0, *BAD, GOOD, tick(a=2))
    m.handle(1.0, Rejected(1, "why"), Rejected(2, "why"), tick(a=2))
    assert m.circuit("a") is CircuitState.OPEN
    assert launched(m, 3.0, a=2) == {"good": "a"}
    m.handle(10.0, Sent(3))
    assert launched(m, 60.0, a=9).keys() == {0, 1, 2, 3}


def test_they_let_others_go_first_after_each_failure_and_are_tried_where_there_are_none():
    m = machine(route("q", "a"))
    m.handle(0.0, *BAD, tick(a=2))
    m.handle(1.0, Rejected(1, "why"), Rejected(2, "why"), tick(a=2))
    assert launched(m, 3.0, a=2) == {2: "a"}
    m.handle(4.0, GOOD, Rejected(3, "why"), tick(a=2))
    assert launched(m, 9.0, a=2) == {"good": "a"}


def test_after_trouble_of_a_server_the_order_is_as_it_was():
    m = machine(route("q", "a"))
    m.handle(0.0, Broken("a", "away"), tick(a=2))
    m.handle(0.1, *BAD, GOOD, tick(a=2))
    assert launched(m, 3.0, a=2) == {0: "a"}


def test_the_next_try_of_a_task_is_no_second_witness():
    """Its key is another one."""
    m = machine(route("q", "a"))
    for now, key in ((0.0, ("x", 1)), (700.0, ("x", 2))):
        m.handle(now, Queued(key, TaskRef("q", "dag", "x"), 1, "workload"), tick(a=2))
        m.handle(now + 1.0, *(Rejected(number, "why") for number in (1, 2)), tick(a=2))
        assert m.circuit("a") is CircuitState.CLOSED
        m.handle(now + 2.0, Revoke(key))
