# SPDX-License-Identifier: Apache-2.0
"""How many slots become free before the scheduler is back."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.local._turnover import Turnover


@pytest.mark.parametrize(
    ("ends", "now", "expected"),
    [
        ({}, 0.0, 0),
        ({0.0: 8}, 0.0, 4),
        ({0.0: 8}, 4.0, 4),
        ({0.0: 8}, 8.0, 2),
        ({0.0: 8}, 10.1, 0),
        ({0.0: 1}, 0.0, 0),
        ({0.0: 1, 4.0: 1}, 4.0, 1),
        ({0.0: 1, 3.0: 1, 6.0: 1}, 9.0, 1),
        ({0.0: 3, 1.0: 3, 2.0: 3, 3.0: 3}, 4.0, 6),
    ],
)
def test_as_many_as_end_in_two_seconds_at_the_pace_of_the_last_ten(ends, now, expected) -> None:
    """Rounded; one end is no pace, and several at the same moment count as those of four seconds."""
    turnover = Turnover()
    for moment, number in ends.items():
        turnover.ended(moment, number)
    turnover.ended(now, 0)
    assert turnover.expected(now) == expected
