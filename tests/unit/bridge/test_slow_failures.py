# SPDX-License-Identifier: Apache-2.0
"""Slow failures are not tried again at once."""

from __future__ import annotations

import threading

import pytest

from airflow_dispatch_provider.bridge.slow_failures import SlowFailures
from tests.support import wait_until


@pytest.mark.parametrize(("took", "rests"), [(0.4, 0.0), (1.0, 19.0), (10.0, 190.0)])
def test_the_longer_it_took_the_longer_it_is_left_alone(took, rests):
    """A command that hangs for 10 s at every retry would take a sixth of the scheduler's thread."""
    now = [0.0]
    slow = SlowFailures(lambda: now[0])
    assert slow.may_try("it")
    with slow.timed("it"):
        now[0] += took
    assert slow.may_try("another one")
    assert slow.may_try("it") is not (rests > 0)
    now[0] += rests
    assert slow.may_try("it")


def test_it_is_asked_for_beside_whoever_wants_it():
    """At most once at a time, and not before it may be tried again."""
    now, asked, go = [0.0], [], threading.Event()
    slow = SlowFailures(lambda: now[0])

    def ask() -> None:
        asked.append(1)
        go.wait(10)

    assert not slow.again("it", ask)
    with slow.timed("it"):
        now[0] += 1.0
    assert slow.again("it", ask)
    assert asked == []
    now[0] += 19.0
    for _ in range(3):
        assert slow.again("it", ask)
    assert wait_until(lambda: asked == [1])
    go.set()
    assert wait_until(lambda: slow.again("it", ask) is False)
