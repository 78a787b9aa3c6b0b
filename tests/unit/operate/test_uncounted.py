# SPDX-License-Identifier: Apache-2.0
"""Schedulers whose tasks no number of an answer has are named in each answer, with what they had."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.bridge import schedulers
from airflow_dispatch_provider.operate.forecast import forecast_of
from airflow_dispatch_provider.operate.running import first_of, running_of
from airflow_dispatch_provider.operate.status import status_of
from airflow_dispatch_provider.operate.uncounted import backlog_of, uncounted_of
from airflow_dispatch_provider.operate.waiting import waiting_of

from .documents import NOW, backend, document, reading


@pytest.fixture(autouse=True)
def _options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "dead_after", lambda: 30.0)
    monkeypatch.setattr(schedulers, "tidy_interval", lambda: 300.0)


SMALL = backend("small", used=2, ahead=1, held=4)
DEAD = document("3", written=NOW - 45, held=6, backends=[SMALL, backend("large")])


def after_a_crash(**left: int) -> Any:
    """Scheduler 3 has died, and 4 has just begun."""
    return reading(
        DEAD, document("4", backends=[backend("small")]), living={"4"}, unfinished=left or {"3": 9}
    )


def test_a_dead_scheduler_whose_tasks_nobody_has_taken_over():
    """Who, how many, what it had and where, and until when that lasts."""
    (found,) = uncounted_of(after_a_crash())
    assert (found.scheduler, found.team) == ("3", None)
    assert (found.had, found.held) == ({"small": 3, "large": 0}, {"small": 4, "large": 0})
    assert found.words == (
        "Scheduler 3 on host3 has ended or died, and 9 of its tasks have not been taken over yet: they are not"
        " counted. When it last wrote, 45 s ago, 6 waited, small had 3. Airflow takes a scheduler for dead 30 s after"
        " its last heartbeat, and looks for such tasks when a scheduler starts and every 300 s."
    )


def test_every_answer_has_it():
    """None says that there is nothing without it."""
    now = after_a_crash()
    waiting = waiting_of(now, None, None, None)
    running = first_of(running_of(now, "small", None), 10)
    assert (sum(waiting.totals.values()), running.total) == (0, 0)
    answers = (status_of(now), waiting, running, forecast_of(now, "small", None))
    assert [[each.scheduler for each in answer.uncounted] for answer in answers] == [["3"]] * 4


def test_one_that_has_left_nothing_is_not_named():
    """All of its tasks have been taken over, or are over."""
    assert uncounted_of(after_a_crash(**{"8": 1})) == []


def test_the_number_of_all_teams_is_not_told_to_one():
    """Airflow's rows do not say whose they are."""
    now = reading(document("3", team="blue"), living=set(), unfinished={"3": 9})
    assert "and its tasks have not been taken over yet" in uncounted_of(now)[0].words


def test_one_that_lives_and_does_not_write():
    """Nobody takes over its tasks, and nobody knows how many they are."""
    now = reading(document("3", written=NOW - 90, held=6), document("4"))
    assert uncounted_of(now)[0].words == (
        "Scheduler 3 on host3 has not written its status for 90 s: what it has is not counted. When it last wrote,"
        " 90 s ago, 6 waited."
    )


def test_those_of_another_version_of_this_package():
    """Nobody here can read what they wrote, whether they live or have died."""
    now = reading(document("3", version=99), document("4", version=99), living={"4"}, unfinished={"3": 1})
    dead, living = uncounted_of(now)
    assert "and 1 of its tasks has not been taken over yet" in dead.words
    assert "When it last wrote" not in dead.words
    assert living.words.endswith("cannot be read here. What it has is not counted.")


def test_the_backlog_of_a_backend_has_what_nobody_has_taken_over():
    """Its workers are needed: tasks run there, and will again. Other teams' are not counted."""
    now = status_of(after_a_crash())
    assert (backlog_of(now, "small", None), backlog_of(now, "large", None)) == (7, 0)
    assert backlog_of(now, "gone", None) is backlog_of(now, "small", "blue") is None
