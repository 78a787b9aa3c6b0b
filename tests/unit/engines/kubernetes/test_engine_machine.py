# SPDX-License-Identifier: Apache-2.0
"""The machine of the Kubernetes engine: for each thing that may come of a step, what it says and what it does next."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes._lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes._machine import LOOK, Machine
from airflow_dispatch_provider.engines.kubernetes._pods import OVER_GRACE, Finish, Pods, Remove, Seen
from airflow_dispatch_provider.engines.kubernetes._seen import Kind, Observation, PodName
from airflow_dispatch_provider.engines.kubernetes._steps import AskNamespace, AskServer, Create, Wait
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
    Stalled,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome

DONE = Answer(Verdict.DONE, "")
FULL, TROUBLE = Answer(Verdict.FULL, "quota"), Answer(Verdict.TROUBLE, "webhook")
DOWN = Answer(Verdict.TROUBLE, "is down", scope=Scope.SERVER)
BUSY = Answer(Verdict.THROTTLED, "too many", scope=Scope.SERVER)
TOO_LARGE = Answer(Verdict.FULL, "more than the quota", scope=Scope.JOB)
INVALID = Answer(Verdict.INVALID, "no such image policy")
FAILED, SUCCESS = Outcome.FAILED, Outcome.SUCCESS


class World:
    """A machine for the namespaces ``a`` and ``b``, and the time."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.unwatched: dict[str, str] = {}
        self.machine = Machine("x", Lanes(("a", "b"), self.unwatched.get), Pods("7"), **options)

    def submit(self, *dispatches: int) -> World:
        self.machine.submit((number, f"key {number}") for number in dispatches)
        return self

    def step(self) -> Any:
        return self.machine.next(self.now)

    def steps(self) -> list[Any]:
        """All that may be done at this moment."""
        found = []
        while not isinstance(step := self.step(), Wait):
            found.append(step)
        return found

    def build(self, dispatch: int, namespace: str = "a") -> bool:
        assert self.step() == Create(dispatch)
        return self.machine.built(dispatch, pod(dispatch, namespace), f"m{dispatch}", self.now)

    def answer(self, dispatch: int, answer: Answer, **more: Any) -> list[Any]:
        self.machine.answered(dispatch, answer, self.now, **more)
        return self.machine.take_events()

    def ask(self, dispatch: int, answer: Answer, namespace: str = "a", **more: Any) -> list[Any]:
        """Have it built and answered; returns what is said."""
        assert self.build(dispatch, namespace)
        return self.answer(dispatch, answer, **more)

    def with_pod(self, dispatch: int = 1) -> World:
        assert self.submit(dispatch).ask(dispatch, DONE) == [Sent(dispatch, "7")]
        return self

    def see(self, dispatch: int, kind: Kind, **more: Any) -> list[Any]:
        self.machine.see(seen(dispatch, kind, **more))
        return self.machine.take_events()

    def revoke(self, dispatch: int, over: bool = False) -> list[Any]:
        self.machine.revoke(dispatch, self.now, over=over)
        return self.machine.take_events()

    @property
    def room(self) -> Any:
        return self.machine.room(10)

    def orders(self) -> list[Any]:
        return self.machine.take_orders()


def pod(dispatch: int, namespace: str = "a") -> PodName:
    return PodName(namespace, f"pod-{dispatch}")


def seen(
    dispatch: int, kind: Kind, started: bool = False, reason: str = "why", lives_on: bool = False, **more: Any
) -> Seen:
    observation = Observation(kind, reason, started, lives_on=lives_on)
    return Seen(pod(dispatch), observation, **{"mark": f"m{dispatch}", "version": "5", **more})


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
    assert world.orders() == [Remove(pod(1))]
    assert world.see(1, Kind.REVOKED) == []
    assert world.see(1, Kind.REVOKED, gone=True, never_started=never) == [end]
    assert world.see(1, Kind.REVOKED, gone=True) == []


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
    assert world.orders() == [Remove(pod(1))]


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


@pytest.mark.parametrize(("over", "orders"), [(False, [Remove(pod(1))]), (True, [])])
def test_revoked_while_it_is_looked_for_it_is_stopped_when_it_is_found(over, orders):
    world = World()
    world.machine.seek([1])
    assert world.revoke(1, over=over) == []
    assert found(world, 1) == []
    assert world.orders() == orders


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
