# SPDX-License-Identifier: Apache-2.0
"""The story of a job: what happened and why, in order, in the words of the table of transitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import NamedTuple

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


Story = list[Step]


def tell(story: Story, step: Step) -> None:
    """Add a step; of a long story the beginning and the end are kept."""
    story.append(step)
    if len(story) > _BEGINNING + _END:
        del story[_BEGINNING]


class Past:
    """The stories of the jobs that ended last."""

    def __init__(self) -> None:
        self._stories: dict[Hashable, Story] = {}
        self._order: deque[Hashable] = deque()

    def add(self, key: Hashable, story: Story) -> None:
        self._stories[key] = story
        self._order.append(key)
        if len(self._order) > REMEMBERED:
            self._stories.pop(self._order.popleft(), None)

    def get(self, key: Hashable) -> Sequence[Step]:
        return self._stories.get(key, ())
