# SPDX-License-Identifier: Apache-2.0
"""A look at the life cycle from another thread: what its backends have, and what waits and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from math import inf
from typing import NamedTuple

from airflow_dispatch_provider.lifecycle import _waiting
from airflow_dispatch_provider.lifecycle._backend import Backend
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.job import Job, Waits
from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.lifecycle.story import steps
from airflow_dispatch_provider.lifecycle.transitions import TABLE
from airflow_dispatch_provider.routing.decide import Fullness
from airflow_dispatch_provider.routing.model import Target
from airflow_dispatch_provider.routing.reasons import Reason


class BackendFigures(NamedTuple):
    """One backend at a moment. Times are monotonic seconds."""

    name: str
    slots: int
    used: int
    ahead: int
    """Given to it ahead of a free slot."""

    free: int
    """How many jobs it would take now."""

    held: int
    """Jobs that wait and have it as first choice."""

    given: int
    """Dispatches since the start."""

    ended: int
    """Those of them that have ended there; not those that came back."""

    is_failing: bool
    """It cannot be used, or has not been tried since it failed."""

    is_cordoned: bool
    is_gone: bool
    """No longer configured."""

    trouble: str
    """Why it takes no work, in a sentence; empty: it does."""

    retry_at: float | None
    """When it is tried again; None: nobody can say, or it works."""

    closed: Mapping[str, str]
    """Lanes of it that are full by themselves, and why."""

    hint: str
    """See ``Room``."""


class Line(NamedTuple):
    """Held jobs that have the same targets in the same order."""

    route: str
    targets: tuple[Target, ...]
    held: int
    since: float
    """Since when the oldest of them waits (monotonic seconds)."""

    reason: Reason | Waits | None
    """Why the first of them waits; None: it would be dispatched now."""

    detail: str
    """The trouble of its targets, in sentences."""

    first: list[Job]
    """Some of them, best first."""


class Overview:
    """
    Made and read by another thread than the one that changes what it shows, without a lock.

    Each collection is copied in one step of the interpreter before it is gone through, and what belongs to a job or to
    a backend is read one by one: figures may be one event apart, and nothing fails over that.
    """

    def __init__(self, ledger: Ledger, asks_rows: bool) -> None:
        """
        :param asks_rows: the database has been asked what is still this scheduler's own
        """
        self._ledger, self._asks_rows = ledger, asks_rows
        self.now = ledger.now
        """When the scheduler's thread was last here (monotonic seconds)."""

        self.held = ledger.held
        self.takes = _waiting.free_slots(ledger)
        """How many more tasks Airflow may queue."""

        self.api_trouble = ledger.api_trouble
        """Why nothing is launched; None: the execution API answers."""

        self.apart: list[Job] = []
        """Held jobs that wait for something other than a target, and stand in no line."""

        self._jobs, self._snapshot = list(ledger.jobs.values()), ledger.snapshot()
        self._oldest: dict[int, float] = {}
        """By lane."""

        self._returning: set[Job] = set()
        self._go_through()
        wanted = ledger.holding.by_first_choice
        backends = list(ledger.backends.values())
        self.backends = [_figures(each, wanted.get(each.name, 0), self.now) for each in backends]

    def _go_through(self) -> None:
        lane_of, oldest = self._ledger.holding.lane_of, self._oldest
        for job in self._jobs:
            if job.state is not State.HELD:
                if job.state is State.RETURNING:
                    self._returning.add(job)
                continue
            lane = lane_of(job.key)
            if lane is None:
                self.apart.append(job)
            elif job.since < oldest.get(id(lane), inf):
                oldest[id(lane)] = job.since

    def lines(self, first: int) -> Iterator[Line]:
        """
        Everything that waits for a target.

        :param first: how many jobs of each to name
        """
        for lane in list(self._ledger.holding.lanes):
            jobs = [job for job in islice(lane.entries, first) if isinstance(job, Job)]
            if jobs:
                reason, detail = self.reason(jobs[0]), _waiting.troubles(self._ledger, jobs[0])
                since = self._oldest.get(id(lane), jobs[0].since)
                yield Line(lane.match.name, lane.targets, len(lane.entries), since, reason, detail, jobs)

    def reason(self, job: Job) -> Reason | Waits | None:
        """Why a job waits; None: it does not, or would be dispatched now."""
        return _waiting.waits(self._ledger, job, self._asks_rows, self._snapshot)

    def fullness(self, job: Job) -> Fullness:
        """The targets that keep a job waiting for a slot; none, where it waits for anything else."""
        is_full = self.reason(job) in (Reason.WAITS_FULL, Reason.WAITS_OVERFLOW)
        return _waiting.fullness(self._ledger, job, self._snapshot) if is_full else Fullness()

    def returning(self) -> Counter[str]:
        """By backend: jobs without a slot there, which the database is asked to set back to scheduled. Those before its
        slots were counted and those after: one that comes to this meanwhile, or begins after all, is in one of both."""
        found = self._returning.union(job for job in self._jobs if job.state is State.RETURNING)
        return Counter(job.backend for job in found if job.backend is not None)

    def out(self) -> dict[str, list[Job]]:
        """Everything that each backend has."""
        found: dict[str, list[Job]] = {}
        for job in self._jobs:
            if job.dispatch in self._ledger.out and job.backend is not None:
                found.setdefault(job.backend, []).append(job)
        return found

    def not_begun_since(self, out: Collection[Job]) -> float | None:
        """Since when a backend has the oldest of its jobs that has not begun, in monotonic seconds; None: there is
        none, but for those that it was given ahead of a free slot.

        :param out: everything that it has
        """
        backends = self._ledger.backends
        waits = [
            job
            for job in out
            if job.state in NOT_BEGUN
            and (backend := backends.get(job.backend or "")) is not None
            and job.dispatch not in backend.ahead
        ]
        return given_at(min(waits, key=lambda job: job.dispatch)) if waits else None


def users(out: Collection[Job]) -> Counter[str]:
    """How many of these are tasks of which Dag."""
    return Counter(job.dag_id for job in out)


def longest_out(out: Collection[Job], first: int) -> list[Job]:
    """Those that their backend has had for longest: numbers of dispatches grow."""
    return nsmallest(first, out, key=lambda job: job.dispatch)


def given_at(job: Job) -> float:
    """Since when its backend has it, in monotonic seconds."""
    story = steps(job.story, TABLE)
    return next((step.at for step in reversed(story) if step.state in _GIVEN), job.since)


_GIVEN = (State.SUBMITTED, State.ADOPTING)
NOT_BEGUN = (State.SUBMITTED, State.SENT)


def has_begun(job: Job) -> bool | None:
    """Whether a job that is out has begun, as far as anybody here has seen it; None: its backend has not answered yet
    whether it has it."""
    if job.state is State.ADOPTING and not job.runs:
        return None
    return job.state not in NOT_BEGUN


def _figures(backend: Backend, held: int, now: float) -> BackendFigures:
    view, circuit = backend.view(now), backend.circuit
    return BackendFigures(
        backend.name,
        backend.room.slots,
        backend.used,
        len(backend.ahead),
        view.free,
        held,
        backend.given,
        backend.ended,
        backend.fails(now),
        backend.cordoned,
        backend.gone,
        backend.trouble(now) or circuit.error or "",
        backend.retry_at,
        backend.room.closed,
        backend.room.hint,
    )
