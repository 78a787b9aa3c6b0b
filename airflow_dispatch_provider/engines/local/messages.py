# SPDX-License-Identifier: Apache-2.0
"""Messages between the executor, its template process, and the templates of Dag files below that. A number stands for
one hand-over."""

from __future__ import annotations

import json
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
    warm_dags: int = 0
    """As many Dag files, at most, have a template process of their own."""


@dataclass(frozen=True)
class Slots:
    """Executor to template: how many processes there may be. What is given ahead waits for one to end."""

    number: int


@dataclass(frozen=True)
class DagFile:
    """A Dag file in a version of its bundle."""

    bundle: str
    """Name and version, as JSON; those without versions have null."""
    path: str
    """Below the bundle."""

    def __str__(self) -> str:
        bundle = json.loads(self.bundle)
        version = f", version {bundle['version']}" if bundle.get("version") else ""
        return f"{self.path} in bundle {bundle['name']}{version}"


@dataclass(frozen=True)
class Run:
    """Executor to template: start this, as soon as there may be a process for it."""

    number: int
    name: str
    workload: bytes = field(repr=False)
    """Pickled, with its token; decoded in the workload's own process: a bad one harms nobody else."""

    rank: tuple[int, int] = (0, 0)
    """Of those that wait for a slot, the lowest starts first, and among equals the one that came first."""

    file: DagFile | None = None
    """The file that the task's process is going to parse; None: no file is to have a template process."""


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
    """Template to executor, or template of a Dag file to template: everything is imported."""


@dataclass(frozen=True)
class Started:
    """Template to executor, or template of a Dag file to template: this process was forked. It runs nothing until the
    executor is sure to hear this."""

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
class Cold:
    """Template of a Dag file to template: its tasks cannot be forked from it, because ..."""

    reason: str


@dataclass(frozen=True)
class Declined:
    """Template of a Dag file to template: this one was not forked, because ..."""

    number: int
    reason: str


@dataclass(frozen=True)
class Probe:
    """Template to template of a Dag file: say something."""


@dataclass(frozen=True)
class Alive:
    """Template of a Dag file to template: the answer."""


@dataclass(frozen=True)
class Reaped:
    """Template of a Dag file to template: a process that it had forked has ended."""

    pid: int
    status: int


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
