# SPDX-License-Identifier: Apache-2.0
"""The truth table of ``choose``, one row a case, and the words that users read."""

from __future__ import annotations

from math import inf

import pytest

from airflow_dispatch_provider.routing.decide import choose
from airflow_dispatch_provider.routing.model import (
    EXECUTE_CALLBACK,
    EXECUTE_TASK,
    BackendView,
    Target,
)
from airflow_dispatch_provider.routing.reasons import Reason

FREE, FULL = BackendView(1), BackendView(0)
CORDONED = BackendView(5, blocked=Reason.CORDONED)
OPEN = BackendView(5, blocked=Reason.CIRCUIT_OPEN)
CALLBACKS = BackendView(5, kinds=frozenset({EXECUTE_CALLBACK}))
NOW, LATER, NEVER = 0.0, 30.0, inf

# fmt: off
TABLE = [
    # id                             views                     after  waited  taken   reason
    ("first has a slot",             [FREE, FREE],             NOW,   0,      0,      Reason.FIRST_CHOICE),
    ("only one, has a slot",         [FREE],                   NOW,   0,      0,      Reason.FIRST_CHOICE),
    ("first full, at once",          [FULL, FREE],             NOW,   0,      1,      Reason.OVERFLOW),
    ("first full, too early",        [FULL, FREE],             LATER, 29.9,   None,   Reason.WAITS_OVERFLOW),
    ("first full, just in time",     [FULL, FREE],             LATER, 30.0,   1,      Reason.OVERFLOW),
    ("first full, never",            [FULL, FREE],             NEVER, 1e9,    None,   Reason.WAITS_FULL),
    ("waited, first has a slot",     [FREE, FREE],             LATER, 99,     0,      Reason.FIRST_CHOICE),
    ("two full, third free",         [FULL, FULL, FREE],       NOW,   0,      2,      Reason.OVERFLOW),
    ("all full",                     [FULL, FULL],             NOW,   0,      None,   Reason.WAITS_FULL),
    ("all full, may overflow later", [FULL, FULL],             LATER, 0,      None,   Reason.WAITS_OVERFLOW),
    ("only one, full",               [FULL],                   LATER, 0,      None,   Reason.WAITS_FULL),
    ("nothing usable to overflow to", [FULL, OPEN, CALLBACKS], LATER, 0,      None,   Reason.WAITS_FULL),
    ("first cordoned",               [CORDONED, FREE],         NOW,   0,      1,      Reason.FAILOVER),
    ("failover does not wait",       [OPEN, FREE],             LATER, 0,      1,      Reason.FAILOVER),
    ("failover even with never",     [OPEN, FREE],             NEVER, 0,      1,      Reason.FAILOVER),
    ("all blocked",                  [OPEN, CORDONED],         NOW,   0,      None,   Reason.WAITS_BLOCKED),
    ("blocked, then full",           [OPEN, FULL],             NOW,   0,      None,   Reason.WAITS_FULL),
    ("full, then blocked",           [FULL, OPEN],             NOW,   0,      None,   Reason.WAITS_FULL),
    ("blocked, full, waited",        [OPEN, FULL, FREE],       LATER, 30,     2,      Reason.OVERFLOW),
    ("full, blocked, free",          [FULL, OPEN, FREE],       NOW,   0,      2,      Reason.OVERFLOW),
    ("blocked, full, too early",     [OPEN, FULL, FREE],       LATER, 0,      None,   Reason.WAITS_OVERFLOW),
    ("cannot run it, next can",      [CALLBACKS, FREE],        NEVER, 0,      1,      Reason.CAPABLE),
    ("cannot, blocked, free",        [CALLBACKS, OPEN, FREE],  NOW,   0,      2,      Reason.FAILOVER),
    ("blocked, cannot, free",        [OPEN, CALLBACKS, FREE],  NOW,   0,      2,      Reason.FAILOVER),
    ("cannot, full, free",           [CALLBACKS, FULL, FREE],  NOW,   0,      2,      Reason.OVERFLOW),
    ("nobody can run it",            [CALLBACKS, CALLBACKS],   NOW,   0,      None,   Reason.UNSUPPORTED),
    ("cannot, blocked",              [CALLBACKS, OPEN],        NOW,   0,      None,   Reason.WAITS_BLOCKED),
    ("not configured, next is",      [None, FREE],             NEVER, 0,      1,      Reason.FAILOVER),
    ("full, next not configured",    [FULL, None],             LATER, 0,      None,   Reason.WAITS_FULL),
    ("not configured at all",        [None],                   NOW,   0,      None,   Reason.WAITS_BLOCKED),
    ("no targets",                   [],                       NOW,   0,      None,   Reason.UNSUPPORTED),
]
# fmt: on


@pytest.mark.parametrize(
    ("views", "after", "waited", "taken", "reason"), [pytest.param(*r[1:], id=r[0]) for r in TABLE]
)
def test_truth_table(views, after, waited, taken, reason):
    """Which target is taken, or why the workload waits."""
    targets = [Target(backend=f"b{number}") for number in range(len(views))]
    backends = {f"b{number}": view for number, view in enumerate(views) if view is not None}
    free = {name: view.free for name, view in backends.items()}

    found = choose(targets, EXECUTE_TASK, waited, after, backends, free)

    assert found == (None if taken is None else targets[taken], reason)


def test_table_reaches_every_outcome():
    """No outcome of ``choose`` is without a row; the others are about backends, or about what one job has met."""
    others = {Reason.CORDONED, Reason.CIRCUIT_OPEN, Reason.UNKNOWN_BACKEND, Reason.REFUSED}
    assert {row[-1] for row in TABLE} == set(Reason) - others


def test_a_closed_lane_is_full_for_those_that_would_use_it():
    """The slots of the backend are free for all others."""
    targets = [Target(backend="a"), Target(backend="b")]
    views = {"a": BackendView(5, closed={"full": "no memory"}), "b": BackendView(5)}
    free = {"a": 5, "b": 5}

    def chosen(waited, after, *places):
        target, reason = choose(targets, EXECUTE_TASK, waited, after, views, free, places)
        return target and target.backend, reason

    assert chosen(0, NOW) == ("a", Reason.FIRST_CHOICE)
    assert chosen(0, NOW, "open", "full") == ("a", Reason.FIRST_CHOICE)
    assert chosen(0, NOW, "full", "full") == ("b", Reason.OVERFLOW)
    assert chosen(0, LATER, "full") == (None, Reason.WAITS_OVERFLOW)
    assert chosen(0, NEVER, "full") == (None, Reason.WAITS_FULL)


def test_slots_left_override_the_view():
    """Slots that a batch has used up count, not those that were free before it."""
    target = Target(backend="a")
    assert choose([target], EXECUTE_TASK, 0, 0, {"a": BackendView(5)}, {})[1] is Reason.WAITS_FULL


# fmt: off
WORDS = {
    "first_choice": "the route's first target has a free slot",
    "overflow": "a target before it is full and the route lets tasks overflow",
    "failover": "a target before it takes no work (failing or cordoned)",
    "refused": "a target before it could not take this task, or it came to nothing there",
    "capable": "a target before it cannot run this type of workload",
    "waits_full": "every target that it may use is full",
    "waits_overflow": "its target is full and it has not waited long enough to overflow",
    "waits_blocked": "no target that could run it takes work (failing or cordoned)",
    "unsupported": "no target of its route can run this type of workload",
    "cordoned": "the backend is cordoned",
    "circuit_open": "the backend failed and is left alone until its next retry",
    "unknown_backend": "the backend is not configured",
}
# fmt: on


def test_words():
    """The names and sentences that the event log and ``explain`` show."""
    assert {str(reason): reason.words for reason in Reason} == WORDS
