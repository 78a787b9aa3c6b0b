# SPDX-License-Identifier: Apache-2.0
"""The machine of a cluster: what ends of pods it tells, and what it adopts."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes._pods import Finish, Remove
from airflow_dispatch_provider.engines.kubernetes._seen import Kind
from airflow_dispatch_provider.engines.kubernetes._steps import Create
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Ended,
    Stalled,
    Unknown,
)
from tests.unit.engines.kubernetes.machine_world import (
    DONE,
    DOWN,
    FAILED,
    SUCCESS,
    World,
    pod,
    seen,
)

# Ends


WHY = "Pod a/pod-1: why"
TAKEN = "Pod a/pod-1 is another scheduler's now."
KEPT, DELETED = [Finish(pod(1), True, False)], [Finish(pod(1), True, True)]

ENDS = [
    (Kind.SUCCEEDED, {"started": True}, Ended(1, SUCCESS), [Finish(pod(1), False, False)]),
    (Kind.SUCCEEDED, {"lives_on": True}, Ended(1, SUCCESS), [Finish(pod(1), False, True)]),
    # Whether a container that has started had begun, the database knows.
    (Kind.FAILED, {"started": True}, Ended(1, FAILED, None, WHY), KEPT),
    (Kind.FAILED, {"never_started": True}, Ended(1, FAILED, False, WHY), KEPT),
    # Nobody knows what has become of it on a lost node.
    (Kind.FAILED, {}, Ended(1, FAILED, None, WHY), KEPT),
    # One that waits for its image could start later: it is never kept.
    (Kind.FAILED, {"never_started": True, "stuck": "image"}, Ended(1, FAILED, False, WHY), DELETED),
    (Kind.DELETED, {"gone": True, "never_started": True}, Ended(1, FAILED, False, WHY), []),
    (Kind.DELETED, {"gone": True}, Ended(1, FAILED, None, WHY), []),
    (Kind.RELEASED, {"gone": True}, Ended(1, FAILED, None, TAKEN), []),
    (Kind.REVOKED, {}, Ended(1, FAILED, None, TAKEN), []),
]


@pytest.mark.parametrize(("kind", "more", "end", "orders"), ENDS)
def test_how_a_pod_ends(kind, more, end, orders):
    """And it is told once."""
    world = World().with_pod()
    assert world.see(1, kind, **more) == [end]
    assert world.orders() == orders
    assert world.see(1, kind, **more) == []


def test_a_pod_that_had_started_may_have_begun_whatever_its_last_state_says():
    world = World().with_pod()
    world.see(1, Kind.RUNNING, started=True)
    (end,) = world.see(1, Kind.DELETED, gone=True, never_started=True)
    assert end.began is None


def test_of_a_pod_that_is_missing_nobody_saw_the_end():
    world = World().with_pod()
    world.machine.pods.missing([pod(1), pod(2)])
    reason = "Pod a/pod-1 is gone, and nobody saw how it ended."
    assert world.machine.take_events() == [Ended(1, FAILED, None, reason)]


def test_late_news_of_an_earlier_pod_of_the_same_name_changes_nothing():
    world = World().with_pod()
    world.see(1, Kind.FAILED, started=True)
    world.submit(2)
    assert world.step() == Create(2)
    assert world.machine.built(2, pod(1), "m2", world.now)
    world.answer(2, DONE)
    assert world.see(1, Kind.DELETED, gone=True) == []
    assert world.see(1, Kind.SUCCEEDED, mark="m2") == [Ended(2, SUCCESS)]


def test_why_a_pod_does_not_start_is_told_once_for_each_reason():
    """Kubernetes goes to and fro between two of them."""
    world = World().with_pod()
    heard = [world.see(1, Kind.PENDING, stuck=reason) for reason in ("no image", "waits", "no image")]
    assert heard == [[Stalled(1, "Pod a/pod-1: no image")], [Stalled(1, "Pod a/pod-1: waits")], []]


def test_a_list_is_compared_with_pods_that_it_must_have():
    """Not with one that is only asked for, and not with one that has another scheduler's label still."""
    world = World().with_pod().submit(2)
    world.build(2)
    world.see(1, Kind.PENDING)
    assert world.machine.pods.versions("a") == world.machine.pods.versions(None) == {pod(1): "5"}
    assert world.machine.pods.versions("b") == {}
    world.machine.pods.has_no_label(pod(1))
    assert world.machine.pods.versions("a") == {}


# Adoption


def found(world: World, dispatch: int, started: bool = True, runs: bool = True) -> list[Any]:
    world.machine.found(dispatch, seen(dispatch, Kind.RUNNING, started=started), runs, world.now)
    return world.machine.take_events()


@pytest.mark.parametrize("runs", [True, False])
def test_what_is_found_is_adopted_and_followed(runs):
    world = World()
    assert world.machine.seek([1, 2]) == [1, 2]
    assert world.machine.seek([1]) == []
    assert found(world, 1, runs=runs) == [Adopted(1, runs)]
    world.machine.absent([1, 2])
    assert world.machine.take_events() == [Unknown(2)]
    assert world.see(1, Kind.SUCCEEDED) == [Ended(1, SUCCESS)]


@pytest.mark.parametrize(("over", "orders"), [(False, [Remove(pod(1), True)]), (True, [])])
def test_revoked_while_it_is_looked_for_it_is_stopped_when_it_is_found(over, orders):
    world = World()
    world.machine.seek([1])
    assert world.revoke(1, over=over) == []
    assert found(world, 1) == []
    assert world.orders() == orders


def test_the_pod_of_a_later_dispatch_is_not_what_was_looked_for():
    """The cluster answered nobody for long, and its task was queued again."""
    world = World()
    world.machine.seek([1])
    world.revoke(1)
    world.submit(2)
    world.ask(2, DONE)
    world.machine.found(1, seen(2, Kind.RUNNING, started=True), True, world.now)
    assert world.machine.take_events() == [Unknown(1)]
    assert world.orders() == []
    assert world.see(2, Kind.SUCCEEDED) == [Ended(2, SUCCESS)]


def test_revoked_while_it_is_looked_for_it_may_be_unknown():
    world = World()
    world.machine.seek([1])
    world.revoke(1)
    world.machine.absent([1])
    assert world.machine.take_events() == [Unknown(1)]


def test_a_pod_that_is_known_is_followed_for_the_dispatch_that_asked_last():
    world = World()
    world.machine.seek([1, 2])
    found(world, 1)
    world.machine.found(2, seen(1, Kind.RUNNING), True, world.now)
    assert world.machine.take_events() == [Adopted(2, True)]
    assert world.machine.pods.name_of(1) is None
    assert world.see(1, Kind.SUCCEEDED) == [Ended(2, SUCCESS)]


def test_a_pod_that_is_being_removed_here_is_nobodys_to_adopt():
    world = World().with_pod()
    world.revoke(1)
    world.machine.seek([2])
    world.machine.found(2, seen(1, Kind.RUNNING), True, world.now)
    assert world.machine.take_events() == [Unknown(2)]


def test_its_state_is_shown_in_short():
    world = World().with_pod().submit(2)
    world.ask(2, DOWN)
    assert repr(world.machine) == "Machine(pods 1, unsent 0, is down)"
