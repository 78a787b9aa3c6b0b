# SPDX-License-Identifier: Apache-2.0
"""Jobs between the scheduler's thread and the thread of the API calls: whoever takes one has it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.engines.kubernetes.model import Job


class Outbox:
    """Jobs that are certainly not with the server, in order. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[WorkloadKey, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, jobs: Iterable[Job]) -> None:
        with self._lock:
            self._jobs.update((job.key, job) for job in jobs)

    def put_back(self, job: Job) -> None:
        """Before all others."""
        with self._lock:
            self._jobs = {job.key: job, **self._jobs}

    def take(self) -> Job | None:
        """The first one, if there is any."""
        with self._lock:
            key = next(iter(self._jobs), None)
            return None if key is None else self._jobs.pop(key)

    def withdraw(self, key: WorkloadKey) -> Job | None:
        """That one, if it is still here."""
        with self._lock:
            return self._jobs.pop(key, None)

    def withdraw_all(self) -> list[Job]:
        with self._lock:
            jobs = list(self._jobs.values())
            self._jobs = {}
        return jobs
