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


_MOVED = "its route does not lead there any more"
_OVERTAKEN = "others go first that wait for the next free slot there"
_FEWER = "it takes fewer ahead of a free slot"


class Plan(NamedTuple):
    give: list[Decision]
    take_back: list[tuple[Job, str]]
    """And why, for their users."""


_NOTHING = Plan([], [])


def plan(ledger: Ledger) -> Plan:
    """Who is to be given ahead, and who is to be taken back; asked when every free slot has been given away.

    1. Those come back that would not wait for their backend any more, were they held.
    2. Of the held, the best get the places that are left, whatever target of theirs has one.
    3. Others that would have a place if nothing had been given compete with what was given.
    """
    backends = [backend for backend in ledger.backends.values() if backend.ahead or backend.room.ahead]
    if not backends:
        return _NOTHING
    snapshot = ledger.snapshot()
    takes = {backend.name: backend.takes_ahead(ledger.now) for backend in backends}
    given = [job for backend in backends for job in _given(ledger, backend)]
    result = Plan([], _misplaced(ledger, snapshot, given))
    misplaced = {job for job, _ in result.take_back}
    stay = {name: [job for job in given if job.backend == name and job not in misplaced] for name in takes}
    left = {name: max(0, number - len(stay[name])) for name, number in takes.items()}
    waiting = decide(_with_free(snapshot, left), ledger.holding.lanes)
    if any(stay.values()):
        sure = {each.held for each in waiting}
        rivals = decide(_with_free(snapshot, takes), ledger.holding.lanes)
        waiting += [each for each in rivals if each.held not in sure]
    for name, number in takes.items():
        decisions = [each for each in waiting if each.target.backend == name]
        best = _best_of([*stay[name], *(each.held for each in decisions)], number)
        give = [each._replace(ahead=True) for each in decisions if each.held in best]
        result.give.extend(give)
        why = _OVERTAKEN if give else _FEWER
        result.take_back.extend((job, why) for job in stay[name] if job not in best)
    return result


def overflow_at(ledger: Ledger) -> float:
    """When the first of those that are ahead may go to another target; infinite, where none will."""
    jobs = [job for backend in ledger.backends.values() if backend.ahead for job in _given(ledger, backend)]
    moments = (job.since + ledger.routes.match(job).route.patience for job in jobs)
    return min((moment for moment in moments if moment > ledger.now), default=inf)


def _given(ledger: Ledger, backend: Backend) -> list[Job]:
    """Those that have not been asked back."""
    return [ledger.out[dispatch] for dispatch, is_wanted in backend.ahead.items() if is_wanted]


def _misplaced(ledger: Ledger, snapshot: Snapshot, given: Sequence[Job]) -> list[tuple[Job, str]]:
    """Those that would go elsewhere at once, were they held, as many as there is room for; and those whose route does
    not lead to their backend any more."""
    free, found = snapshot.free, []
    for job in sorted(given, key=_ORDER):
        route = ledger.routes.match(job).route
        targets, places = ledger.open_targets(job, route)
        waited, views = snapshot.now - job.since, snapshot.backends
        target, reason = choose(targets, job.kind, waited, route.patience, views, free, places)
        if target is not None and target.backend != job.backend:
            free[target.backend] -= 1
            found.append((job, f"{target.backend!r} takes it now ({reason.words})"))
        elif all(target.backend != job.backend for target in targets):
            found.append((job, _MOVED))
    return found


def _with_free(snapshot: Snapshot, free: Mapping[str, int]) -> Snapshot:
    """As though these backends had that many free slots, and no other had any."""
    views = {name: replace(view, free=free.get(name, 0)) for name, view in snapshot.backends.items()}
    return Snapshot(snapshot.now, views)


def _best_of(jobs: Sequence[Held], number: int) -> set[Held]:
    return set(sorted(jobs, key=_ORDER)[:number])
