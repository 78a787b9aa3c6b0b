# SPDX-License-Identifier: Apache-2.0
"""Moments at which something is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from heapq import heappop, heappush
from math import inf

from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.lifecycle.states import State


class Timers:
    """At most one moment for each job at which it is woken."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._number = 0

    def set(self, job: Job, due: float) -> None:
        job.due = due
        self._number += 1
        heappush(self._heap, (due, self._number, job))

    def pop(self, now: float) -> list[Job]:
        """Those that are due; a timer that was set anew or whose job has ended is none."""
        woken: list[Job] = []
        while self._heap and self._heap[0][0] <= now:
            due, _, job = heappop(self._heap)
            if job.due == due and job.state is not State.ENDED:
                job.due = inf
                woken.append(job)
        return woken


_SLICE = 500
"""Jobs of a round that are taken at a time, lest ten thousand that were queued at once cost a heartbeat."""


class Round:
    """Visits every job in our care at a steady interval. Costs what is due, not what there is, and keeps no job alive
    that has ended."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, Hashable, int]] = deque()

    def add(self, job: Job, due: float) -> None:
        """Enter a job; whoever enters them gives rising times."""
        self._entries.append((due, job.key, job.born))

    def pop(self, now: float, jobs: Mapping[Hashable, Job]) -> Iterator[Job]:
        """Those that are due now and are still among the jobs; whoever takes one enters it again."""
        for _ in range(min(_SLICE, len(self._entries))):
            if self._entries[0][0] > now:
                return
            _, key, born = self._entries.popleft()
            job = jobs.get(key)
            if job is not None and job.born == born:
                yield job
