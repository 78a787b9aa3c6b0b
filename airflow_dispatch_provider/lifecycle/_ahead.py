# SPDX-License-Identifier: Apache-2.0
"""Jobs that a backend is given before it has a slot for them, so that a free slot never waits for the scheduler.

The best of what is held for it, and only as much as its engine expects to start soon. What has not started can be
overtaken: it is taken back when better jobs are held than may be given besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.routing.decide import Decision, decide
from airflow_dispatch_provider.routing.model import Snapshot

_ORDER = attrgetter("order")


class Plan(NamedTuple):
    give: list[Decision]
    take_back: list[Job]


_NOTHING = Plan([], [])


def plan(ledger: Ledger) -> Plan:
    """Who is to be given ahead, and who is to be taken back; asked when every free slot has been given away."""
    takes = {
        name: backend.takes_ahead(ledger.now)
        for name, backend in ledger.backends.items()
        if backend.ahead or backend.room.ahead
    }
    if not takes:
        return _NOTHING
    waiting = decide(_snapshot(ledger, takes), ledger.holding.lanes)
    result = Plan([], [])
    for name, number in takes.items():
        best = [each for each in waiting if each.target.backend == name]
        given = [ledger.out[dispatch] for dispatch in ledger.backends[name].ahead]
        result.give.extend(best[: max(0, number - len(given))])
        result.take_back.extend(_overtaken(given, best, number))
    return result


def _snapshot(ledger: Ledger, takes: Mapping[str, int]) -> Snapshot:
    """As though the backends that take jobs ahead had that many free slots, and no other had any."""
    views = {
        name: replace(backend.view(ledger.now), free=takes.get(name, 0))
        for name, backend in ledger.backends.items()
        if not backend.gone
    }
    return Snapshot(ledger.now, views)


def _overtaken(given: list[Job], best: list[Decision], number: int) -> Iterator[Job]:
    """Those that are not among the first of all, and have not been asked back yet."""
    everybody = sorted([*given, *(each.held for each in best)], key=_ORDER)
    first = set(everybody[:number])
    return (job for job in given if job not in first and job.withdrawn != job.dispatch)
