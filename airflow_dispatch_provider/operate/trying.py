# SPDX-License-Identifier: Apache-2.0
"""Answers about what would happen: where a task would go, and what another routing file would change.

Durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from airflow_dispatch_provider.operate.model import BackendState


@dataclass(frozen=True)
class TargetUse:
    """One situation in which a target is used."""

    reason: str
    """A word, such as ``overflow``."""

    words: str
    after: float
    """How long the task waits before."""


@dataclass(frozen=True)
class ExplainedTarget:
    """One target of the route that was found."""

    backend: str
    queue: str | None
    """The queue name that the backend is told."""

    share: float | None
    """Part of the route's tasks that have it first, from 0 to 1; None where the route has no weights."""

    blocked: str | None
    """Why it takes no work as configured: a word."""

    problem: str | None
    """Why its executor cannot be used, and the remedy."""

    uses: list[TargetUse]
    """None of them: it is never used."""

    state: BackendState | None = None
    """How it is now, as what follows; None: nobody knows."""

    slots: int | None = None
    used: int | None = None
    free: int | None = None
    held: int | None = None
    trouble: str | None = None
    """Why it takes no work, in a sentence; where somebody has ordered so, who and why."""


@dataclass(frozen=True)
class Choice:
    """Where a task goes, or why it waits."""

    backend: str | None
    """None: it waits."""

    queue: str | None
    reason: str
    words: str


@dataclass(frozen=True)
class Explained:
    """Where a task would go: as configured with all slots free, and as things are."""

    queue: str | None
    dag_id: str | None
    route: str
    why: str
    """Why this route, in a sentence."""

    overflow_after: float | Literal["never"]
    targets: list[ExplainedTarget]
    """In the order in which the task tries them."""

    configured: Choice | None
    """None: which target comes first depends on the task, and none was given."""

    now: Choice | None
    """None for the same reason, or since nobody knows how the backends are."""

    problem: str | None = None
    """Why nobody knows how the backends are."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a file."""

    where: str
    found: str
    remedy: str


@dataclass(frozen=True)
class FileChange:
    """One difference between the configuration in use and a file."""

    what: str
    """Such as ``routes[2]``."""

    kind: str
    """``added``, ``removed``, ``changed`` or ``moved``."""

    details: str
    effect: str
    """The way in which a running scheduler takes it over with a backend, in words; empty: it takes effect at once."""


@dataclass(frozen=True)
class MovedTask:
    """A task that waits today, and would find other targets."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    queue: str | None
    route_before: str
    route_after: str
    before: list[str]
    """Its targets, in order."""

    after: list[str]


@dataclass(frozen=True)
class WhatIf:
    """A file, if it were the routing file."""

    mistakes: list[Mistake]
    """With any of them, nothing else is known."""

    changes: list[FileChange] = field(default_factory=list)
    moved: list[MovedTask] = field(default_factory=list)
    """The first 200 of them."""

    moved_total: int = 0
    looked_at: int = 0
    """Tasks that were asked: the first ones of those that wait."""

    waiting: int = 0
    """All that wait."""

    reads_file: bool = True
    """Whether running schedulers read a file; if not, this one would be read after a restart."""

    problem: str | None = None
    """Why there is nothing to compare with, or nobody knows what waits."""
