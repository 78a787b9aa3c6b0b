# SPDX-License-Identifier: Apache-2.0
"""When to try again, and what to say meanwhile."""

from __future__ import annotations

import logging
import random
import time

log = logging.getLogger(__name__)


class Trouble:
    """A row of failures of one kind: its delays grow, its beginning and its end are logged, nothing between them."""

    def __init__(self, what: str, first: float = 0.5, most: float = 30.0, patience: int = 1) -> None:
        """
        :param what: does not work, for the log
        :param first: seconds until the second try
        :param most: seconds between later ones
        :param patience: failures in a row that make it worth talking about
        """
        self._what, self._first, self._most, self._patience = what, first, most, patience
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
            else f"{self._what} fails since {time.monotonic() - self._since:.0f} s: {reason}"
        )

    def failed(self, reason: str, retry_after: float | None = None) -> float:
        """Note one more; returns the seconds to wait, at least ``retry_after``."""
        delay = min(self._most, self._first * 2.0 ** min(self._failures, 30)) * random.uniform(0.5, 1.0)
        self._failures += 1
        if self._failures >= self._patience:
            self._say(reason)
            self.reason = reason
        return max(delay, retry_after or 0.0)

    def _say(self, reason: str) -> None:
        if self.reason is None:
            self._since = time.monotonic()
            log.warning("%s fails and is tried again until it works: %s", self._what, reason)
        elif reason != self.reason:
            log.info("%s fails now with: %s", self._what, reason)

    def over(self) -> None:
        """It works."""
        if self.reason is not None:
            log.info("%s works again after %.0f s.", self._what, time.monotonic() - self._since)
        self.reason = None
        self._failures = 0
