# SPDX-License-Identifier: Apache-2.0
"""The machine of a cluster: for each thing that may come of creating a pod, what it says and what it does next."""

from __future__ import annotations

from math import inf

import pytest

from airflow_dispatch_provider.engines.kubernetes._machine import LOOK
from airflow_dispatch_provider.engines.kubernetes._seen import Kind
from airflow_dispatch_provider.engines.kubernetes._steps import AskNamespace, Create, Wait
from airflow_dispatch_provider.lifecycle.events import (
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
)
from tests.unit.engines.kubernetes.machine_world import (
    BUSY,
    DONE,
    DOWN,
    FULL,
    INVALID,
    SUCCESS,
    TOO_LARGE,
    TROUBLE,
    World,
    pod,
)

# Creating


def test_as_many_are_asked_for_at_a_time_as_there_may_be_requests():
    world = World(limit=2).submit(1, 2, 3)
    assert world.steps() == [Create(1), Create(2)]
    world.machine.built(1, pod(1), None, world.now)
    world.answer(1, DONE)
    assert world.step() == Create(3)


def test_a_pod_that_was_created_is_sent_with_the_id_for_the_outside_world():
    world = World().with_pod()
    assert world.machine.unsent == 0
    assert world.step() == Wait(inf)


CASES = [
    # A verdict, what a neutral pod meets; what is said of the job, what is closed, why the backend is unavailable.
    # What no pod can be made of, and what the server will never take.
    (INVALID, None, [Rejected(1, INVALID.reason), Recovered("x")], {}, None),
    (TOO_LARGE, None, [Rejected(1, TOO_LARGE.reason), Recovered("x")], {}, None),
    # Its own trouble: a neutral pod could be created.
    (TROUBLE, DONE, [Rejected(1, TROUBLE.reason), Recovered("x")], {}, None),
    # A neutral pod got as far as the quota, which is looked at last.
    (TROUBLE, FULL, [Rejected(1, TROUBLE.reason), Recovered("x")], {"a": "quota"}, None),
    # The namespace's.
    (FULL, FULL, [Returned(1, FULL.reason, "a")], {"a": "quota"}, None),
    (TROUBLE, TROUBLE, [Returned(1, TROUBLE.reason, "a")], {"a": "webhook"}, None),
    # The server's.
    (DOWN, None, [Returned(1, DOWN.reason, "a")], {}, "is down"),
    (TROUBLE, DOWN, [Returned(1, TROUBLE.reason, "a")], {}, "is down"),
    # It waits here: there is no room for it alone at this moment, or the server has too much to do.
    (FULL, DONE, [], {}, None),
    (BUSY, None, [], {}, None),
]


@pytest.mark.parametrize(("answer", "neutral", "said", "closed", "unavailable"), CASES)
def test_what_becomes_of_a_job_that_was_not_created(answer, neutral, said, closed, unavailable):
    world = World().submit(1)
    assert world.ask(1, answer, neutral=neutral) == said
    assert (world.room.closed, world.room.unavailable) == (closed, unavailable)
    assert world.machine.unsent == (0 if said else 1)
    assert world.machine.withdraw([1]) == (set() if said else {1})


def test_one_that_cannot_be_built_is_rejected():
    world = World().submit(1)
    assert world.step() == Create(1)
    world.machine.invalid(1, "no template", world.now)
    assert world.machine.take_events() == [Rejected(1, "no template"), Recovered("x")]


def test_what_only_has_no_room_goes_behind_the_others_and_is_tried_again_later():
    world = World().submit(1, 2)
    world.ask(1, FULL, neutral=DONE)
    assert world.room.takes == 249
    assert world.ask(2, DONE) == [Sent(2, "7")]
    assert world.step() == Wait(world.now + 1)
    world.now += 1
    world.ask(1, FULL, neutral=DONE)
    world.now += 1.5
    assert isinstance(world.step(), Wait)
    world.now += 0.5
    assert world.ask(1, DONE) == [Sent(1, "7")]


def test_the_name_of_another_dispatchs_pod_is_taken():
    """A pod_override may name a pod: there is one at a time."""
    world = World().with_pod().submit(2)
    assert world.step() == Create(2)
    assert not world.machine.built(2, pod(1), "m2", world.now)
    assert world.machine.take_events() == [Rejected(2, "Another pod has this name"), Recovered("x")]


# Lost answers


def test_one_whose_answer_was_lost_is_asked_for_again_and_not_withdrawn():
    world = World().submit(1)
    assert world.ask(1, TROUBLE, doubtful=True, neutral=DONE) == []
    assert world.machine.withdraw([1]) == set()
    assert world.machine.withdraw_all() == set()
    assert world.ask(1, DONE) == [Sent(1, "7")]


def test_one_whose_answer_was_lost_lets_the_others_go_first():
    world = World().submit(1, 2)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    assert world.steps() == [Create(2), Create(1)]


def test_one_that_may_be_there_is_not_given_up_for_what_would_be_refused_now():
    """Neither the server nor the template refuses what exists."""
    world = World().submit(1)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    assert world.ask(1, INVALID, doubtful=True) == []
    assert world.step() == Wait(world.now + 1)
    world.now += 1
    assert world.step() == Create(1)
    world.machine.invalid(1, "no template", world.now)
    assert world.machine.take_events() == []
    world.now += 2
    assert world.ask(1, DONE) == [Sent(1, "7")]


def test_a_watch_that_shows_it_spares_the_second_request():
    world = World().submit(1)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    assert world.see(1, Kind.PENDING) == [Sent(1, "7")]
    assert world.step() == Wait(inf)


@pytest.mark.parametrize("answer", [DONE, INVALID, TROUBLE, DOWN])
def test_news_of_a_watch_may_come_before_the_answer_whatever_that_is(answer):
    world = World().submit(1)
    world.build(1)
    assert world.see(1, Kind.PENDING) == [Sent(1, "7")]
    assert world.answer(1, answer, doubtful=answer is not DONE, neutral=answer) == []
    assert world.machine.unsent == 0
    assert world.see(1, Kind.SUCCEEDED) == [Ended(1, SUCCESS)]


def test_even_its_end_may_come_before_the_answer():
    world = World().submit(1)
    world.build(1)
    assert world.see(1, Kind.SUCCEEDED) == [Sent(1, "7"), Ended(1, SUCCESS)]
    assert world.answer(1, TROUBLE, doubtful=True, neutral=TROUBLE) == []
    assert world.room.unavailable is None
    assert world.step() == Wait(inf)


# Namespaces


def test_a_closed_namespace_returns_all_of_its_jobs_with_its_name():
    """By that they are held, however late it turns out that they belong there."""
    world = World().submit(1, 2, 3)
    assert world.steps() == [Create(1), Create(2), Create(3)]
    assert world.machine.built(1, pod(1), None, world.now)
    assert world.machine.built(2, pod(2), None, world.now)
    assert world.answer(1, FULL, neutral=FULL) == [Returned(1, "quota", "a")]
    assert not world.machine.built(3, pod(3), None, world.now)
    assert world.machine.take_events() == [Returned(3, "quota", "a")]
    assert world.answer(2, FULL, neutral=FULL) == [Returned(2, "quota", "a")]
    assert not world.submit(4).build(4)
    assert world.machine.take_events() == [Returned(4, "quota", "a")]


def test_jobs_of_a_closed_namespace_take_no_place_from_others():
    """Their namespace was not known when they were submitted, and they are as many as may be on their way."""
    world = World(most=3).submit(1)
    world.ask(1, FULL, neutral=FULL)
    world.submit(2, 3, 4)
    assert world.room.takes == 0
    for dispatch in (2, 3, 4):
        assert not world.build(dispatch)
        assert world.machine.take_events() == [Returned(dispatch, "quota", "a")]
    assert world.room.takes == 3
    assert world.submit(5).ask(5, DONE, "b") == [Sent(5, "7")]


def test_a_namespace_of_which_a_neutral_pod_tells_nothing_is_closed_by_the_second_job_that_finds_it_full():
    """One job's trouble is its own, however often it meets that."""
    world = World().submit(1)
    for _ in range(2):
        assert world.ask(1, FULL, neutral=INVALID) == []
        world.now += 1
    full = [Returned(1, "quota", "a"), Returned(2, "quota", "a")]
    assert world.submit(2).ask(2, FULL, neutral=INVALID) == full
    assert world.room.closed == {"a": "quota"}


def test_what_was_built_already_is_returned_when_its_namespace_is_closed():
    world = World().submit(1, 2)
    world.ask(1, FULL, neutral=DONE)
    world.now += 0.5
    assert world.ask(2, FULL, neutral=FULL) == [Returned(1, "quota", "a"), Returned(2, "quota", "a")]


def test_what_a_throttling_server_answers_late_does_not_wait_for_a_namespace_that_is_closed_by_then():
    """It waits for the server where its namespace is open, and where it is the one that tries that."""
    world = World().submit(1, 2)
    assert world.build(1)
    assert world.build(2)
    world.answer(1, FULL, neutral=FULL)
    assert world.answer(2, BUSY) == [Returned(2, "too many", "a")]
    world.now += 5
    assert world.submit(3).ask(3, BUSY) == []
    assert world.machine.withdraw([3]) == {3}


def test_a_closed_namespace_is_tried_by_one_that_may_be_there_already():
    """It is neither returned nor asked for before the namespace is due."""
    world = World().submit(1, 2)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    world.ask(2, FULL, neutral=FULL)
    assert world.step() == Wait(world.now + 5)
    world.now += 5
    assert world.ask(1, DONE) == [Sent(1, "7")]
    assert world.room.closed == {}


def test_of_several_that_may_be_in_a_closed_namespace_one_tries_it():
    """The others wait for what comes of that."""
    world = World().submit(1, 2, 3)
    for dispatch in (1, 2):
        world.ask(dispatch, TROUBLE, doubtful=True, neutral=DONE)
    world.ask(3, FULL, neutral=FULL)
    world.now += 5
    assert world.steps() == [Create(1)]


def test_a_closed_namespace_for_which_nothing_waits_is_asked_about():
    world = World().submit(1)
    world.ask(1, FULL, neutral=FULL)
    assert world.step() == Wait(world.now + 5)
    world.now += 5
    assert world.steps() == [AskNamespace("a")]
    world.machine.namespace_answered("a", FULL, world.now)
    assert world.step() == Wait(world.now + 10)
    world.now += 10
    assert world.steps() == [AskNamespace("a")]
    world.machine.namespace_answered("a", DONE, world.now)
    assert world.room.closed == {}


def test_a_closed_namespace_of_which_a_neutral_pod_tells_nothing_is_tried_with_a_job_and_rests_longer():
    """As where the neutral pod is refused for what it is: jobs would try a full namespace every five seconds."""
    world = World().submit(1)
    world.ask(1, FULL, neutral=FULL)
    for job, delay in ((2, 10), (3, 20), (4, 40)):
        world.now = world.step().until
        assert world.steps() == [AskNamespace("a")]
        world.machine.namespace_answered("a", INVALID, world.now)
        assert world.room.closed == {}
        assert world.submit(job).ask(job, FULL, neutral=FULL) == [Returned(job, "quota", "a")]
        assert world.step() == Wait(world.now + delay)


@pytest.mark.parametrize(
    ("answer", "neutral", "closed"),
    [
        # A neutral pod could be created.
        (TROUBLE, DONE, {}),
        # Neither tells anything of the namespace: it stays closed, and may be tried again.
        (TROUBLE, INVALID, {"a": "quota"}),
        (INVALID, None, {"a": "quota"}),
    ],
)
def test_what_the_one_try_tells_of_a_closed_namespace(answer, neutral, closed):
    world = World().submit(1)
    world.ask(1, FULL, neutral=FULL)
    world.now += 5
    world.submit(2, 3).ask(2, answer, neutral=neutral)
    assert world.room.closed == closed
    assert world.ask(3, DONE)[-1] == Sent(3, "7")


def test_a_try_that_a_watch_shows_first_leaves_the_namespace_to_the_next():
    world = World().submit(1)
    world.ask(1, FULL, neutral=FULL)
    world.now += 5
    world.submit(2, 3).build(2)
    world.see(2, Kind.SUCCEEDED)
    world.answer(2, TROUBLE, doubtful=True, neutral=TROUBLE)
    assert world.ask(3, DONE) == [Sent(3, "7")]


@pytest.mark.parametrize(
    ("a", "b", "takes", "unavailable"),
    [
        (FULL, None, 250, None),
        (FULL, FULL, 0, None),
        (TROUBLE, FULL, 0, "webhook"),
        (TROUBLE, TROUBLE, 250, "webhook"),
    ],
)
def test_what_closed_namespaces_mean_for_the_backend(a, b, takes, unavailable):
    world = World()
    for name, answer in (("a", a), ("b", b)):
        if answer:
            world.machine.lanes.close(name, answer, world.now)
    assert (world.room.takes, world.room.unavailable) == (takes, unavailable)


def test_nothing_is_asked_for_where_nobody_would_see_it_end():
    """It is returned; one that may be there already waits, and is looked at now and then."""
    world = World().submit(1, 2)
    world.ask(1, TROUBLE, doubtful=True, neutral=DONE)
    world.unwatched["a"] = "no watch"
    assert not world.build(2)
    assert world.machine.take_events() == [Returned(2, "no watch", "a")]
    assert world.room.closed == {"a": "no watch"}
    assert world.step() == Wait(world.now + LOOK)
    world.unwatched.clear()
    assert world.ask(1, DONE) == [Sent(1, "7")]
