# SPDX-License-Identifier: Apache-2.0
"""The database as a witness: which rows the machine asks for, refreshes and believes."""

from __future__ import annotations

import pytest
from support import lines_executed
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
    Adopted,
    BackendRules,
    Ended,
    Offered,
    Revoke,
    Rows,
    Sent,
)
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.states import GONE, Outcome, Row, RowState, State
from airflow_dispatch_provider.routing.model import TaskRef


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


@pytest.mark.parametrize("how", Outcome)
def test_the_end_of_a_first_half_that_was_adopted_is_not_that_of_the_task(how):
    """It deferred, and the scheduler that had queued the rest was taken for dead: what is found there is the process of
    the first half, on its way out."""
    m = machine()
    found = m.handle(0, Offered("x", TaskRef("q"), False, "a"), tick(a=1))
    (adopt,) = of(found, actions.Adopt)
    m.handle(1, Adopted(adopt.found[0].number))
    question = asked(m.handle(2, Ended(adopt.found[0].number, how, True)))
    assert m.handle(3, Rows(question.asked, {"x": RUNNING})) == []


def test_what_was_asked_before_a_task_was_offered_does_not_make_it_anothers():
    """Its second half was queued by a scheduler that died: the row still named that one."""
    m = machine(look_every=30)
    m.handle(0, Sent(number(m, 0, 1, a=9)))
    question = asked(m.handle(30, tick(a=9)))
    m.handle(31, Offered(1, TaskRef("q"), False, "a"))
    m.handle(32, Rows(question.asked, {1: Row(RowState.QUEUED, mine=False)}))
    assert m.state(1) is State.SENT


@pytest.mark.parametrize(
    ("before", "then"),
    [
        pytest.param(lambda m: m.handle(0, queued(1), tick(a=0)), State.HELD, id="held"),
        pytest.param(
            lambda m: m.handle(0, Ended(number(m, 0, 1, a=9), Outcome.FAILED)), State.RETURNING, id="unclear"
        ),
        pytest.param(lambda m: m.handle(0, Offered(1, TaskRef("q"), False)), State.RETURNING, id="returning"),
    ],
)
def test_what_was_asked_before_a_task_was_offered_does_not_end_it(before, then):
    """It was set back and queued by a scheduler that died: by then the row had been over for this one."""
    m = machine()
    before(m)
    asked_before = max([each.asked for each in of(m.handle(40, tick(a=0)), actions.LookUp)], default=1)
    m.handle(41, Offered(1, TaskRef("q"), False))
    m.handle(42, Rows(asked_before, {1: Row(RowState.OVER)}))
    assert m.state(1) is then


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
