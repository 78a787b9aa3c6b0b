# SPDX-License-Identifier: Apache-2.0
"""News of processes, and their meaning for dispatches: truth tables."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.engines.local import messages
from airflow_dispatch_provider.engines.local._machine import (
    KILL_GRACE,
    NOT_BEGUN,
    OVER_GRACE,
    UNSEEN,
    Machine,
)
from airflow_dispatch_provider.engines.local.messages import Gone, Kill, NotStarted, Started
from airflow_dispatch_provider.lifecycle.events import (
    EXECUTION_API,
    Began,
    Broken,
    Ended,
    Recovered,
    Returned,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome

TASK, OTHER = True, False
STARTED, BEGAN = Started(1, 4000, 5.0), messages.Began(1)
SUCCESS, FAILED = Outcome.SUCCESS, Outcome.FAILED
KILLED = "The supervising process was ended by SIGKILL."


def ended(status: int = 1, began: bool | None = False, error: str = "why", **fields: Any) -> messages.Ended:
    return messages.Ended(1, status, error, began=began, **fields)


def machine(*keys: str, is_task: bool = True) -> Machine:
    made = Machine("x")
    for number, key in enumerate(keys or ["a"], 1):
        made.enter(number, key, is_task=is_task)
    return made


@pytest.mark.parametrize(
    ("is_task", "happened", "expected"),
    [
        # a process was forked: it may ask for leave to start at any moment
        (TASK, [STARTED], Sent(1)),
        (TASK, [BEGAN], Began(1)),
        (OTHER, [BEGAN], Began(1)),
        # nothing was forked
        (TASK, [NotStarted(1, "no more processes")], Returned(1, "no more processes")),
        (OTHER, [NotStarted(1, "no more processes")], Returned(1, "no more processes")),
        # run to its end
        (TASK, [BEGAN, ended(0, True, "")], Ended(1, SUCCESS, True)),
        (OTHER, [BEGAN, ended(0, True, "")], Ended(1, SUCCESS, True)),
        # killed, or failed by itself: before it asked, when it had asked, when it had begun
        (TASK, [ended(-9, False, "")], Ended(1, FAILED, False, KILLED)),
        (TASK, [ended(-9, None, "")], Ended(1, FAILED, None, KILLED, nothing_ran=True)),
        (TASK, [BEGAN, ended(-9, True, "")], Ended(1, FAILED, True, KILLED)),
        (TASK, [ended(1, False)], Ended(1, FAILED, False, "why")),
        (TASK, [BEGAN, ended(1, True)], Ended(1, FAILED, True, "why")),
        (OTHER, [ended(1, False)], Ended(1, FAILED, False, "why")),
        (OTHER, [BEGAN, ended(1, True)], Ended(1, FAILED, True, "why")),
        # refused without an error, as Airflow 3.4 does where the task was cleared
        (TASK, [ended(0, None, "")], Ended(1, FAILED, None, NOT_BEGUN)),
        # an end that nobody saw: the database knows about a task, nothing about the others
        (TASK, [Gone(1)], Ended(1, FAILED, None, UNSEEN)),
        (TASK, [BEGAN, Gone(1)], Ended(1, SUCCESS, True, UNSEEN)),
        (OTHER, [Gone(1)], Ended(1, FAILED, None, UNSEEN)),
        (OTHER, [BEGAN, Gone(1)], Ended(1, FAILED, True, UNSEEN)),
    ],
)
def test_each_end_has_one_meaning(is_task: bool, happened: list[Any], expected: Any) -> None:
    """Whether it had begun is said only where it is known."""
    said = machine(is_task=is_task).handle(*happened)
    assert repr(said[-1]) == repr(expected)  # named tuples of two types may be equal


def test_news_of_what_has_ended_mean_nothing() -> None:
    """A dispatch has one end; its number is never given again."""
    one = machine()
    one.handle(ended())
    assert one.handle(STARTED, BEGAN, ended(), Gone(1)) == []
    assert len(one) == 0


def test_two_dispatches_of_one_key_have_an_end_each() -> None:
    """A task that deferred comes back before the process of its first half has ended."""
    two = machine("a", "a")
    assert two.handle(messages.Ended(2, 0, began=True)) == [Ended(2, SUCCESS, True)]
    assert list(two) == [1]


class TestExecutionApi:
    AWAY = ended(unanswered=True, began=None)
    FAILING = ended(unanswered=True, failing=True, began=None)

    def of(self, number: int, event: messages.Ended) -> messages.Ended:
        return messages.Ended(number, event.status, event.error, event.unanswered, event.failing, event.began)

    def test_a_server_that_answers_nobody_is_broken_before_the_end_is_told(self) -> None:
        """So that this end is not counted against its job."""
        told = [Broken(EXECUTION_API, "why", "x"), Ended(1, FAILED, None, "why", nothing_ran=True)]
        assert repr(machine().handle(self.AWAY)) == repr(told)

    def test_an_error_for_one_task_is_that_tasks_own(self) -> None:
        """However often it meets it."""
        x = machine("a", "a", "a")
        events = x.handle(*(self.of(number, self.FAILING) for number in (1, 2, 3)))
        assert [type(event) for event in events] == [Ended, Ended, Ended]

    def test_the_next_try_of_a_task_is_no_different_task(self) -> None:
        """Its key is another one."""
        x = Machine("x")
        for number, key in ((1, "try 1"), (2, "try 2")):
            x.enter(number, key, is_task=True, task="a")
        events = x.handle(self.FAILING, self.of(2, self.FAILING))
        assert [type(event) for event in events] == [Ended, Ended]

    def test_an_error_that_a_different_task_meets_too_is_the_servers(self) -> None:
        x = machine("a", "b")
        events = x.handle(self.FAILING, self.of(2, self.FAILING))
        assert [type(event) for event in events] == [Ended, Broken, Ended]

    def test_a_beginning_in_between_clears_the_server(self) -> None:
        x = machine("a", "b", "c")
        events = x.handle(self.FAILING, messages.Began(3), self.of(2, self.FAILING))
        assert [type(event) for event in events] == [Ended, Began, Ended]

    def test_a_beginning_is_recovery(self) -> None:
        """Said once."""
        x = machine("a", "b", "c")
        x.handle(self.AWAY)
        assert repr(x.handle(messages.Began(2))) == repr([Began(2), Recovered(EXECUTION_API)])
        assert repr(x.handle(messages.Began(3))) == repr([Began(3)])

    def test_a_callback_that_begins_is_no_recovery(self) -> None:
        """It has asked nobody."""
        x = machine("a")
        x.enter(2, "b", is_task=False)
        x.handle(self.AWAY)
        assert repr(x.handle(messages.Began(2))) == repr([Began(2)])

    @pytest.mark.parametrize(
        ("is_task", "event"),
        [
            # refused
            (TASK, ended(1, False)),
            # what the user's code of a callback could not reach may be any server
            (OTHER, ended(unanswered=True, began=True)),
            # it had been answered
            (TASK, ended(unanswered=True, began=True)),
        ],
    )
    def test_other_ends_say_nothing_of_it(self, is_task: bool, event: messages.Ended) -> None:
        assert [type(each) for each in machine(is_task=is_task).handle(event)] == [Ended]


@pytest.mark.parametrize(
    ("begun", "over", "unheard", "at_once", "later"),
    [
        # not begun: a process that is about to ask must not get to it
        (False, False, False, [Kill(1, 0.0, True)], []),
        (False, False, True, [Kill(1, 0.0, True)], []),
        (False, True, False, [Kill(1, 0.0, True)], []),
        # begun: its operator's on_kill runs
        (True, False, False, [Kill(1, KILL_GRACE)], []),
        (True, False, True, [Kill(1, KILL_GRACE)], []),
        # over in Airflow: it may be writing its log
        (True, True, False, [], [Kill(1, KILL_GRACE)]),
        (True, True, True, [], [Kill(1, KILL_GRACE)]),
        # over, and it may have begun unheard
        (False, True, True, [], [Kill(1, KILL_GRACE, True)]),
    ],
)
def test_how_a_process_is_stopped(
    begun: bool, over: bool, unheard: bool, at_once: list[Kill], later: list[Kill]
) -> None:
    """By whether it has begun, and whether Airflow is done with it."""
    x = Machine("x")
    x.enter(1, "a", is_task=True, begun=begun)
    assert x.revoke(1, 100.0, over=over, unheard=unheard) == at_once
    assert x.due(100.0 + OVER_GRACE - 0.1) == []
    assert x.due(100.0 + OVER_GRACE) == later
    assert x.due(100.0 + 10 * OVER_GRACE) == []


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_had_not_begun_is_ended_only_if_it_has_not_since(begun: bool) -> None:
    """Its task may have been queued again; what had begun before is over."""
    x = Machine("x")
    x.adopt(1, "a", 4000, begun=begun)
    x.revoke(1, 100.0, over=True, unheard=True)
    assert x.due(100.0 + OVER_GRACE) == [Kill(1, KILL_GRACE, unless_begun=not begun)]
    assert x.due(1e9) == []


def test_what_ends_in_its_time_is_not_killed() -> None:
    x = machine()
    x.handle(BEGAN)
    x.revoke(1, 100.0, over=True, unheard=False)
    x.handle(ended(0, True, ""))
    assert x.due(1000.0) == []


class TestAdoption:
    """A process that is found has one dispatch: the last for which it was found."""

    def test_it_is_not_ended_for_an_earlier_dispatch(self) -> None:
        """That one was let go before the process began, which it has done since."""
        x = Machine("x")
        assert x.adopt(1, "a", 4000, begun=False) == []
        x.revoke(1, 100.0, over=True, unheard=True)
        assert x.adopt(2, "a", 4000, begun=True) == [Unknown(1)]
        assert x.revoke(1, 100.0, over=False, unheard=True) == []
        assert x.due(1e9) == []
        assert repr(x.handle(Gone(2))) == repr([Ended(2, SUCCESS, True, UNSEEN)])

    def test_of_its_own(self) -> None:
        """It was started here, and has been another scheduler's meanwhile; that it began was seen here."""
        x = machine()
        x.handle(STARTED, BEGAN)
        x.revoke(1, 100.0, over=True, unheard=False)
        assert x.adopt(2, "a", STARTED.pid, begun=False) == [Unknown(1)]
        assert (list(x), x.due(1e9)) == ([2], [])
        assert x.revoke(2, 200.0, over=False, unheard=True) == [Kill(2, KILL_GRACE)]

    @pytest.mark.parametrize(("key", "pid"), [("a", 4001), ("b", STARTED.pid)])
    def test_another_process_is_ended_as_before(self, key: str, pid: int) -> None:
        """Also where its pid was given to the process of another task since, and its end is not known yet."""
        x = machine()
        x.handle(STARTED, BEGAN)
        x.revoke(1, 100.0, over=True, unheard=False)
        assert x.adopt(2, key, pid, begun=True) == []
        assert x.due(1e9) == [Kill(1, KILL_GRACE)]

    def test_one_that_is_found_twice_for_the_same_dispatch(self) -> None:
        x = Machine("x")
        assert x.adopt(1, "a", 4000, begun=False) == x.adopt(1, "a", 4000, begun=False) == []
        assert list(x) == [1]


def test_a_number_that_it_does_not_know_is_no_error() -> None:
    assert Machine("x").revoke(7, 0.0, over=False, unheard=False) == []
