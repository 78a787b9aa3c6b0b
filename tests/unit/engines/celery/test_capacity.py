# SPDX-License-Identifier: Apache-2.0
"""Counting workers, without any."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from celery import Celery

from airflow_dispatch_provider.engines.celery.capacity import MISSES, Roll, WorkerCensus, concurrency_of


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


def test_that_there_is_no_worker_is_known_only_from_an_answer(monkeypatch):
    """Not before the first round, nor while the broker cannot be used, nor where one answers."""
    app = Celery(broker="redis://nowhere.invalid/0")
    census = WorkerCensus(app, timeout=1.0)
    workers = {}
    answers = SimpleNamespace(stats=lambda: workers, active_queues=lambda: {name: ["q"] for name in workers})
    monkeypatch.setattr(app.control, "inspect", lambda **_: answers)
    monkeypatch.setattr(census, "_connect", nullcontext)
    assert not census.has_none
    census._take()
    assert census.has_none
    census._failing = True
    assert not census.has_none
    census._failing = False
    workers["a"] = {"pool": {"max-concurrency": 4}}
    census._take()
    assert not census.has_none
