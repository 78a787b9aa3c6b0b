# SPDX-License-Identifier: Apache-2.0
"""The story of a job: what happened and why, in order, in the words of the table of transitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

from airflow_dispatch_provider.lifecycle.states import State

_BEGINNING, _END = 6, 18
"""How many steps are kept of a long story."""

REMEMBERED = 1_000
"""Stories of jobs that have ended."""


class Step(NamedTuple):
    """One thing that happened."""

    at: float
    """Monotonic seconds."""

    state: State
    """The state that it led to."""

    words: str
    backend: str | None
    detail: str = ""

    def __str__(self) -> str:
        where = f" ({self.backend})" if self.backend else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.at:.1f} {self.state}{where}: {self.words}{detail}"


class Case(Protocol):
    """A row of the table of transitions, as far as a story needs it."""

    @property
    def then(self) -> State: ...

    @property
    def words(self) -> str: ...


Story = list[Any]
"""Flat, four entries for each step: when, the ``Case``, the backend, the detail. An object for each step would be the
greater part of what the garbage collector has to go through."""

_WIDTH = 4
LONGEST = (_BEGINNING + _END) * _WIDTH


def shorten(story: Story) -> None:
    """Of a story longer than ``LONGEST`` the beginning and the end are kept."""
    del story[_BEGINNING * _WIDTH : (_BEGINNING + 1) * _WIDTH]


def steps(story: Story) -> tuple[Step, ...]:
    rows = zip(*[iter(story)] * _WIDTH, strict=True)
    return tuple(Step(at, case.then, case.words, backend, detail) for at, case, backend, detail in rows)


class Past:
    """The stories of the jobs that ended last."""

    def __init__(self) -> None:
        self._stories: deque[tuple[Hashable, Story]] = deque(maxlen=REMEMBERED)

    def add(self, key: Hashable, story: Story) -> None:
        self._stories.append((key, story))

    def get(self, key: Hashable) -> Story:
        """The last one of that key; empty where none is remembered. Asked by people alone."""
        return next((story for ended, story in reversed(self._stories) if ended == key), [])
