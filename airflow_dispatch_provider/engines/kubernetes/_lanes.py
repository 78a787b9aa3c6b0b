# SPDX-License-Identifier: Apache-2.0
"""The namespaces that take no pods at the moment: which, why, and when each is tried again. Pure.

Times are monotonic seconds, and given.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field

from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Verdict
from airflow_dispatch_provider.engines.outage import Backoff

_FULL, _TROUBLE = Backoff(5.0, 60.0), Backoff(0.5, 30.0)


@dataclass(slots=True)
class _Lane:
    """One namespace."""

    reason: str | None = None
    """Why it is closed; None: it is open."""

    full: bool = False
    """Closed because there is no room, and not because of trouble."""

    due: float = -math.inf
    """When it is tried again; infinity while it is being tried."""

    backoff: Backoff = _TROUBLE
    strikes: dict[Verdict, set[Hashable]] = field(default_factory=lambda: defaultdict(set))
    """Two jobs at most that have met this: more tell nothing more."""


class Lanes:
    """A namespace is closed for what its pods have in common, and open for one try whenever it is due."""

    def __init__(
        self,
        essential: Collection[str] = (),
        unwatched: Callable[[str], str | None] = lambda name: None,
        chance: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """
        :param essential: the backend counts as unusable or full when all of these are closed; never, where none is
            named
        :param unwatched: why nobody would see now what becomes of pods there
        :param chance: from 0 to 1; see ``Backoff``
        """
        self._essential, self._unwatched, self._chance = tuple(essential), unwatched, chance
        self._lanes: dict[str, _Lane] = {}

    def close(self, name: str, answer: Answer, now: float) -> None:
        """One more try has failed for a reason that all pods of the namespace share."""
        lane, full = self._lane(name), answer.verdict is Verdict.FULL
        if lane.full is not full:
            lane.backoff = _FULL if full else _TROUBLE
        lane.reason, lane.full = answer.reason, full
        lane.backoff = lane.backoff.failed(now, self._chance())
        lane.due = max(lane.backoff.until, now + (answer.retry_after or 0.0))

    def open(self, name: str) -> None:
        """A pod was created there, or could have been."""
        self._lanes.pop(name, None)

    def doubt(self, name: str) -> None:
        """Whether a pod can be created there now is not known: those of jobs try it, and close it for longer than last
        time where they find the same."""
        lane = self._lane(name)
        lane.reason, lane.due = None, -math.inf

    def strike(self, name: str, verdict: Verdict, key: Hashable) -> bool:
        """Note that a job met this; whether a different one has since the last pod that was created there."""
        struck = self._lane(name).strikes[verdict]
        if len(struck) < 2:
            struck.add(key)
        return len(struck) > 1

    def is_open(self, name: str | None, now: float) -> bool:
        """Whether a pod may be asked for there now."""
        if name is None:
            return True
        lane = self._lanes.get(name)
        is_due = lane is None or lane.reason is None or lane.due <= now
        return is_due and self._unwatched(name) is None

    def claim(self, name: str, now: float) -> bool:
        """Whether a pod may be asked for there now; of a closed one until the answer no other one."""
        if not self.is_open(name, now):
            return False
        lane = self._lanes.get(name)
        if lane is not None and lane.reason is not None:
            lane.due = math.inf
        return True

    def release(self, name: str, now: float) -> None:
        """The answer to a try told nothing of the namespace."""
        lane = self._lanes.get(name)
        if lane is not None and lane.due == math.inf:
            lane.due = now

    def why_closed(self, name: str) -> str:
        """Also where nobody watches it; empty while it is open."""
        lane = self._lanes.get(name)
        return (lane.reason if lane is not None else None) or self._unwatched(name) or ""

    def due(self, now: float) -> Iterator[str]:
        """Closed ones that are to be tried."""
        return (name for name, lane in self._closed() if lane.due <= now)

    def next_due(self) -> float:
        """When the first closed one is to be tried; infinity where none is."""
        return min((lane.due for _, lane in self._closed()), default=math.inf)

    def closed(self) -> dict[str, str]:
        """Why each closed one is closed."""
        return {name: lane.reason or "" for name, lane in self._closed()}

    def reasons(self) -> dict[str, str]:
        """The same, with those that nobody watches."""
        unwatched = {name: self._unwatched(name) for name in self._essential}
        return {**self.closed(), **{name: reason for name, reason in unwatched.items() if reason}}

    @property
    def problem(self) -> str | None:
        """Why no pod can be created at all, where at least one namespace is in trouble."""
        return self._first(lambda lane: not lane.full)

    @property
    def full(self) -> str | None:
        """Why there is no room for any pod."""
        return self._first(lambda lane: lane.full)

    def _first(self, counts: Callable[[_Lane], bool]) -> str | None:
        """The first reason there is, where all essential ones are closed. Nobody watching is trouble."""
        reasons = self.reasons()
        if not self._essential or not all(name in reasons for name in self._essential):
            return None
        lanes = ((name, self._lanes.get(name) or _Lane()) for name in self._essential)
        return next((reasons[name] for name, lane in lanes if counts(lane)), None)

    def _closed(self) -> Iterator[tuple[str, _Lane]]:
        return ((name, lane) for name, lane in self._lanes.items() if lane.reason is not None)

    def _lane(self, name: str) -> _Lane:
        return self._lanes.setdefault(name, _Lane())
