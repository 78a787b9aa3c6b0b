# SPDX-License-Identifier: Apache-2.0
"""Trouble that lasts: when to try again, and saying so once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from airflow_dispatch_provider.masking import LateTraceback
from airflow_dispatch_provider.routing.circuit import growing_delay


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double from one failure in a row to the next. Pure: each method returns the next value.

    Times are monotonic seconds.
    """

    min_delay: float = 1.0
    max_delay: float = 60.0
    failures: int = 0
    """In a row."""

    until: float = 0.0
    """Nothing is tried before."""

    def due(self, now: float) -> bool:
        return now >= self.until

    def failed(self, now: float, chance: float = 1.0) -> Backoff:
        """One failure more.

        :param chance: from 0 to 1; spreads the delay over its upper half, so that schedulers do not try in step
        """
        delay = growing_delay(self.failures, self.min_delay, self.max_delay) * (1 + chance) / 2
        return replace(self, failures=self.failures + 1, until=now + delay)

    def over(self) -> Backoff:
        """A success."""
        return replace(self, failures=0, until=0.0) if self.failures else self


class OutageLog:
    """One line when trouble begins, one when it is over; what repeats itself in between is for debugging."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        """
        :param what: names in the log what has trouble, e.g. ``Backend 'a'``
        """
        self._log, self._what = log, what
        self.reason: str | None = None
        """The trouble of this moment; None: nothing is wrong."""

    def failed(self, reason: str, details: LateTraceback | str = "") -> None:
        """
        :param details: the rest of the line; a ``LateTraceback`` is made only if the line is written
        """
        level = logging.DEBUG if self.reason is not None else logging.ERROR
        self._log.log(level, "%s: %s%s", self._what, reason, details)
        self.reason = reason

    def over(self) -> None:
        if self.reason is not None:
            self._log.info("%s works again.", self._what)
            self.reason = None
