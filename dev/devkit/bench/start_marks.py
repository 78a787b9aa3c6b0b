# SPDX-License-Identifier: Apache-2.0
"""Moments in the start of a task, noted by the processes that take part in it, in one file."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SUPERVISED = "supervised"
ASKED = "asked"
ANSWERED = "answered"
PARSES = "parses"
PARSED = "parsed"
FILE_READ = "file read"
FIRST_LINE = "first line"
TASK_OVER = "task over"
OVER = "over"

_PLACE = "BENCH_MARKS"
"""Environment variable with the path of the file."""


@dataclass(frozen=True)
class Mark:
    name: str
    pid: int
    when: float
    """Seconds since 1970."""

    cpu: float
    """Seconds that this process has used by then."""


def mark(name: str) -> None:
    """Note that this process is here. One append of a short line is atomic."""
    line = json.dumps(asdict(Mark(name, os.getpid(), time.time(), time.process_time())))
    fd = os.open(os.environ[_PLACE], os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def marks() -> list[Mark]:
    """All marks so far, in the order in which they were made."""
    return [Mark(**json.loads(line)) for line in Path(os.environ[_PLACE]).read_text().splitlines()]


def keep_in(path: Path) -> None:
    """Have this process, and those forked from it, note their marks there."""
    path.touch()
    os.environ[_PLACE] = str(path)


def note_starts() -> None:
    """Have Airflow's supervisor and task runner make marks, in all processes that are forked from this one."""
    from airflow.sdk.api.client import TaskInstanceOperations
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import ActivitySubprocess

    supervised: Any = ActivitySubprocess
    supervised.start = classmethod(_marked(supervised.start.__func__, SUPERVISED))
    supervised.wait = _marked(supervised.wait, after=OVER)
    operations: Any = TaskInstanceOperations
    operations.start = _marked(operations.start, ASKED, ANSWERED)
    runner: Any = task_runner
    runner.parse = _marked(runner.parse, PARSES, PARSED)
    runner.main = _marked(runner.main, after=TASK_OVER)


def _marked(function: Callable[..., Any], before: str = "", after: str = "") -> Callable[..., Any]:
    @functools.wraps(function)
    def marking(*args: Any, **kwargs: Any) -> Any:
        if before:
            mark(before)
        try:
            return function(*args, **kwargs)
        finally:
            if after:
                mark(after)

    return marking
