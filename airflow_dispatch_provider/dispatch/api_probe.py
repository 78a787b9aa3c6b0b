# SPDX-License-Identifier: Apache-2.0
"""Whether the Execution API answers the scheduler. What is launched while it does not comes to nothing, and most
engines cannot tell why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Broken, Recovered
from airflow_dispatch_provider.masking import describe

_LEARN_EVERY = 60.0
"""Seconds between two requests as long as it has never answered."""


class ApiProbe:
    """Says that it is away only where it has answered before: from here it may be out of reach for good, and from the
    tasks' hosts it is not. Used by one thread, the clerk's."""

    def __init__(
        self, reach: Callable[[], None], timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        :param reach: raises where it does not answer; may take as long as it likes
        :param timeout: seconds after which no answer is none
        """
        self._reach, self._timeout, self._clock = reach, timeout, clock
        self._has_answered = False
        self._learn_at = clock()
        self._request: _Request | None = None

    def learn(self) -> None:
        """Called now and then, and never waits: find out whether it can be reached from here at all."""
        self._note_answer()
        if not self._has_answered and self._clock() >= self._learn_at:
            self._ask()

    def ask(self) -> Recovered | Broken | None:
        """The answer, as news for the life cycle; None: nothing can be concluded."""
        request = self._ask()
        if not request.over.wait(self._timeout):
            reason = f"no answer within {self._timeout:g} s"
        elif request.error is not None:
            reason = describe(request.error)
        else:
            self._note_answer()
            return Recovered(EXECUTION_API)
        return Broken(EXECUTION_API, reason) if self._has_answered else None

    def _ask(self) -> _Request:
        """A request of now; one that is not answered is not put again."""
        self._note_answer()
        self._learn_at = self._clock() + _LEARN_EVERY
        if self._request is None:
            self._request = _Request(self._reach)
        return self._request

    def _note_answer(self) -> None:
        request = self._request
        if request is not None and request.over.is_set():
            self._request = None
            self._has_answered = self._has_answered or request.error is None


class _Request:
    """In a thread of its own: a server that sends a byte now and then keeps its client as long as it likes."""

    def __init__(self, reach: Callable[[], None]) -> None:
        self.over = threading.Event()
        self.error: BaseException | None = None
        self._reach = reach
        threading.Thread(target=self._run, name="dispatch-api-probe", daemon=True).start()

    def _run(self) -> None:
        try:
            self._reach()
        except BaseException as error:
            self.error = error
        self.over.set()
