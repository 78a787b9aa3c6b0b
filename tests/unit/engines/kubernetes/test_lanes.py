# SPDX-License-Identifier: Apache-2.0
"""Namespaces that take no pods at the moment: which, why, and when each is tried again."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes._lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Verdict

FULL, TROUBLE = Answer(Verdict.FULL, "quota"), Answer(Verdict.TROUBLE, "webhook")


@pytest.mark.parametrize(
    ("met", "others"),
    [
        # The same of two different jobs is more than one job's own trouble.
        ([("a", Verdict.TROUBLE, 1)], [False]),
        ([("a", Verdict.TROUBLE, 1), ("a", Verdict.TROUBLE, 1)], [False, False]),
        ([("a", Verdict.TROUBLE, 1), ("a", Verdict.TROUBLE, 2)], [False, True]),
        ([("a", Verdict.TROUBLE, 1), ("a", Verdict.FULL, 2)], [False, False]),
        ([("a", Verdict.TROUBLE, 1), ("b", Verdict.TROUBLE, 2)], [False, False]),
    ],
)
def test_whether_a_different_job_has_met_the_same(met: Any, others: list[bool]) -> None:
    """The same job, another trouble and another namespace do not count."""
    lanes = Lanes()
    assert [lanes.strike(*each) for each in met] == others
    assert lanes.closed() == {}
    lanes.open("a")
    assert not lanes.strike("a", Verdict.TROUBLE, 3)


@pytest.mark.parametrize(
    ("answer", "delays"), [(FULL, [5, 10, 20, 40, 60, 60]), (TROUBLE, [0.5, 1, 2, 4, 8, 16, 30, 30])]
)
def test_a_closed_one_is_tried_later_each_time(answer: Answer, delays: list[float]) -> None:
    """By one request at a time."""
    lanes, now = Lanes(), 100.0
    for delay in delays:
        lanes.close("a", answer, now)
        assert lanes.next_due() == now + delay
        assert not lanes.claim("a", now + delay - 0.1)
        assert list(lanes.due(now + delay - 0.1)) == []
        now += delay
        assert list(lanes.due(now)) == ["a"]
        assert lanes.claim("a", now)
        assert not lanes.claim("a", now)
        assert lanes.next_due() == inf
    assert lanes.closed() == {"a": answer.reason}


def test_another_reason_begins_with_the_shortest_delay() -> None:
    """It is shown with the last one."""
    lanes = Lanes()
    for now, answer, due in ((0, FULL, 5), (5, FULL, 15), (15, TROUBLE, 15.5), (16, FULL, 21)):
        lanes.close("a", answer, now)
        assert (lanes.next_due(), lanes.closed()) == (due, {"a": answer.reason})


def test_chance_spreads_the_tries() -> None:
    """Over the upper half of the delay."""
    lanes = Lanes(chance=lambda: 0.0)
    lanes.close("a", FULL, 0)
    assert lanes.next_due() == 2.5


@pytest.mark.parametrize(("retry_after", "due"), [(None, 5), (2.0, 5), (30.0, 30)])
def test_it_is_left_alone_for_as_long_as_the_server_wants(retry_after: float | None, due: float) -> None:
    """For the usual delay at least."""
    lanes = Lanes()
    lanes.close("a", Answer(Verdict.FULL, "quota", retry_after), 0)
    assert lanes.next_due() == due


def test_a_try_that_tells_nothing_leaves_it_to_the_next() -> None:
    """One that nobody tries keeps its delay, and an open one stays open."""
    lanes = Lanes()
    lanes.release("a", 0)
    assert lanes.is_open("a", 0)
    lanes.close("a", FULL, 0)
    lanes.release("a", 1)
    assert lanes.next_due() == 5
    lanes.claim("a", 5)
    lanes.release("a", 6)
    assert lanes.next_due() == 6


def test_an_open_one_is_anybodys() -> None:
    """Also one that is not known yet, or was struck."""
    lanes = Lanes()
    lanes.strike("a", Verdict.TROUBLE, 1)
    for name in ("a", "b"):
        assert (lanes.claim(name, 0), lanes.claim(name, 0)) == (True, True)
        assert lanes.why_closed(name) == ""
    assert lanes.is_open(None, 0)
    lanes.close("a", FULL, 0)
    lanes.open("a")
    assert (lanes.is_open("a", 0), lanes.closed(), lanes.why_closed("a")) == (True, {}, "")


@pytest.mark.parametrize(
    ("essential", "closed", "unwatched", "problem", "full"),
    [
        ("", {"a": FULL}, {}, None, None),
        ("ab", {}, {}, None, None),
        ("ab", {"a": TROUBLE}, {}, None, None),
        ("ab", {"a": FULL, "b": FULL}, {}, None, "quota"),
        ("ab", {"a": FULL, "b": TROUBLE}, {}, "webhook", "quota"),
        ("ab", {"a": TROUBLE, "b": TROUBLE}, {}, "webhook", None),
        ("ab", {"c": TROUBLE}, {}, None, None),
        # Nobody would see what becomes of pods there.
        ("ab", {}, {"a": "no watch"}, None, None),
        ("ab", {}, {"a": "no watch", "b": "none"}, "no watch", None),
        ("ab", {"b": FULL}, {"a": "no watch"}, "no watch", "quota"),
    ],
)
def test_what_they_mean_for_the_backend(
    essential: str,
    closed: dict[str, Answer],
    unwatched: dict[str, str],
    problem: str | None,
    full: str | None,
) -> None:
    """It is unusable or full only where no essential one takes a pod."""
    lanes = Lanes(essential, unwatched.get)
    for name, answer in closed.items():
        lanes.close(name, answer, 0)
    assert (lanes.problem, lanes.full) == (problem, full)
    shown = {name: reason for name, reason in unwatched.items() if name in essential}
    assert lanes.reasons() == {**{name: answer.reason for name, answer in closed.items()}, **shown}
    assert [lanes.is_open(name, 100) for name in unwatched] == [False] * len(unwatched)
    for name in "abc":
        answer = closed.get(name)
        assert lanes.why_closed(name) == (answer.reason if answer else unwatched.get(name, ""))
