# SPDX-License-Identifier: Apache-2.0
"""When something that has failed, and took its time on the scheduler's thread, may be tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

_REST = 19.0
"""How many times as long as it took it is left alone: trying takes a twentieth of the thread's time at most."""

_SLOW = 0.5
"""Seconds; what fails faster than that is tried as often as anybody likes."""


class SlowFailures:
    """Commands, secrets and modules by whatever names them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[Hashable, float] = {}
        self._asking: set[Hashable] = set()

    @contextmanager
    def timed(self, key: Hashable) -> Iterator[None]:
        """Around a try."""
        began = self._clock()
        try:
            yield
        finally:
            took = self._clock() - began
            self._due[key] = self._clock() + _REST * took if took >= _SLOW else 0.0

    def may_try(self, key: Hashable) -> bool:
        return self._clock() >= self._due.get(key, 0.0)

    def again(self, key: Hashable, ask: Callable[[], object]) -> bool:
        """Ask once more, as soon as it may be tried, in a thread of its own: whoever wants the answer goes on with the
        old failure meanwhile. False where it was not slow: then it may as well be asked for where it is wanted."""
        if not self._due.get(key):
            return False
        if self.may_try(key) and key not in self._asking:
            self._asking.add(key)
            threading.Thread(target=self._ask, args=(key, ask), name="dispatch-options", daemon=True).start()
        return True

    def _ask(self, key: Hashable, ask: Callable[[], object]) -> None:
        try:
            with self.timed(key):
                ask()
        finally:
            self._asking.discard(key)
