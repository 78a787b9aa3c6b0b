# SPDX-License-Identifier: Apache-2.0
"""The namespaces that take no pods at the moment: which, why, and when each is tried again."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Verdict
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble


class _Lane:
    """One namespace. It is closed while one of its troubles lasts."""

    def __init__(self, name: str) -> None:
        self.full = Trouble(f"Finding room for pods in {name}", first=5.0, most=60.0)
        self.trouble = Trouble(f"Creating pods in {name}")
        self.due = -math.inf
        self.strikes: dict[Verdict, set[WorkloadKey]] = defaultdict(set)

    @property
    def closed(self) -> bool:
        return self.full.reason is not None or self.trouble.reason is not None


class Lanes:
    """A namespace is closed for what its pods have in common, and open for one try whenever it is due. For the thread
    of the API calls, but for ``problem`` and ``full``, which any thread may read."""

    def __init__(
        self, essential: Collection[str], unwatched: Callable[[str], str | None] = lambda name: None
    ) -> None:
        """
        :param essential: the backend counts as unusable or full when all of these are closed; never, where none is
            named
        :param unwatched: why nobody would see now what becomes of pods there
        """
        self._essential, self._unwatched = tuple(essential), unwatched
        self._lanes: dict[str, _Lane] = {}

    def close(self, name: str, answer: Answer) -> None:
        """One more try has failed for a reason that all pods of the namespace share."""
        lane = self._lane(name)
        trouble, other = lane.trouble, lane.full
        if answer.verdict is Verdict.FULL:
            trouble, other = other, trouble
        other.over()
        lane.due = time.monotonic() + trouble.failed(answer.reason, answer.retry_after)

    def open(self, name: str) -> None:
        """A pod was created there, or could have been."""
        lane = self._lanes.get(name)
        if lane is not None:
            lane.full.over()
            lane.trouble.over()
            lane.strikes.clear()

    def strike(self, name: str, verdict: Verdict, key: WorkloadKey) -> bool:
        """Note that a job met this; whether a different one has since the last pod that was created there."""
        struck = self._lane(name).strikes[verdict]
        struck.add(key)
        return len(struck) > 1

    def is_open(self, name: str | None) -> bool:
        """Whether a pod may be asked for there now."""
        if name is None:
            return True
        lane = self._lanes.get(name)
        is_due = lane is None or not lane.closed or lane.due <= time.monotonic()
        return is_due and self._unwatched(name) is None

    def claim(self, name: str) -> bool:
        """Whether a pod may be asked for there now; of a closed one until the answer no other one."""
        if not self.is_open(name):
            return False
        lane = self._lanes.get(name)
        if lane is not None and lane.closed:
            lane.due = math.inf
        return True

    def release(self, name: str) -> None:
        """The answer to a try told nothing of the namespace."""
        lane = self._lanes.get(name)
        if lane is not None and lane.due == math.inf:
            lane.due = time.monotonic()

    def due(self) -> Iterator[str]:
        """Closed ones that are to be tried."""
        now = time.monotonic()
        return (name for name, lane in list(self._lanes.items()) if lane.closed and lane.due <= now)

    def next_due(self) -> float:
        """When the first closed one is to be tried; infinity where none is."""
        return min((lane.due for lane in self._lanes.values() if lane.closed), default=math.inf)

    @property
    def problem(self) -> str | None:
        """Why no pod can be created at all, where at least one namespace is in trouble."""
        return self._first(
            lambda name, lane: self._unwatched(name) or (lane.trouble.problem if lane else None)
        )

    @property
    def full(self) -> str | None:
        """Why there is no room for any pod."""
        return self._first(lambda name, lane: lane.full.problem if lane else None)

    def _first(self, reason: Callable[[str, _Lane | None], str | None]) -> str | None:
        """The first reason there is, where all essential ones are closed."""
        lanes = [(name, self._lanes.get(name)) for name in self._essential]
        if not all(self._unwatched(name) or (lane and lane.closed) for name, lane in lanes):
            return None
        return next((found for name, lane in lanes if (found := reason(name, lane))), None)

    def _lane(self, name: str) -> _Lane:
        return self._lanes.setdefault(name, _Lane(name))
