# SPDX-License-Identifier: Apache-2.0
"""Which namespaces are closed, and what that means for the backend."""

from __future__ import annotations

import math

import pytest

from airflow_dispatch_provider.engines.kubernetes import trouble
from airflow_dispatch_provider.engines.kubernetes.answers import Answer, Verdict
from airflow_dispatch_provider.engines.kubernetes.lanes import Lanes

FULL, TROUBLE = Answer(Verdict.FULL, "quota"), Answer(Verdict.TROUBLE, "webhook")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble.random, "uniform", lambda low, high: 1.0)


def closed(lanes: Lanes, **names: Answer) -> Lanes:
    for name, answer in names.items():
        lanes.close(name, answer)
    return lanes


@pytest.mark.parametrize(
    ("essential", "names", "full", "problem"),
    [
        # The only namespace is the backend.
        (["a"], {"a": FULL}, True, False),
        (["a"], {"a": TROUBLE}, False, True),
        # One of several is not.
        (["a", "b"], {"a": FULL}, False, False),
        (["a", "b"], {"a": TROUBLE}, False, False),
        (["a", "b"], {"a": FULL, "b": FULL}, True, False),
        (["a", "b"], {"a": FULL, "b": TROUBLE}, True, True),
        # Neither is one that only a task names; and where all are watched, nobody knows what there is.
        (["a"], {"c": FULL}, False, False),
        ([], {"a": FULL}, False, False),
    ],
)
def test_the_backend_is_closed_when_all_its_namespaces_are(essential, names, full, problem):
    lanes = closed(Lanes(essential), **names)
    assert (lanes.full is not None, lanes.problem is not None) == (full, problem)


def test_a_namespace_that_cannot_be_watched_is_closed_and_no_other_one():
    """Nobody would see what becomes of its pods: the backend's role there may have been taken away."""
    why: dict[str, str] = {"a": "forbidden"}
    lanes = Lanes(["a", "b"], why.get)
    assert (lanes.is_open("a"), lanes.is_open("b"), lanes.problem) == (False, True, None)
    why["b"] = "forbidden, too"
    assert lanes.problem == "forbidden"
    why.clear()
    assert lanes.claim("a")


def test_a_closed_one_is_tried_once_when_it_is_due():
    """And not again until that try is answered."""
    lanes = closed(Lanes(["a"]), a=TROUBLE)
    assert not lanes.claim("a")
    lanes._lanes["a"].due = -math.inf
    assert list(lanes.due()) == ["a"]
    assert lanes.claim("a")
    assert not lanes.claim("a")
    assert list(lanes.due()) == []
    lanes.release("a")
    assert lanes.claim("a")


def test_one_that_is_open_again_takes_all():
    lanes = closed(Lanes(["a"]), a=TROUBLE)
    lanes.open("a")
    assert lanes.claim("a")
    assert lanes.claim("a")
    assert lanes.next_due() == math.inf


def test_different_jobs_are_counted_until_a_pod_is_created():
    """The same job twice is one."""
    lanes = Lanes(["a"])
    assert [lanes.strike("a", Verdict.FULL, key) for key in ("x", "x", "y")] == [False, False, True]
    assert not lanes.strike("a", Verdict.TROUBLE, "z")
    lanes.open("a")
    assert not lanes.strike("a", Verdict.FULL, "x")


def test_what_it_is_closed_for_may_change():
    """The quota is looked at only when the webhook answers again."""
    lanes = closed(closed(Lanes(["a"]), a=TROUBLE), a=FULL)
    assert (lanes.full is not None, lanes.problem) == (True, None)
