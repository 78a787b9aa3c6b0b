# SPDX-License-Identifier: Apache-2.0
"""Executors are imported before somebody asks where a task would go."""

from __future__ import annotations

from typing import Any

import pytest
from operate_answers import FakeAnswers

from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate import warming
from airflow_dispatch_provider.operate.warming import Warming


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(warming, "inspect", found.append)
    return found


def test_once_in_a_process(inspected):
    """However often somebody looks; and of all backends."""
    made = Warming(FakeAnswers())
    assert inspected == []
    made.begin()
    made.begin()
    made.wait()
    assert [sorted(settings.backends) for settings in inspected] == [["celery", "gpu", "local"]]


def test_a_wrong_configuration_is_for_whoever_asks(inspected, caplog):
    """It ends nothing here, and is not told in the log of the server."""
    answers: Any = FakeAnswers()

    def wrong(team: str | None) -> Any:
        raise DispatchError("wrong")

    answers.settings = wrong
    made = Warming(answers)
    made.begin()
    made.wait()
    assert (inspected, [record for record in caplog.records if record.levelname != "DEBUG"]) == ([], [])
