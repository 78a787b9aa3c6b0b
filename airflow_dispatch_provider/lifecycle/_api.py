# SPDX-License-Identifier: Apache-2.0
"""The execution API as a circuit of its own: while it answers nobody, one job at a time tries it, or a question of ours
where no job waits for it.

An engine can only tell that it answers none of its own tasks, and the scheduler that it does not answer the scheduler.
Where others begin on another backend after that, the trouble is that backend's, or the scheduler's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_dispatch_provider.lifecycle.events import Began, Ended
from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.lifecycle.states import Outcome, State
from airflow_dispatch_provider.routing.circuit import Circuit, CircuitState
from airflow_dispatch_provider.routing.decide import Decision

_UNDER_WAY = (State.SUBMITTED, State.SENT)

_SLOW = 10.0
"""Seconds after which a job that tries it, and has said nothing, may have got to a slow backend."""


class ExecutionApi:
    """When the next job may try. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._circuit = Circuit()
        self._try: Job | None = None
        self._dispatch = 0
        self._is_asked = False
        self._tried_at = self._asked_at = 0.0
        self._refuted: dict[str, bool] = {}
        """Backends whose last task met no answer, and whether one has begun on another backend since; the empty name is
        the scheduler's own."""

    def take_refutation(self, backend: str) -> bool:
        """Take note that it does not answer a task of a backend; returns whether it has let one begin on another
        since it did so the last time. Each time it has to be refuted anew: it may have gone away meanwhile."""
        refuted = self._refuted.get(backend, False)
        self._refuted[backend] = False
        return refuted

    def choose(self, decisions: Sequence[Decision]) -> Sequence[Decision]:
        """The one job that is to try it: on a backend that has met no trouble, if there is one."""
        others = [each for each in decisions if each.target.backend not in self._refuted]
        return (others or decisions)[:1]

    def broke(self, now: float, reason: str) -> None:
        """It has answered nobody; what is said while nothing may try belongs to the same outage."""
        self._circuit, self._is_asked = self._circuit.failed(now, reason, 1.0), False

    def answered(self, now: float) -> None:
        self._circuit, self._try, self._is_asked = self._circuit.succeeded(now), None, False

    def may_try(self, now: float) -> bool:
        """Whether a job may be launched to see whether it answers."""
        return self._circuit.state(now) is not CircuitState.OPEN and now >= self._try_over()

    def may_ask(self, now: float) -> bool:
        """Whether it is to be asked by ourselves: no job tries it, or one that has said nothing for a while."""
        if self._is_asked and now < self._asked_at + self._circuit.max_delay:
            return False
        is_due = not self._is_tried or now >= self._tried_at + _SLOW
        return is_due and self._circuit.state(now) is not CircuitState.OPEN

    def next_at(self) -> float:
        """When either may be so next, at the latest, unless it is said to have failed until then."""
        longest = self._circuit.max_delay
        moments = [self._asked_at + longest] if self._is_asked else []
        if self._is_tried:
            moments.append(self._tried_at + (longest if self._is_asked else _SLOW))
        return max(self._circuit.retry_at or 0.0, min(moments, default=0.0))

    @property
    def _is_tried(self) -> bool:
        job = self._try
        return job is not None and job.dispatch == self._dispatch and job.state in _UNDER_WAY

    def _try_over(self) -> float:
        """One that waits for a worker, say, keeps the next one waiting no longer than the longest delay."""
        return self._tried_at + self._circuit.max_delay if self._is_tried else 0.0

    def tries(self, job: Job, now: float) -> None:
        """This job, which has just been submitted, tries it."""
        self._try, self._dispatch, self._tried_at = job, job.dispatch, now

    def asked(self, now: float) -> None:
        """It has been asked by ourselves."""
        self._is_asked, self._asked_at = True, now

    def hear(self, job: Job, event: Any) -> bool:
        """Take in news of a task; returns whether it shows that what was tried has succeeded. What ends well without
        having been seen to begin may be something else than the task."""
        ended = event if isinstance(event, Ended) and event.began else None
        if isinstance(event, Began) or (ended and ended.how is Outcome.SUCCESS):
            self._has_begun(job)
        elif not ended:
            return False
        return self._try is not None and event.dispatch == self._dispatch

    def see(self, job: Job, has_beaten: bool) -> bool:
        """The same for a task about which the database was asked.

        :param has_beaten: its process has reached the execution API since
        """
        tried = job is self._try and job.dispatch == self._dispatch
        succeeded = has_beaten or (tried and job.state is State.RUNNING)
        if succeeded:
            self._has_begun(job)
        return succeeded

    def _has_begun(self, job: Job) -> None:
        self._refuted.pop(job.backend or "", None)
        for backend in self._refuted:
            self._refuted[backend] = True
