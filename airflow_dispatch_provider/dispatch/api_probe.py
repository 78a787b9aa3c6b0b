# SPDX-License-Identifier: Apache-2.0
"""Whether the Execution API answers the scheduler. What is launched while it does not comes to nothing, and most
engines cannot tell why."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Broken, Recovered
from airflow_dispatch_provider.masking import describe

_LEARN_EVERY = 60.0
"""Seconds between two requests as long as it has never answered."""


class ApiProbe:
    """Says that it is away only where it has answered before: from here it may be out of reach for good, and from the
    tasks' hosts it is not. Used by one thread, the clerk's."""

    def __init__(self, reach: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """
        :param reach: raises where it does not answer
        """
        self._reach, self._clock = reach, clock
        self._has_answered = False
        self._learn_at = clock()

    def learn(self) -> None:
        """Called now and then: find out whether it can be reached from here at all."""
        if not self._has_answered and self._clock() >= self._learn_at:
            self._request()

    def ask(self) -> Recovered | Broken | None:
        """The answer, as news for the life cycle; None: nothing can be concluded."""
        error = self._request()
        if error is None:
            return Recovered(EXECUTION_API)
        return Broken(EXECUTION_API, describe(error)) if self._has_answered else None

    def _request(self) -> BaseException | None:
        """Whatever a library raises, the clerk lives on."""
        self._learn_at = self._clock() + _LEARN_EVERY
        try:
            self._reach()
        except BaseException as error:
            return error
        self._has_answered = True
        return None
