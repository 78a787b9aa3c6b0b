# SPDX-License-Identifier: Apache-2.0
"""Jobs that a backend is given before it has a slot for them, so that a free slot never waits for the scheduler.

The best of what is held for it, and only as much as its engine expects to start soon. What has not started is decided
about with every heartbeat: it is taken back when better jobs are held, or when another target of it is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from operator import attrgetter
from typing import NamedTuple

from airflow_dispatch_provider.lifecycle._backend import Backend
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.routing.decide import Decision, choose, decide
from airflow_dispatch_provider.routing.model import Held, Snapshot

_ORDER = attrgetter("order")


class Plan(NamedTuple):
    give: list[Decision]
    take_back: list[Job]


_NOTHING = Plan([], [])


def plan(ledger: Ledger, snapshot: Snapshot) -> Plan:
    """Who is to be given ahead, and who is to be taken back; asked when every free slot has been given away.

    :param snapshot: of this moment
    """
    backends = [backend for backend in ledger.backends.values() if backend.ahead or backend.room.ahead]
    if not backends:
        return _NOTHING
    result = Plan([], [])
    takes = {backend.name: backend.takes_ahead(ledger.now) for backend in backends}
    given = {backend.name: _given(ledger, backend) for backend in backends}
    free = {name: view.free for name, view in snapshot.backends.items() if view.blocked is None}
    for jobs in given.values():
        result.take_back.extend(job for job in jobs if not _belongs(ledger, snapshot, free, job))
        jobs[:] = [job for job in jobs if job not in result.take_back]
    left = {name: max(0, number - len(given[name])) for name, number in takes.items()}
    waiting = decide(_with_free(snapshot, left), ledger.holding.lanes)
    if any(given.values()):
        sure = {each.held for each in waiting}
        rivals = decide(_with_free(snapshot, takes), ledger.holding.lanes)
        waiting += [each for each in rivals if each.held not in sure]
    for name, number in takes.items():
        best = [each for each in waiting if each.target.backend == name]
        first = _first(number, given[name], [each.held for each in best])
        result.give.extend(each for each in best if each.held in first)
        result.take_back.extend(job for job in given[name] if job not in first)
    return result


def overflow_at(ledger: Ledger) -> float:
    """When the first of those that are ahead may go to another target; infinite, where none will."""
    jobs = [job for backend in ledger.backends.values() if backend.ahead for job in _given(ledger, backend)]
    moments = (job.since + ledger.routes.match(job).route.patience for job in jobs)
    return min((moment for moment in moments if moment > ledger.now), default=inf)


def _given(ledger: Ledger, backend: Backend) -> list[Job]:
    """Those that have not been asked back."""
    return [ledger.out[dispatch] for dispatch, is_wanted in backend.ahead.items() if is_wanted]


def _belongs(ledger: Ledger, snapshot: Snapshot, free: Mapping[str, int], job: Job) -> bool:
    """Whether it would still wait for its backend, were it held."""
    route = ledger.routes.match(job).route
    targets, places = ledger.open_targets(job, route)
    waited, views = snapshot.now - job.since, snapshot.backends
    target, _ = choose(targets, job.kind, waited, route.patience, views, free, places)
    goes_elsewhere = target is not None and target.backend != job.backend
    return not goes_elsewhere and any(target.backend == job.backend for target in targets)


def _with_free(snapshot: Snapshot, free: Mapping[str, int]) -> Snapshot:
    """As though these backends had that many free slots, and no other had any."""
    views = {name: replace(view, free=free.get(name, 0)) for name, view in snapshot.backends.items()}
    return Snapshot(snapshot.now, views)


def _first(number: int, given: Sequence[Held], waiting: Sequence[Held]) -> set[Held]:
    """The best of all, so many."""
    return set(sorted([*given, *waiting], key=_ORDER)[:number])
