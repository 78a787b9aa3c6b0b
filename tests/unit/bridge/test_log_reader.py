# SPDX-License-Identifier: Apache-2.0
"""Of which tasks Airflow's log reader asks an executor for the log, as docs/how-to/why-a-task-waits.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.state import TaskInstanceState


class Ti:
    """The part of a task instance that the reader looks at."""

    def __init__(self, state: TaskInstanceState) -> None:
        self.state, self.try_number, self.executor = state, 1, None
        self.queue, self.executor_config = "default", {}


class Executor:
    """Notes that it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        self.asked += 1
        return ["from the executor"], ["it waits"]

    def get_streaming_task_log(self, ti: Any, try_number: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(("state", "asked"), [(TaskInstanceState.RUNNING, 1), (TaskInstanceState.QUEUED, 0)])
def test_only_the_log_of_a_task_that_runs_is_asked_for(
    state: TaskInstanceState, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queued task has an empty log, which ends there."""
    handler: Any = FileTaskHandler(base_log_folder=str(tmp_path))
    executor = Executor()
    monkeypatch.setattr(handler, "_render_filename", lambda ti, try_number: "attempt=1.log")
    monkeypatch.setattr(
        handler, "_get_executor_get_task_log", lambda ti: executor.get_task_log, raising=False
    )
    monkeypatch.setattr(handler, "_get_executor", lambda ti: executor, raising=False)
    stream, metadata = handler._read(Ti(state), 1)
    lines = [str(getattr(line, "event", line)) for line in stream]
    assert executor.asked == asked
    assert metadata["end_of_log"] is not bool(asked)
    assert any("it waits" in line for line in lines) is bool(asked)
