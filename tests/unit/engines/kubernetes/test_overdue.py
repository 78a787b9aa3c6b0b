# SPDX-License-Identifier: Apache-2.0
"""When a task counts as over although nobody has seen its pod end."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes.overdue import PATIENCE, PATIENCE_WITH_STARTED, Overdue

START = 1000.0


def found_at(state: str | None, seconds: float, started: bool = False, there: bool = True) -> bool:
    """Whether it is found, with the same row at the first look and so many seconds later."""
    overdue = Overdue()
    rows = {"a": Stored(state, 7)} if there else {}
    overdue.find(START, ["a"], rows, lambda key: started)
    return overdue.find(START + seconds, ["a"], rows, lambda key: started) == ["a"]


@pytest.mark.parametrize(
    "state", ["success", "failed", "skipped", "up_for_retry", "deferred", "scheduled", None]
)
def test_a_task_that_airflow_has_ended_is_found_after_a_while(state):
    """Its pod may still be seen to end until then."""
    assert not found_at(state, PATIENCE - 1)
    assert found_at(state, PATIENCE)


def test_so_is_one_whose_row_was_deleted():
    assert found_at(None, PATIENCE, there=False)


@pytest.mark.parametrize("state", ["queued", "running", "restarting"])
def test_one_that_a_worker_has_or_may_get_is_never_found(state):
    assert not found_at(state, 1e9)


def test_one_whose_container_runs_has_more_time():
    """It may be storing its log."""
    assert not found_at("success", PATIENCE_WITH_STARTED - 1, started=True)
    assert found_at("success", PATIENCE_WITH_STARTED, started=True)


def test_one_that_comes_back_is_waited_for_anew():
    """A task that was deferred has the same key when it is resumed."""
    overdue = Overdue()
    for after, state in ((0.0, "deferred"), (PATIENCE / 2, "queued"), (PATIENCE, "deferred")):
        assert overdue.find(START + after, ["a"], {"a": Stored(state, 7)}, lambda key: False) == []
