# SPDX-License-Identifier: Apache-2.0
"""The machine of a cluster, where its server is in trouble, and where pods are to be taken back."""

from __future__ import annotations

from math import inf

import pytest

from airflow_dispatch_provider.engines.kubernetes._pods import OVER_GRACE, Finish, Remove
from airflow_dispatch_provider.engines.kubernetes._seen import Kind
from airflow_dispatch_provider.engines.kubernetes._steps import AskNamespace, AskServer, Create, Wait
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.lifecycle.events import (
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
)
from tests.unit.engines.kubernetes.machine_world import (
    DONE,
    DOWN,
    FAILED,
    FULL,
    INVALID,
    SUCCESS,
    TROUBLE,
    World,
    pod,
)

# The server


def test_a_server_that_serves_nobody_is_asked_by_one_request_at_a_time():
    world = World().submit(1, 2, 3)
    world.ask(1, DOWN)
    assert world.step() == Wait(world.now + 0.5)
    world.now += 0.5
    assert world.steps() == [Create(2)]
    world.machine.built(2, pod(2), None, world.now)
    world.answer(2, DOWN)
    world.machine.withdraw([3])
    world.now += 1
    assert world.steps() == [AskServer()]
    world.machine.server_answered(None, world.now)
    assert world.room.unavailable is None
    assert world.step() == Wait(inf)


def test_a_pod_that_could_be_created_ends_the_trouble_of_the_server():
    world = World().submit(1, 2)
    world.ask(1, DOWN)
    world.now += 0.5
    assert world.ask(2, DONE) == [Sent(2, "7")]
    assert world.room.unavailable is None


def test_a_server_that_fails_while_it_is_asked_about_a_namespace_leaves_that_to_be_tried():
    world = World().submit(1)
    world.ask(1, FULL, neutral=FULL)
    world.now += 5
    assert world.step() == AskNamespace("a")
    world.machine.namespace_answered("a", DOWN, world.now)
    assert world.room.unavailable == "is down"
    world.now += 0.5
    assert world.step() == AskNamespace("a")


def test_a_server_that_goes_on_serving_nobody_is_asked_less_often():
    world = World().submit(1)
    world.ask(1, DOWN)
    for delay in (0.5, 1.0, 2.0):
        assert world.step() == Wait(world.now + delay)
        world.now += delay
        assert world.step() == AskServer()
        world.machine.server_answered(DOWN, world.now)
    assert world.room.unavailable == "is down"


def test_a_throttling_server_is_left_alone_for_as_long_as_it_wants():
    world = World().submit(1, 2)
    world.ask(1, Answer(Verdict.THROTTLED, "", 30.0, Scope.SERVER))
    assert world.step() == Wait(world.now + 30)
    assert world.room.unavailable is None
    world.now += 30
    assert world.steps() == [Create(1)]
    world.machine.built(1, pod(1), None, world.now)
    world.answer(1, DONE)
    assert world.step() == Create(2)


def test_a_server_that_serves_nobody_is_asked_every_half_minute_at_least():
    """And soon again, once it has served."""
    world = World().submit(1)
    world.ask(1, DOWN)
    for delay in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert world.step() == Wait(world.now + delay)
        world.now += delay
        assert world.step() == AskServer()
        world.machine.server_answered(DOWN, world.now)
    world.now += 30
    assert world.step() == AskServer()
    world.machine.server_answered(None, world.now)
    assert world.submit(2).ask(2, DOWN) == [Returned(2, "is down", "a")]
    assert world.step() == Wait(world.now + 0.5)


def test_chance_spreads_what_is_tried_again():
    """The server's trouble, and a job's."""
    world = World(chance=lambda: 0.0).submit(1, 2)
    world.ask(1, FULL, neutral=DONE)
    world.machine.withdraw([2])
    assert world.step() == Wait(world.now + 0.5)
    world.now += 0.5
    world.ask(1, DOWN)
    assert world.step() == Wait(world.now + 0.25)


def test_one_jobs_trouble_does_not_mend_the_backend():
    """Where a server, or every namespace, is in trouble, a rejection tells nothing of that."""
    for closed in ("a", "b"):
        world = World().submit(1)
        world.machine.lanes.close(closed, TROUBLE, world.now - 1)
        assert world.ask(1, INVALID, "a" if closed == "b" else "b") == [
            Rejected(1, INVALID.reason),
            Recovered("x"),
        ]
    world = World().submit(1, 2)
    world.ask(1, DOWN)
    world.now += 0.5
    assert world.ask(2, INVALID) == [Rejected(2, INVALID.reason)]
    world = World().submit(1)
    assert world.build(1)
    for name in ("a", "b"):
        world.machine.lanes.close(name, TROUBLE, world.now)
    assert world.answer(1, INVALID) == [Rejected(1, INVALID.reason)]


@pytest.mark.parametrize("end", ["invalid", "revoked"])
def test_one_that_cannot_be_asked_for_leaves_its_namespace_to_the_next(end):
    """It was the try of a closed one."""
    world = World().submit(1, 2)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    world.ask(2, FULL, neutral=FULL)
    world.now += 5
    assert world.step() == Create(1)
    if end == "invalid":
        world.machine.invalid(1, "no template", world.now)
    else:
        world.revoke(1)
        assert not world.machine.built(1, pod(1), None, world.now)
    assert world.step() == AskNamespace("a")


@pytest.mark.parametrize(
    ("closed", "shown"),
    [
        ({}, "pods 1, unsent 1"),
        ({"a": FULL}, "pods 1, unsent 1"),
        ({"a": FULL, "b": FULL}, "pods 1, unsent 1, quota"),
        ({"a": TROUBLE, "b": TROUBLE}, "pods 1, unsent 1, webhook"),
        ({"a": TROUBLE, "b": FULL}, "pods 1, unsent 1, webhook"),
    ],
)
def test_it_shows_why_it_takes_nothing(closed, shown):
    """Only where no namespace takes a pod."""
    world = World().with_pod(1).submit(2)
    for name, answer in closed.items():
        world.machine.lanes.close(name, answer, world.now)
    assert repr(world.machine) == f"Machine({shown})"


def test_trouble_beyond_what_is_known_here_makes_it_unavailable():
    assert World().machine.room(3, "hangs").unavailable == "hangs"


# Taking back


def test_withdrawn_is_what_is_certainly_not_with_the_server():
    world = World(limit=1).submit(1, 2)
    world.build(1)
    assert world.machine.withdraw([1, 2, 9]) == {2}
    assert world.answer(1, DONE) == [Sent(1, "7")]
    assert world.machine.withdraw([1]) == set()


def test_revoked_before_anything_was_asked_it_is_returned():
    world = World().submit(1)
    assert world.revoke(1) == [Returned(1, "revoked")]
    assert world.step() == Wait(inf)


def test_revoked_while_it_is_built_it_is_not_asked_for():
    world = World().submit(1)
    assert world.step() == Create(1)
    assert world.revoke(1) == []
    assert not world.machine.built(1, pod(1), "m1", world.now)
    assert world.machine.take_events() == [Returned(1, "revoked")]
    assert world.step() == Wait(inf)


def test_revoked_while_it_cannot_be_built_it_is_returned():
    world = World().submit(1)
    world.step()
    world.revoke(1)
    world.machine.invalid(1, "no template", world.now)
    assert world.machine.take_events() == [Returned(1, "revoked")]


@pytest.mark.parametrize(
    ("answer", "doubtful", "said", "orders"),
    [
        # Its end is told when the pod is gone.
        (DONE, False, [], [Remove(pod(1))]),
        (INVALID, False, [Returned(1, "revoked")], []),
        (FULL, False, [Returned(1, "revoked")], []),
        (DOWN, True, [Ended(1, FAILED, None, "revoked")], []),
    ],
)
def test_revoked_while_it_is_asked_for_the_answer_decides(answer, doubtful, said, orders):
    world = World().submit(1)
    world.build(1)
    assert world.revoke(1) == []
    assert world.answer(1, answer, doubtful=doubtful, neutral=answer) == said
    assert world.orders() == orders


def test_revoked_while_it_is_asked_for_and_a_watch_has_told_of_it():
    world = World().submit(1)
    world.build(1)
    world.see(1, Kind.PENDING)
    world.revoke(1)
    assert world.orders() == [Remove(pod(1))]
    assert world.answer(1, DONE) == world.orders() == []


def test_revoking_what_has_ended_changes_nothing():
    world = World().with_pod()
    world.see(1, Kind.SUCCEEDED)
    world.orders()
    assert world.revoke(1) == world.revoke(1, over=True) == world.orders() == []


def test_revoked_with_its_answer_lost_it_is_removed_should_it_turn_up():
    """And not another pod that has its name by then."""
    world = World().submit(1)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    assert world.revoke(1) == [Ended(1, FAILED, None, "revoked")]
    assert world.see(1, Kind.PENDING, mark="other") == []
    assert world.orders() == []
    assert world.see(1, Kind.PENDING) == []
    assert world.orders() == [Remove(pod(1))]


def test_turned_up_and_started_it_is_followed_to_its_end():
    """Its removal leaves it alone then."""
    world = World().submit(1)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    world.revoke(1)
    world.see(1, Kind.RUNNING, started=True)
    assert world.orders() == [Remove(pod(1), even_started=False)]
    world.see(1, Kind.SUCCEEDED)
    assert world.orders() == [Finish(pod(1), False, False)]
    assert len(world.machine.pods) == 0


@pytest.mark.parametrize(
    ("started", "stuck", "never", "end"),
    [
        (False, None, True, Ended(1, FAILED, False, "revoked")),
        (False, "no node", True, Ended(1, FAILED, False, "Pod a/pod-1 never started: no node")),
        (True, None, False, Ended(1, FAILED, None, "revoked")),
    ],
)
def test_revoked_with_a_pod_its_end_is_told_when_that_is_gone(started, stuck, never, end):
    world = World().with_pod()
    world.see(1, Kind.RUNNING if started else Kind.PENDING, started=started, stuck=stuck)
    assert world.revoke(1) == []
    assert world.revoke(1) == []
    assert world.orders() == [Remove(pod(1), even_started=started)]
    assert world.see(1, Kind.REVOKED) == []
    assert world.see(1, Kind.REVOKED, gone=True, never_started=never) == [end]
    assert world.see(1, Kind.REVOKED, gone=True) == []


def test_revoked_and_left_alone_since_it_has_started_it_ends_and_is_cleaned_up():
    """Until its deletion gets through its task may have been queued again, and run in it."""
    world = World().with_pod()
    world.revoke(1)
    assert world.orders() == [Remove(pod(1), even_started=False)]
    assert world.see(1, Kind.RUNNING, started=True) == []
    assert world.see(1, Kind.SUCCEEDED) == [Ended(1, SUCCESS)]
    assert world.orders() == [Finish(pod(1), False, False)]


def test_forgotten_it_gets_no_pod_any_more():
    """However long its namespace stays closed; should it be there after all, its pod is removed."""
    world = World().submit(1, 2)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    world.ask(2, FULL, neutral=FULL)
    assert world.machine.forget(1)
    assert (world.machine.unsent, world.machine.take_events()) == (0, [Ended(1, FAILED, None, "revoked")])
    world.see(1, Kind.PENDING)
    assert world.orders() == [Remove(pod(1))]


def test_forgotten_a_pod_is_left_alone_until_it_is_gone():
    """It may be what runs, or another scheduler's by now."""
    world = World().with_pod()
    world.see(1, Kind.PENDING)
    assert not world.machine.forget(1)
    assert (world.orders(), world.machine.forget(9)) == ([], False)
    world.see(1, Kind.SUCCEEDED, gone=True)
    assert world.orders() == [Finish(pod(1), False, False)]
    assert len(world.machine.pods) == 0


def test_over_in_airflow_what_has_started_may_end_by_itself_for_a_while():
    world = World().with_pod()
    world.see(1, Kind.RUNNING, started=True)
    world.revoke(1, over=True)
    assert world.orders() == []
    assert world.step() == Wait(world.now + OVER_GRACE)
    world.now += OVER_GRACE
    world.step()
    assert world.orders() == [Remove(pod(1), even_started=True)]


def test_what_was_set_back_and_has_started_is_not_ended():
    """Its task may be queued again before it asks for leave to begin, and then it runs that."""
    world = World().with_pod()
    world.see(1, Kind.RUNNING, started=True)
    world.revoke(1, over=True)
    world.machine.forget(1)
    assert (world.orders(), world.step()) == ([], Wait(inf))
    world.now += 2 * OVER_GRACE
    world.step()
    assert world.orders() == []


def test_over_in_airflow_what_was_revoked_before_and_has_started_since_has_the_same_time():
    """Its removal has left it alone."""
    world = World().with_pod()
    world.revoke(1)
    world.see(1, Kind.RUNNING, started=True)
    world.revoke(1, over=True)
    world.orders()
    world.now += OVER_GRACE
    world.step()
    assert world.orders() == [Remove(pod(1), even_started=True)]


def test_over_in_airflow_what_ends_by_itself_is_cleaned_up_as_ever():
    world = World().with_pod()
    world.see(1, Kind.RUNNING, started=True)
    world.revoke(1, over=True)
    world.see(1, Kind.SUCCEEDED)
    assert world.orders() == [Finish(pod(1), False, False)]
    assert world.step() == Wait(inf)


def test_over_in_airflow_what_has_not_started_is_removed_at_once():
    world = World().with_pod()
    world.revoke(1, over=True)
    assert world.orders() == [Remove(pod(1))]
