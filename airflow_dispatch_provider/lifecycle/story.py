# SPDX-License-Identifier: Apache-2.0
"""The story of a job: what happened and why, in order, in the words of the table of transitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
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


Story = tuple[Any, ...]
"""Flat, four entries for each step: when, the number of the row in the table, the backend, the detail. The garbage
collector need not go through a tuple of such values, and that would cost more than to tell the story."""

_WIDTH = 4
LONGEST = (_BEGINNING + _END) * _WIDTH


def shorten(story: Story) -> Story:
    """Of a story longer than ``LONGEST`` the beginning and the end are kept."""
    return story[: _BEGINNING * _WIDTH] + story[(_BEGINNING + 1) * _WIDTH :]


def steps(story: Story, table: Sequence[Case]) -> tuple[Step, ...]:
    rows = zip(*[iter(story)] * _WIDTH, strict=True)
    return tuple(
        Step(at, table[row].then, table[row].words, backend, detail) for at, row, backend, detail in rows
    )


class Past:
    """The stories of the jobs that ended last."""

    def __init__(self) -> None:
        self._keys: deque[Hashable] = deque(maxlen=REMEMBERED)
        self._stories: deque[Story] = deque(maxlen=REMEMBERED)

    def add(self, key: Hashable, story: Story) -> None:
        self._keys.append(key)
        self._stories.append(story)

    def get(self, key: Hashable) -> Story:
        """The last one of that key; empty where none is remembered. Asked by people alone."""
        ended = zip(reversed(self._keys), reversed(self._stories), strict=True)
        return next((story for other, story in ended if other == key), ())
