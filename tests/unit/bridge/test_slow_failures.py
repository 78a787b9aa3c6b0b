# SPDX-License-Identifier: Apache-2.0
"""Slow failures are not tried again at once."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.bridge.slow_failures import SlowFailures


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
