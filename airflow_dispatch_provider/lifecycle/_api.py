# SPDX-License-Identifier: Apache-2.0
"""The execution API as a circuit of its own: while it answers nobody, one job at a time tries it."""

from __future__ import annotations

from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.routing.circuit import Circuit, CircuitState

_UNDER_WAY = (State.SUBMITTED, State.SENT)


class ExecutionApi:
    """When the next job may try. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._circuit = Circuit()
        self._try: Job | None = None
        self._dispatch = 0
        self._tried_at = 0.0

    def broke(self, now: float, reason: str) -> None:
        """It has answered nobody; what is said while nothing may try belongs to the same outage."""
        self._circuit = self._circuit.failed(now, reason, 1.0)

    def answered(self, now: float) -> None:
        self._circuit, self._try = self._circuit.succeeded(now), None

    def may_try(self, now: float) -> bool:
        """Whether a job may be launched to see whether it answers."""
        return self._circuit.state(now) is not CircuitState.OPEN and now >= self._try_over()

    def may_try_at(self) -> float:
        """When it may at the latest, unless it is said to have failed until then."""
        return max(self._circuit.retry_at or 0.0, self._try_over())

    def _try_over(self) -> float:
        """One that waits for a worker, say, keeps the next one waiting no longer than the longest delay."""
        job = self._try
        under_way = job is not None and job.dispatch == self._dispatch and job.state in _UNDER_WAY
        return self._tried_at + self._circuit.max_delay if under_way else 0.0

    def tries(self, job: Job, now: float) -> None:
        """This job, which has just been submitted, tries it."""
        self._try, self._dispatch, self._tried_at = job, job.dispatch, now

    def is_try(self, dispatch: int) -> bool:
        return self._try is not None and dispatch == self._dispatch

    def runs(self, job: Job) -> bool:
        """Whether it is the one that has tried, and has begun."""
        return job is self._try and job.dispatch == self._dispatch and job.state is State.RUNNING
