# SPDX-License-Identifier: Apache-2.0
"""Ends of processes in words, and what is kept of a dispatch that is over in Airflow."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.local import messages
from airflow_dispatch_provider.engines.local._machine import (
    KILL_GRACE,
    OVER_GRACE,
    Machine,
    describe_status,
    end_of,
    end_unseen,
)
from airflow_dispatch_provider.engines.local.messages import Kill
from airflow_dispatch_provider.lifecycle.states import Outcome

SUCCESS, FAILED = Outcome.SUCCESS, Outcome.FAILED


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "The supervising process ended with exit code 0."),
        (3, "The supervising process ended with exit code 3."),
        (-9, "The supervising process was ended by SIGKILL."),
        (-1, "The supervising process was ended by SIGHUP."),
        (-99, "The supervising process was ended by signal 99."),
    ],
)
def test_an_exit_in_words(status: int, words: str) -> None:
    """Signals have their names, as far as they have any."""
    assert describe_status(status) == words


@pytest.mark.parametrize(
    ("is_task", "began", "nothing_ran"),
    [(True, None, True), (True, False, False), (True, True, False), (False, None, False)],
)
def test_what_asked_for_leave_and_heard_no_answer_has_run_nothing(
    is_task: bool, began: bool | None, nothing_ran: bool
) -> None:
    """Though its row may run by now."""
    found = end_of(messages.Ended(7, -9, began=began), is_task=is_task)
    assert (found.began, found.nothing_ran) == (began, nothing_ran)


@pytest.mark.parametrize(
    ("is_task", "begun", "how", "had_begun"),
    [
        (True, True, SUCCESS, True),
        (True, False, FAILED, None),
        (False, True, FAILED, True),
        (False, False, FAILED, None),
    ],
)
def test_an_end_that_nobody_saw(is_task: bool, begun: bool, how: Outcome, had_begun: bool | None) -> None:
    """Of a task that had begun, the database has the true state."""
    found = end_unseen(7, is_task=is_task, begun=begun)
    assert (found.dispatch, found.how, found.began) == (7, how, had_begun)
    assert found.reason
    assert not found.nothing_ran


@pytest.mark.parametrize(
    ("begun", "over", "unheard", "grace", "later"),
    [
        (False, False, False, 0.0, False),
        (True, False, False, KILL_GRACE, False),
        (False, True, False, 0.0, False),
        (True, True, False, None, True),
        (False, True, True, None, True),
        (False, False, True, 0.0, False),
    ],
)
def test_how_and_when_a_process_is_ended(
    begun: bool, over: bool, unheard: bool, grace: float | None, later: bool
) -> None:
    """One that may be writing its log has a while for that."""
    machine = Machine("x")
    machine.enter(1, "x", is_task=True, begun=begun)
    kills = machine.revoke(1, 100.0, over=over, unheard=unheard)
    assert kills == ([] if grace is None else [Kill(1, grace, unless_begun=not begun)])
    assert machine.due(100.0 + OVER_GRACE - 0.1) == []
    assert machine.due(100.0 + OVER_GRACE) == ([Kill(1, KILL_GRACE, unless_begun=not begun)] if later else [])
    assert machine.due(1e9) == []


def test_what_was_cleared_has_no_end() -> None:
    """Nobody waits for news of it, and nothing is due any more."""
    machine = Machine("x")
    machine.enter(1, "x", is_task=True, begun=True)
    machine.revoke(1, 100.0, over=True, unheard=False)
    assert (machine.key(1), list(machine), len(machine)) == ("x", [1], 1)
    machine.clear()
    assert (list(machine), machine.due(1e9)) == ([], [])
