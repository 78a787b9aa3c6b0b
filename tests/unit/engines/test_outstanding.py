# SPDX-License-Identifier: Apache-2.0
"""Dispatches of one key, which their order alone tells apart."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines._outstanding import Out, Outstanding


@pytest.fixture
def three() -> tuple[Outstanding, list[Out]]:
    """Dispatches 1, 2 and 3 of one key, and one of another key between them."""
    outstanding, outs = Outstanding(), [Out(number, "x", "workload") for number in (1, 2, 3)]
    for out in (outs[0], outs[1], Out(9, "y", "workload"), outs[2]):
        outstanding.enter(out)
    return outstanding, outs


@pytest.mark.parametrize(
    ("forgotten", "oldest"),
    [([0], 1), ([1], 0), ([2], 0), ([0, 1], 2), ([1, 0], 2), ([2, 0], 1)],
)
def test_the_oldest_that_is_left_counts(three, forgotten, oldest):
    """Whichever of them has ended first."""
    outstanding, outs = three
    for number in forgotten:
        outstanding.forget(outs[number])
    assert outstanding.oldest("x") is outs[oldest]


def test_nothing_is_left_of_what_was_forgotten(three):
    """Neither by dispatch nor by key, nor among what may still be unsent."""
    outstanding, outs = three
    for out in outs:
        outstanding.forget(out)
    assert outstanding.oldest("x") is None
    assert (list(outstanding.by_dispatch), list(outstanding.unsent)) == ([9], [9])


def test_what_was_adopted_has_been_sent():
    """It is not looked for in the executor's own queues."""
    outstanding, out = Outstanding(), Out(1, "x", None, "ti")
    out.sent = True
    outstanding.enter(out)
    assert (list(outstanding.by_dispatch), list(outstanding.unsent)) == ([1], [])
