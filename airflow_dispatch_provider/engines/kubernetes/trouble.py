# SPDX-License-Identifier: Apache-2.0
"""When to try again, and what to say meanwhile."""

from __future__ import annotations

import logging
import random
import time

from airflow_dispatch_provider.routing.circuit import growing_delay

log = logging.getLogger(__name__)


def delay(failures: int, first: float = 1.0, most: float = 60.0) -> float:
    """Seconds until the next try: ``first`` after the first failure, then twice as many each time, at most ``most``;
    up to half of that less, so that not all come together.

    :param failures: before this one
    """
    return growing_delay(failures, first, most) * random.uniform(0.5, 1.0)


class Trouble:
    """A row of failures of one kind: its delays grow, its beginning and its end are logged, nothing between them."""

    def __init__(self, what: str, first: float = 0.5, most: float = 30.0, patience: int = 1) -> None:
        """
        :param what: does not work, for the log
        :param first: seconds until the second try
        :param most: seconds between later ones
        :param patience: failures in a row that make it worth talking about
        """
        self.what, self._first, self._most, self._patience = what, first, most, patience
        self._failures = 0
        self._since = 0.0
        self.reason: str | None = None
        """The last failure; None while it works."""

    @property
    def problem(self) -> str | None:
        """The last failure and how long it has lasted, in one sentence; None while it works. Safe to read from any
        thread."""
        reason = self.reason
        return (
            None
            if reason is None
            else f"{self.what} fails since {time.monotonic() - self._since:.0f} s: {reason}"
        )

    def failed(self, reason: str, retry_after: float | None = None) -> float:
        """Note one more; returns the seconds to wait, at least ``retry_after``."""
        pause = delay(self._failures, self._first, self._most)
        self._failures += 1
        if self._failures >= self._patience:
            self._say(reason)
            self.reason = reason
        return max(pause, retry_after or 0.0)

    def _say(self, reason: str) -> None:
        if self.reason is None:
            self._since = time.monotonic()
            log.warning("%s fails and is tried again until it works: %s", self.what, reason)
        elif reason != self.reason:
            log.info("%s fails now with: %s", self.what, reason)

    def over(self) -> None:
        """It works."""
        if self.reason is not None:
            log.info("%s works again after %.0f s.", self.what, time.monotonic() - self._since)
        self.reason = None
        self._failures = 0
