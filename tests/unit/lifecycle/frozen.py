# SPDX-License-Identifier: Apache-2.0
"""Machines as bytes: what worlds are compared by, and copied from."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import Counter
from typing import NamedTuple

from airflow_dispatch_provider.lifecycle._backend import Stage
from airflow_dispatch_provider.lifecycle.events import (
    BackendRules,
    Limits,
    Room,
    Settings,
)
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.lifecycle.story import Past
from airflow_dispatch_provider.lifecycle.transitions import ROWS
from airflow_dispatch_provider.routing.circuit import Circuit
from airflow_dispatch_provider.routing.model import Route, Target, TaskRef
from airflow_dispatch_provider.routing.routes import Match, RouteTable

FOREVER = 1e12
LONG = 100.0
"""A step of time that is longer than any delay of the machine."""

REFS = [TaskRef("q", "dag", str(j)) for j in range(6)]


class Wrong(AssertionError):
    """An invariant does not hold."""


_ORDERS = ((0, 1), (1, 0))
"""The two ways to name two of a kind."""

_NAMES = tuple((*order, 2, 3, 4, 5) for order in _ORDERS)
"""The same for tasks, of which there may be more."""


def orders(kinds):
    """Both ways only where the two cannot be told apart."""
    first, second = map(str, kinds)
    return _ORDERS if first == second else _ORDERS[first > second :][:1]


class Frozen(NamedTuple):
    """A machine as bytes, and what is asked of it while it is."""

    content: bytes
    keys: tuple
    """As the jobs are named, and the other way round."""

    ranks: dict
    moments: list
    empty: bool
    due: bool
    overfull: bool
    """It has given a backend more than that has slots; what was adopted does not count."""

    waits: bool
    """Something happens if time passes."""


def _jobs(machine):
    ledger = machine._ledger
    return [*ledger.jobs.values(), *(job for job in ledger.out.values() if job.state is State.REVOKING)]


def _machine_key(machine, now, ranks, jobs, names):
    ledger = machine._ledger
    return (
        tuple(
            (names[job.key], *_job_key(job, ranks, now)) for job in sorted(jobs, key=lambda job: job.sequence)
        ),
        tuple(_backend_key(backend, now, names) for backend in ledger.backends.values()),
        ledger.stirred or now >= machine._nothing_before,
        ledger.api_trouble is None,
        machine._api.may_try(now),
        tuple(machine._api._refuted.items()),
        ledger.api_trouble is not None and now - ledger.api_met > LONG,
        tuple((names[job.key], now >= due) for job, due in ledger.looks if due < FOREVER / 2),
    )


def _job_key(job, ranks, now):
    unclear = job.state is State.UNCLEAR
    return (
        job.state,
        job.backend,
        ranks.get(job.dispatch, 0),
        job.failures,
        job.waits,
        0 if job.due <= now else 1 if job.due <= now + LONG else 2,
        job.state is State.ADOPTING and min(2, int((now - job.since) / LONG)),
        unclear
        and (now > job.ended_at, now > job.looked_at, job.may_have_begun, job.ended_well, job.offered_well),
        unclear and job.silent_since and (1 if now > job.silent_since else 2),
        job.over,
        job.began,
        job.runs,
        job.candidates,
        job.asked,
        tuple((each.backend, each.times, each.until > now, each.refused) for each in job.paused),
        job.withdrawn == job.dispatch,
        job.recalled == job.dispatch,
        job.orphan,
        job.revoked,
        job.nothing_ran,
        job.dead,
        job.workload is None,
    )


def _backend_key(backend, now, names):
    circuit = backend.circuit
    retry = None if circuit.retry_at is None else circuit.retry_at <= now
    stable = circuit.closed_at is not None and now - circuit.closed_at >= 60
    failures = 0 if stable else circuit.failures
    return (
        backend.room.slots,
        backend.out,
        backend.trying is not None,
        backend.api_away,
        retry,
        failures,
        tuple((stage.value, names[int(seed)]) for stage, seed in backend.suspects.items()),
    )


# Worlds are copied some hundred thousand times: what never changes is shared or left out, stories are dropped.

_BY_INDEX, _INDEX = [], {}


def _shared(index):
    return _BY_INDEX[index]


def _reduce(value):
    index = _INDEX.get(id(value))
    if index is None:
        index = _INDEX[id(value)] = len(_BY_INDEX)
        _BY_INDEX.append(value)
    return _shared, (index,)


_CIRCUITS = {}


def _reduce_circuit(circuit):
    return _reduce(_CIRCUITS.setdefault(circuit, circuit))


_SHARED_TYPES = (
    RouteTable,
    Match,
    Route,
    Target,
    Settings,
    Limits,
    BackendRules,
    Room,
    TaskRef,
    State,
    Waits,
    Stage,
)
_DISPATCH = copyreg.dispatch_table | dict.fromkeys(_SHARED_TYPES, _reduce) | {Circuit: _reduce_circuit}


def freeze(machine, now):
    """A machine and its time as bytes, of which ``thaw`` makes as many copies as are wanted; it is of no use itself
    from then on."""
    ledger, jobs = machine._ledger, _jobs(machine)
    for name, used in machine.slots_used.items():
        if used != sum(job.backend == name for job in ledger.out.values()):
            raise Wrong(f"slots of {name} are counted wrong: {used}")
    ledger.past = Past()
    ledger.rows = {}
    for job in jobs:
        job.story = ()
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _DISPATCH
    pickler.dump([machine, now])
    ranks = {number: rank for rank, number in enumerate(sorted(ledger.out), 1)}
    moments = [ledger.jobs[j].moment if j in ledger.jobs else FOREVER for j in range(len(REFS))]
    looks = ledger.limits.look_every < FOREVER and ledger.jobs
    away = ledger.api_trouble or any(b.circuit.retry_at is not None for b in ledger.backends.values())
    waits = bool(looks or (away and ledger.held) or any(job.due < FOREVER for job in jobs))
    due = any(job.due <= now for job in jobs)
    keys = tuple(hash(_machine_key(machine, now, ranks, jobs, names)) for names in _NAMES)
    return Frozen(
        buffer.getvalue(), keys, ranks, moments, not jobs and not ledger.out, due, _overfull(ledger), waits
    )


def _overfull(ledger):
    given = Counter(job.backend for job in ledger.out.values() if job.workload is not None)
    return any(given[name] > backend.room.slots for name, backend in ledger.backends.items())


def thaw(content):
    machine, now = pickle.loads(content)
    machine._ledger.rows = ROWS
    return machine, now
