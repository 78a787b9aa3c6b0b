# SPDX-License-Identifier: Apache-2.0
"""Dispatches that an executor has, for an engine whose executor speaks of keys."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from airflow_dispatch_provider.bridge import airflow_api


class Out:
    """One dispatch that the executor has."""

    ran = False
    """Its key was among the executor's running ones, for this dispatch or an earlier one."""

    missed = 0
    """Looks in a row at which the executor did not know its key."""

    def __init__(self, dispatch: int, child_key: Hashable, workload: Any, ti: Any = None) -> None:
        """
        :param workload: None where it was adopted
        :param ti: the task instance that was adopted
        """
        self.dispatch, self.child_key, self.workload, self.ti = dispatch, child_key, workload, ti
        self.sent = False

    @property
    def is_task(self) -> bool:
        """Whether it has a row; nothing else is ever adopted."""
        return self.ti is not None or airflow_api.is_task(self.workload)


class Outstanding:
    """All of them, by dispatch and by key. Two dispatches of one key are told apart by their order alone."""

    def __init__(self) -> None:
        self.by_dispatch: dict[int, Out] = {}
        self.unsent: dict[int, Out] = {}
        """Those that may still be in the executor's own queues."""

        self._turn: Iterator[int] = iter(())
        self._oldest: dict[Hashable, Out] = {}
        self._behind: list[Out] = []
        """Later dispatches of a key, as long as its oldest one is out: there are few."""

    def __len__(self) -> int:
        return len(self.by_dispatch)

    def enter(self, out: Out) -> None:
        self.by_dispatch[out.dispatch] = out
        if not out.sent:
            self.unsent[out.dispatch] = out
        if self._oldest.setdefault(out.child_key, out) is not out:
            self._behind.append(out)

    def forget(self, out: Out) -> None:
        del self.by_dispatch[out.dispatch]
        self.unsent.pop(out.dispatch, None)
        if self._oldest[out.child_key] is not out:
            self._behind.remove(out)
            return
        del self._oldest[out.child_key]
        later = next((each for each in self._behind if each.child_key == out.child_key), None)
        if later is not None:
            self._behind.remove(later)
            later.ran = later.ran or out.ran
            self._oldest[later.child_key] = later

    def in_turn(self, most: int) -> Iterator[Out]:
        """Some of them; those that are out for long come one after the other."""
        for _ in range(min(most, len(self))):
            dispatch = next(self._turn, None)
            if dispatch is None:
                self._turn = iter(list(self.by_dispatch))
                return
            if dispatch in self.by_dispatch:
                yield self.by_dispatch[dispatch]

    def is_alone(self, out: Out) -> bool:
        """Whether no other dispatch of its key is out."""
        return all(each.child_key != out.child_key for each in self._behind)

    def oldest(self, child_key: Hashable) -> Out | None:
        """The dispatch of a key that was given first; None if there is none."""
        return self._oldest.get(child_key)
