# SPDX-License-Identifier: Apache-2.0
"""The machine over time: holding and sending, adoption, settings and orders, being asked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from unit.lifecycle.builders import (
    asked,
    dispatches,
    launched,
    machine,
    number,
    of,
    queued,
    rooms,
    route,
    settings,
    tick,
)

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
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
from airflow_dispatch_provider.lifecycle.states import GONE, Outcome, State
from airflow_dispatch_provider.lifecycle.story import REMEMBERED
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.reasons import Reason

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
    m.handle(4, tick(b=9))
    assert "a" not in m.slots_used


def test_backend_that_is_gone_can_still_be_asked():
    """It adopts the tasks of a scheduler that died as long as it is drained, and not once it is forgotten."""
    m = machine()
    runs = partial(Offered, ref=TaskRef("q"), runs=True, evidence="a")
    without = replace(settings(route("*", "b")), backends={"b": BackendRules()})
    asked_for = m.handle(0, runs(1), tick(a=1), without, runs(2)) + m.handle(1, tick(a=1))
    found = [each for adopt in of(asked_for, actions.Adopt) for each in adopt.found]
    assert [each.key for each in found] == [1, 2]
    m.handle(2, *(Adopted(each.number, True) for each in found))
    m.handle(3, *(Ended(each.number, Outcome.FAILED, True) for each in found), tick())
    assert "a" not in m.slots_used
    m.handle(4, runs(3))
    assert m.state(3) is State.ENDED


@pytest.mark.parametrize(("command", "withdrawn"), [(Command.CORDON, 0), (Command.DRAIN, 1)])
def test_cordon_and_drain(command, withdrawn):
    """No new work; a drain takes back what is not sent as well; resume undoes both."""
    m = machine(route("*", "a"))
    number(m, 0, 1)
    done = m.handle(1, Order(command, "a"))
    assert len(of(done, actions.Withdraw)) == withdrawn
    assert [told.word for told in of(done, actions.Record)] == ["withdrawn"] * withdrawn
    assert launched(m, 2, queued(2), a=9) == {}
    assert m.waits(2) is Reason.WAITS_BLOCKED
    assert launched(m, 3, Order(Command.RESUME, "a"), a=9) == {2: "a"}


def test_a_backend_is_kept_until_what_was_recalled_is_set_back():
    """It may begin there meanwhile, and what is left of it there has to be ended: only the engine can."""
    m = machine(route("*", "a"))
    one = number(m, 0, 1)
    m.handle(1, Sent(one))
    without = replace(settings(route("*", "b")), backends={"b": BackendRules()})
    question = asked(m.handle(2, Order(Command.RECALL, "a"), without, tick()), actions.PutBack)
    assert "a" in m.slots_used
    back = m.handle(3, Rows(question.asked, {1: GONE}))
    assert of(back, actions.Revoke) == [actions.Revoke("a", one, over=True)]
    m.handle(4, tick())
    assert "a" not in m.slots_used


def test_recall_takes_back_what_is_not_sent():
    """A better target is free: the job is withdrawn, and goes there if it could be."""
    m = machine()
    one = number(m, 0, 1, a=0, b=1)
    assert of(m.handle(1, Recall(1)), actions.Withdraw) == [actions.Withdraw("b", [one])]
    assert launched(m, 2, Returned(one), a=1, b=1) == {1: "a"}


def test_an_operator_recalls_what_has_not_begun():
    """A sent one is set back to scheduled, one that is not sent comes back at once, one that runs stays; nothing of
    another backend is touched."""
    m = machine(route("*", "a"))
    one, two = number(m, 0, 1), number(m, 1, 2)
    three = number(m, 2, 3)
    m.handle(3, Sent(one), Sent(two), Began(two))
    done = m.handle(4, Order(Command.RECALL, "a"))
    assert of(done, actions.PutBack)[0].keys == [1]
    assert of(done, actions.Withdraw) == [actions.Withdraw("a", [three])]
    assert [m.state(key) for key in (1, 2, 3)] == [State.RETURNING, State.RUNNING, State.SUBMITTED]
    assert of(m.handle(5, Rows(asked(done, actions.PutBack).asked, {1: GONE})), actions.Revoke) == [
        actions.Revoke("a", one, over=True)
    ]
    assert of(m.handle(6, Order(Command.RECALL, "b")), actions.Withdraw) == []


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
    question = asked(m.handle(9, Ended(two, Outcome.SUCCESS, True)))
    m.handle(10, Rows(question.asked, {1: GONE}))
    assert [str(step) for step in m.story(1)] == [
        "1.0 held: queued",
        "1.0 submitted (a): dispatched",
        "2.0 held (a): could not be sent; the others go first: too large",
        "4.0 held (a): may be launched now",
        "4.0 submitted (a): dispatched",
        "5.0 sent (a): sent",
        "5.0 running (a): began",
        "9.0 unclear (a): ended well; the database is asked whether that was all of it",
        "10.0 ended (a): succeeded, and is finished in the database",
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
