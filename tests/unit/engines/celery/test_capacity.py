# SPDX-License-Identifier: Apache-2.0
"""Counting workers, without any."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.celery.capacity import MISSES, Roll, concurrency_of


def test_nobody_is_known_at_first():
    """No worker is something else than workers without room."""
    assert Roll().slots is None


def test_workers_add_up():
    assert Roll().after({"a": 2, "b": 16}).slots == 18


def test_a_worker_that_answers_late_still_counts():
    """It is gone only after several silent rounds in a row."""
    roll = Roll().after({"a": 2, "b": 16})
    for _ in range(MISSES - 1):
        roll = roll.after({"a": 2})
    assert roll.slots == 18
    roll = roll.after({"b": 16})
    for _ in range(MISSES - 1):
        roll = roll.after({})
    assert roll.slots == 16
    assert roll.after({}).slots is None


def test_the_last_answer_counts():
    """A worker may grow and shrink."""
    assert Roll().after({"a": 2}).after({"a": 8}).slots == 8


@pytest.mark.parametrize(
    ("stats", "queues", "expected"),
    [
        ({"a": {"pool": {"max-concurrency": 4}}}, {"a": [{"name": "default"}]}, {"a": 4}),
        ({"a": {"pool": {"max-concurrency": 4}}}, {"a": []}, {}),
        ({"a": {"pool": {"max-concurrency": 4}}}, {}, {}),
        ({"a": {}}, {"a": [{"name": "default"}]}, {"a": 1}),
        ({"a": "error"}, {"a": [{"name": "default"}]}, {}),
    ],
    ids=[
        "one",
        "told to stop",
        "no answer about queues",
        "a pool that does not say",
        "a worker with an error",
    ],
)
def test_what_workers_say(stats, queues, expected):
    """Only those that listen to a queue run tasks."""
    assert concurrency_of(stats, queues) == expected
