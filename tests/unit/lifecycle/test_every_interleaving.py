# SPDX-License-Identifier: Apache-2.0
"""Two schedulers, two tasks, two backends: every order in which anything can happen.

In every state: no run completes twice, Airflow fails nothing and gives nothing another try, nothing is killed that
runs, slots are counted right, and from there everything can still succeed with nothing left behind.
"""

from __future__ import annotations

import pytest
from unit.lifecycle.search import search

pytestmark = [pytest.mark.once, pytest.mark.exhaustive]


@pytest.mark.parametrize(
    "faults",
    [
        {"crashes": 0},
        {"crashes": 1},
        {"crashes": 0, "reject": 2, "give_back": 1},
        {"crashes": 0, "api": 1, "stuck": 1},
        {"crashes": 0, "defer": 2},
        {"crashes": 1, "die": 1},
        {"crashes": 0, "vain": 1},
        {"crashes": 0, "recall": 1},
        {"crashes": 2, "recall": 1, "mute": 1, "done": 1},
    ],
    ids=lambda faults: " ".join(f"{name}={number}" for name, number in faults.items()),
)
def test_nothing_goes_wrong(faults):
    """Small cases, with other faults than crashes."""
    found = search(**faults)
    assert found.wrong is None, found.wrong
    assert found.states > 30


def test_two_crashes():
    """Either scheduler, or one twice, at any step, with or without its last rows of the event log."""
    found = search(crashes=2)
    assert found.wrong is None, found.wrong
    print(f"{found.states} states, {found.steps} steps")
    assert found.states > 50_000
