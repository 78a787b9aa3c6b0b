# SPDX-License-Identifier: Apache-2.0
"""The machine over time: a job uses no try before it has begun, also while the execution API answers nobody."""

from __future__ import annotations

import pytest
from unit.lifecycle.builders import (
    QUEUED,
    RUNNING,
    asked,
    dispatches,
    launched,
    machine,
    number,
    of,
    queued,
    route,
    tick,
)

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    EXECUTION_API,
    Adopted,
    BackendRules,
    Began,
    Broken,
    Ended,
    Offered,
    Recovered,
    Room,
    Rows,
    Sent,
)
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.states import GONE, Outcome, Row, RowState
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.routing.model import TaskRef


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
    """Jobs that are out are judged by its absence; without a question nothing would show that it is back."""
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


def test_a_job_that_says_nothing_for_a_while_is_not_waited_for():
    """Its backend may be slow, or send nothing: the executor asks, and the others go as soon as it is answered."""
    m = machine(route("*", "a"))
    m.handle(0, queued(1), queued(2), Broken(EXECUTION_API, "refused"))
    found = m.handle(1, tick(a=9))
    assert set(dispatches(found)) == {1}
    assert of(found, actions.AskApi) == of(m.handle(10.9, tick(a=9)), actions.AskApi) == []
    assert of(m.handle(11, tick(a=9)), actions.AskApi) == [actions.AskApi()]
    assert of(m.handle(12, tick(a=9)), actions.AskApi) == []
    assert set(launched(m, 12, Recovered(EXECUTION_API), a=9)) == {2}


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
    """Something else went wrong then, or nothing."""
    m = machine(route("*", "a"))
    one = number(m, 0, 1)
    assert of(m.handle(1, Sent(one), end(one)), actions.AskApi) == []


def test_the_schedulers_own_trouble_with_the_execution_api_keeps_nobody_waiting():
    """A firewall, or a slow answer under load: once a task has begun after that, it is believed no more until the next
    time at which none does."""
    m = machine(route("*", "a"))
    own = Broken(EXECUTION_API, "no answer within 5 s")
    m.handle(0, queued(1), own)
    assert m.waits(1) is Waits.API
    tried = dispatches(m.handle(1, tick(a=9)))[1].number
    m.handle(1, Began(tried), queued(2), own)
    assert m.waits(2) is None
    m.handle(2, own)
    assert m.waits(2) is Waits.API


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


@pytest.mark.parametrize(("then", "failed_at"), [(4.0, []), (41.0, [41])])
def test_an_outage_of_which_nobody_has_heard_is_no_silence(then, failed_at):
    """Its process could not reach the execution API, nor the clerk the database: its next heartbeat comes soon after,
    and shows that it lives. What is still silent then is dead."""
    m = machine(route("*", "a"), look_every=1e9)
    one, emitted = number(m, 0, 1), []
    question = asked(m.handle(0, Sent(one), Ended(one, Outcome.FAILED, None, "lost")))
    for at, silent in ((30, 30.0), (41, then)):
        found = m.handle(at, Rows(question.asked, {1: Row(RowState.RUNNING, silent=silent)}))
        emitted += [at for _ in of(found, actions.Emit)]
        question = next(iter(of(m.handle(at + 10, tick(a=9)), actions.LookUp)), question)
    assert emitted == failed_at


def test_what_was_let_begin_and_never_heard_so_uses_no_try():
    """The server died before it could answer: the row runs, and nothing does. Airflow queues it again in the same try,
    however often its row is locked; what was launched again meanwhile is judged anew."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    silent, lost = Row(RowState.RUNNING, silent=400.0), Outcome.FAILED
    question = asked(m.handle(0, Sent(one), Ended(one, lost, None, "refused", nothing_ran=True)))
    assert of(m.handle(1, Rows(question.asked, {1: silent})), actions.Unstart) == []
    question = asked(m.handle(25, tick(a=9)))
    once = asked(m.handle(25, Rows(question.asked, {1: silent})), actions.Unstart)
    assert not m.handle(26, Rows(once.asked, {1: silent}))
    question = asked(m.handle(60, tick(a=9)))
    again = asked(m.handle(60, Rows(question.asked, {1: silent})), actions.Unstart)
    assert m.handle(61, Rows(again.asked, {1: GONE}))[-1:] == [actions.Revoke("a", one, True)]
    assert 1 not in m


@pytest.mark.parametrize(("began", "failed_at"), [(False, 45), (True, 25)])
def test_whoever_adopted_it_waits_longer_before_it_is_dead(began, failed_at):
    """The scheduler that had sent it may know that nothing of it has run; not where its engine has seen it begin."""
    m = machine(route("*", "a"), look_every=1e9)
    m.handle(0, Offered(1, TaskRef("q"), runs=True, evidence="a"))
    (adopt,) = of(m.handle(0, tick(a=9)), actions.Adopt)
    number = adopt.found[0].number
    news = (Adopted(number), *([Began(number)] if began else []))
    question = asked(m.handle(0, *news, Ended(number, Outcome.FAILED, None, "gone")))
    silent = Row(RowState.RUNNING, silent=400.0)
    emitted = []
    for at in (1, 25, 45):
        found = m.handle(at, Rows(question.asked, {1: silent}))
        emitted += [at for _ in of(found, actions.Emit)]
        question = next(iter(of(m.handle(at + 15, tick(a=9)), actions.LookUp)), question)
    assert emitted == [failed_at]


def test_what_was_let_begin_in_vain_for_another_scheduler_uses_no_try():
    """Both had it; the row is the other one's, which sent nothing, and this one alone knows that nothing runs."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    question = asked(m.handle(0, Sent(one), Ended(one, Outcome.FAILED, None, "refused", nothing_ran=True)))
    anothers = Row(RowState.RUNNING, mine=False, silent=400.0, here=True)
    assert not of(m.handle(1, Rows(question.asked, {1: anothers})), actions.Unstart)
    question = asked(m.handle(25, tick(a=9)))
    again = asked(m.handle(25, Rows(question.asked, {1: anothers})), actions.Unstart)
    m.handle(26, Rows(again.asked, {1: GONE}))
    assert 1 not in m


def test_the_execution_api_is_asked_before_the_database():
    """Whatever was asked of that first: its answer is judged by whether tasks reach the API."""
    m = machine(route("*", "a"))
    one, two = number(m, 0, 1), number(m, 0, 2)
    refused, lost = (Ended(each, Outcome.FAILED, began) for each, began in ((one, False), (two, None)))
    question = m.handle(1, Sent(one), Sent(two), refused, lost)
    assert question == [actions.AskApi(), actions.LookUp(asked(question).asked, [1, 2])]


def test_what_is_launched_again_may_have_run():
    """Of the next dispatch nothing is known yet."""
    m = machine(route("*", "a"), look_every=1e9)
    one = number(m, 0, 1)
    question = asked(m.handle(0, Sent(one), Ended(one, Outcome.FAILED, None, "refused", nothing_ran=True)))
    m.handle(1, Rows(question.asked, {1: QUEUED}))
    (two,) = dispatches(m.handle(9, tick(a=9))).values()
    question = asked(m.handle(9, Sent(two.number), Ended(two.number, Outcome.FAILED, None, "lost")))
    silent = Row(RowState.RUNNING, silent=400.0)
    m.handle(40, Rows(question.asked, {1: silent}))
    found = m.handle(51, Rows(asked(m.handle(51, tick(a=9))).asked, {1: silent}))
    assert of(found, actions.Emit) == [actions.Emit(1, Outcome.FAILED, "lost")]
