# SPDX-License-Identifier: Apache-2.0
"""Asking whether a result backend knows of a task: the answer may be no, and comes only if the backend could answer."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.celery.result_watcher import ResultWatcher
from airflow_dispatch_provider.engines.celery.results import Result

from .test_result_watcher import STARTED, SUCCESS, FakeSource, app, asked_again, collect, source, start

__all__ = ["app", "source", "start"]

NOTHING = Result("x", "PENDING")


def test_nothing_is_known(source, start):
    """It is said once; a result that comes later is reported all the same."""
    watcher = start(source)
    watcher.look("x")
    assert collect(watcher, 1) == [NOTHING]
    asked_again(source)
    assert watcher.drain() == []
    source.stored["x"] = SUCCESS
    assert collect(watcher, 1) == [SUCCESS]


@pytest.mark.parametrize("known", [STARTED, SUCCESS])
def test_something_is_known(source, start, known):
    source.stored["x"] = known
    watcher = start(source)
    watcher.look("x")
    assert collect(watcher, 1) == [known]
    asked_again(source)
    assert watcher.drain() == []


@pytest.mark.parametrize("method", ["open", "ask"])
def test_a_backend_that_cannot_answer_says_nothing(source: FakeSource, start, method):
    source.broken.add(method)
    watcher: ResultWatcher = start(source)
    watcher.look("x")
    before = source.opened
    while source.opened < before + 5:
        assert watcher.drain() == []
    source.stored["x"] = STARTED
    source.broken.clear()
    assert collect(watcher, 1) == [STARTED]


def test_whoever_only_watches_is_told_nothing_of_nothing(source, start):
    watcher = start(source)
    watcher.watch("x")
    asked_again(source)
    assert watcher.drain() == []


def test_what_is_forgotten_is_not_answered(source, start):
    source.gate.clear()
    watcher = start(source)
    watcher.look("x")
    watcher.forget("x")
    source.gate.set()
    watcher.watch("y")
    asked_again(source)
    assert watcher.drain() == []
