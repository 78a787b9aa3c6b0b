# SPDX-License-Identifier: Apache-2.0
"""When a backend that failed is tried again: states of a circuit as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


def growing_delay(failures: int, first: float, most: float) -> float:
    """Seconds to wait before the next try: ``first``, then twice as long each time, at most ``most``.

    :param failures: in a row, before the last one
    """
    return min(most, first * 2.0 ** min(failures, 32))


class CircuitState(str, Enum):
    """closed: in use; open: left alone; half_open: one careful try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Circuit:
    """One backend's record of failures. Each method returns the next state; times are monotonic seconds."""

    min_delay: float = 1.0
    max_delay: float = 60.0
    failures: int = 0
    """Failures in a row. A success that does not last ``max_delay`` does not end the row, so that a backend
    that comes and goes is tried less and less often."""

    retry_at: float | None = None
    """When it may be tried again; None while it is closed."""

    closed_at: float | None = None
    """When it was last closed after a failure."""

    error: str | None = None
    """The error that it failed with; None while it is closed."""

    def state(self, now: float) -> CircuitState:
        if self.retry_at is None:
            return CircuitState.CLOSED
        return CircuitState.HALF_OPEN if now >= self.retry_at else CircuitState.OPEN

    def failed(self, now: float, error: str, jitter: float) -> Circuit:
        """Open it, for longer each time. A failure that is reported while it is open, e.g. of the second workload
        of one batch, belongs to the same outage and changes the error alone.

        :param jitter: from 0 to 1; spreads the delay over its upper half, so that schedulers do not retry
            in step
        """
        if self.state(now) is CircuitState.OPEN:
            return replace(self, error=error)
        stable = self.closed_at is not None and now - self.closed_at >= self.max_delay
        failures = 1 if stable else self.failures + 1
        delay = growing_delay(failures - 1, self.min_delay, self.max_delay) * (1 + jitter) / 2
        return replace(self, failures=failures, retry_at=now + delay, closed_at=None, error=error)

    def succeeded(self, now: float) -> Circuit:
        """Close it; the same object where it was closed."""
        if self.retry_at is None:
            return self
        return replace(self, retry_at=None, closed_at=now, error=None)
