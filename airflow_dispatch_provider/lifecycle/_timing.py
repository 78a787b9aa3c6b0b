# SPDX-License-Identifier: Apache-2.0
"""Moments at which something is due."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf

from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.routing.hold import Lane

_ENDED = State.ENDED
_OVERFLOW_AGAIN = 1.0
"""Seconds after which a lane is decided about again in which not all have waited long enough to overflow."""


def overflow_at(lane: Lane, now: float) -> float:
    """When something in a lane may overflow next, at the earliest."""
    at = lane.since + lane.overflow_after
    return at if at > now else now + _OVERFLOW_AGAIN


class Timers:
    """At most one moment for each job at which it is woken."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, list[Job]]] = []
        """Most jobs of one ``handle`` have the same moment: one entry for those that are set in a row."""

        self._number = 0
        self._last: list[Job] = []
        self._last_due = -inf

    def set(self, job: Job, due: float) -> None:
        job.due = due
        if due != self._last_due:
            self._number += 1
            self._last, self._last_due = [], due
            heappush(self._heap, (due, self._number, self._last))
        self._last.append(job)

    def pop(self, now: float) -> list[Job]:
        """Those that are due; a timer that was set anew or whose job has ended is none."""
        woken: list[Job] = []
        while self._heap and self._heap[0][0] <= now:
            due, _, jobs = heappop(self._heap)
            if jobs is self._last:
                self._last_due = -inf
            for job in jobs:
                if job.due == due and job.state is not _ENDED:
                    job.due = inf
                    woken.append(job)
        return woken


_SLICE = 500
"""Jobs of a round that are taken at a time, lest ten thousand that were queued at once cost a heartbeat."""


class Round:
    """Visits every job in our care at a steady interval. Costs what is due, not what there is."""

    def __init__(self) -> None:
        self._due: OrderedDict[Job, float] = OrderedDict()
        """The moments rise."""

    def __iter__(self) -> Iterator[tuple[Job, float]]:
        """Jobs and when they are due, the next one first."""
        return iter(self._due.items())

    def add(self, job: Job, due: float) -> None:
        """Enter a job; whoever enters them gives rising times."""
        self._due[job] = due

    def discard(self, job: Job) -> None:
        """It is no longer in our care."""
        self._due.pop(job, None)

    def pop(self, now: float) -> Iterator[Job]:
        """Those that are due now; whoever takes one enters it again."""
        for _ in range(min(_SLICE, len(self._due))):
            if next(iter(self._due.values())) > now:
                return
            yield self._due.popitem(last=False)[0]
