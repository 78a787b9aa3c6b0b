# SPDX-License-Identifier: Apache-2.0
"""Answers about the past: what has been changed, and what has happened to a task."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_dispatch_provider.operate.model import WaitingTask


@dataclass(frozen=True)
class Change:
    """One thing that people have changed while schedulers ran."""

    at: datetime
    event: str
    """``config_file_changed``, ``config_file_refused``, ``dispatch_`` with the command of an order, or
    ``dispatch_ran_out``."""

    words: str
    by: str | None
    """Who has ordered it; None: the file has changed, or an order has run out."""

    backend: str | None
    team: str | None
    scheduler: str | None
    """The host of the scheduler that has read the file."""


@dataclass(frozen=True)
class StoryStep:
    """One thing that happened to a task."""

    at: datetime
    event: str
    """A word: ``queued``, ``dispatched``, ``waits_blocked``, ``started`` ..."""

    words: str
    backend: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Given:
    """The backend that has had a task since then, and has not begun it."""

    backend: str
    since: datetime
    hint: str | None
    """A thing to look at, in a sentence, where it has taken long."""


@dataclass(frozen=True)
class TaskStory:
    """One try of a task: every decision in order, and where it is now."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    state: str | None
    steps: list[StoryStep]
    waiting: WaitingTask | None
    """While it is queued, and the router holds it."""

    given: Given | None = None
    """While it is queued, and a backend has it."""

    unqueued: str | None = None
    """While it is scheduled: why Airflow may not have queued it, in a sentence; None: nothing is known of that."""

    orphaned: str | None = None
    """Why nobody looks after it now, and what becomes of it, in sentences: its scheduler has died. None: somebody does,
    or it does not matter any more."""
