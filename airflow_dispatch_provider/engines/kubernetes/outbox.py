# SPDX-License-Identifier: Apache-2.0
"""Jobs between the scheduler's thread and the thread of the API calls: whoever takes one has it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.engines.kubernetes.model import Job

Open = Callable[[str | None], bool]
"""Whether a pod may be asked for in a namespace now."""


class Outbox:
    """Jobs that are not being sent: new ones in order, and behind them those that wait for another try. Any thread
    may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[WorkloadKey, Job] = {}
        self._waiting: dict[WorkloadKey, tuple[float, Job]] = {}

    def __len__(self) -> int:
        """New ones: those that wait keep no other from being handed over."""
        return len(self._jobs)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, jobs: Iterable[Job]) -> None:
        with self._lock:
            self._jobs.update((job.key, job) for job in jobs)

    def put_back(self, job: Job) -> None:
        """Before all others."""
        with self._lock:
            self._jobs = {job.key: job, **self._jobs}

    def put_off(self, job: Job, until: float) -> None:
        """Behind all others, and not before that time (monotonic seconds)."""
        with self._lock:
            self._waiting[job.key] = until, job

    def take(self, now: float, is_open: Open) -> Job | None:
        """The first new one, else the first of those whose time has come and whose namespace is open."""
        with self._lock:
            if self._jobs:
                return self._jobs.pop(next(iter(self._jobs)))
            for key, (due, job) in self._waiting.items():
                if due <= now and is_open(job.lane):
                    del self._waiting[key]
                    return job
            return None

    def next_due(self, is_open: Open) -> float:
        """When the first of those that wait in an open namespace is due; infinity where none does."""
        with self._lock:
            waiting = self._waiting.values()
            return min((due for due, job in waiting if is_open(job.lane)), default=math.inf)

    def waits_in(self, lane: str) -> bool:
        with self._lock:
            return any(job.lane == lane for _, job in self._waiting.values())

    def withdraw(self, key: WorkloadKey) -> Job | None:
        """That one, if it is here and certainly not with the server."""
        with self._lock:
            if key in self._jobs:
                return self._jobs.pop(key)
            _, job = self._waiting.get(key, (0.0, None))
            if job is None or job.doubtful:
                return None
            del self._waiting[key]
            return job

    def withdraw_all(self) -> list[Job]:
        """All that are certainly not with the server."""
        with self._lock:
            waiting = [job for _, job in self._waiting.values() if not job.doubtful]
            for job in waiting:
                del self._waiting[job.key]
            jobs, self._jobs = list(self._jobs.values()), {}
        return [*jobs, *waiting]
