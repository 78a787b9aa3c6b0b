# SPDX-License-Identifier: Apache-2.0
"""Messages between the executor and its template process. A number stands for one hand-over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Runner = Callable[[Any, Any, str], object]
"""Runs ``(workload, conf, proctitle)`` to its end; raises if that was not possible. Importable by name."""


@dataclass(frozen=True)
class Setup:
    """First message to a template process. The body is decoded once ``sys.path`` is set."""

    sys_path: list[str]
    body: bytes = field(repr=False)
    """A pickled ``Work``."""


@dataclass(frozen=True)
class Work:
    """Settings that every workload of one executor is run with."""

    runner: Runner
    conf: Any
    preload: tuple[str, ...]
    """Modules to import before the first workload."""
    warm_up: Callable[[Any], object]
    """Called with ``conf`` after that, in the template process; importable by name."""
    title: str
    """Start of the process titles."""


@dataclass(frozen=True)
class Slots:
    """Executor to template: how many processes there may be. What is given ahead waits for one to end."""

    number: int


@dataclass(frozen=True)
class Run:
    """Executor to template: start this, as soon as there may be a process for it."""

    number: int
    name: str
    workload: bytes = field(repr=False)
    """Pickled, with its token; decoded in the workload's own process: a bad one harms nobody else."""

    rank: tuple[int, int] = (0, 0)
    """Of those that wait for a slot, the lowest starts first, and among equals the one that came first."""


@dataclass(frozen=True)
class Withdraw:
    """Executor to template: forget this, if it has not started."""

    number: int


@dataclass(frozen=True)
class Kill:
    """Executor to template: end the process tree, SIGTERM first, SIGKILL after ``grace`` seconds."""

    number: int
    grace: float
    unless_begun: bool = False
    """It was to be ended before it begins. One that has begun all the same was let run its task by the Execution API,
    which knows whether the task was queued again meanwhile."""


@dataclass(frozen=True)
class Ready:
    """Template to executor: everything is imported."""


@dataclass(frozen=True)
class Started:
    """Template to executor: this process was forked. It runs nothing until this message is on its way."""

    number: int
    pid: int
    created: float
    """Start time of the process in seconds since the epoch: with the pid, its identity."""


@dataclass(frozen=True)
class Began:
    """Template to executor: the Execution API has let the task start. Other workloads need no leave: theirs begin with
    their process."""

    number: int


@dataclass(frozen=True)
class Ended:
    """Template to executor: the process ended. Without a ``Started`` before it, nothing has run."""

    number: int
    status: int
    """Exit code, or minus the signal that ended it."""
    error: str = ""
    unanswered: bool = False
    """The error is that the Execution API gave no answer to the request."""
    failing: bool = False
    """It was reached, and gave an error of its own (HTTP 500) or no answer: maybe others fare the same, maybe this task
    alone does."""
    began: bool | None = None
    """None: the process has asked for leave to start, and whether it was given is not known."""


@dataclass(frozen=True)
class NotStarted:
    """The template process ended before it had started this one, could not, or was told to forget it: nothing has
    run."""

    number: int
    reason: str = field(default="", compare=False)


@dataclass(frozen=True)
class Gone:
    """A process that was watched from outside has ended; how, nobody could see."""

    number: int


Event = Started | Began | Ended | NotStarted | Gone
"""Life of a hand-over, as the pool tells it."""
