# SPDX-License-Identifier: Apache-2.0
"""Jobs that wait: why, how many more there may be, and rows for the user of a task that is held, one each time the
reason changes: soon where something is broken, and after a while for whatever reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle._backend import Backend
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.job import Job, Waits
from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.routing import decide
from airflow_dispatch_provider.routing.decide import Fullness, choose
from airflow_dispatch_provider.routing.hold import Lane
from airflow_dispatch_provider.routing.model import BackendView, Snapshot
from airflow_dispatch_provider.routing.reasons import Reason

_TOLD_OF_LANE, _TOLD_AT_ONCE = 20, 20
"""Users who are told why their task waits for its turn: of how many tasks of a lane, and how many in a ``handle``."""


def why(
    lane: Lane, waited: float, backends: Mapping[str, BackendView], free: Mapping[str, int]
) -> Reason | None:
    """Why a job waits in a lane that has waited for so many seconds; None: it would be dispatched now.

    :param free: as ``Snapshot.free``, which is made anew at each question
    """
    target, reason = choose(lane.targets, lane.kind, waited, lane.overflow_after, backends, free, lane.places)
    return reason if target is None else None


def waits(
    ledger: Ledger, job: Job, asks_rows: bool, snapshot: Snapshot | None = None
) -> Reason | Waits | None:
    """Why a job waits; None if it is not held, or would be dispatched now.

    :param asks_rows: the database has been asked what is still this scheduler's own
    :param snapshot: of this moment, where there is one already
    """
    if job.state is not State.HELD:
        return None
    if (everything := of_everything(ledger, asks_rows)) is not None:
        return everything
    lane = ledger.holding.lane_of(job.key)
    if lane is None:
        return job.waits
    seen = snapshot or ledger.snapshot()
    return why(lane, seen.now - job.since, seen.backends, seen.free)


def fullness(ledger: Ledger, job: Job, snapshot: Snapshot | None = None) -> Fullness:
    """The targets that keep a job waiting for a slot; none, where it waits for anything else.

    :param snapshot: as in ``waits``
    """
    lane = ledger.holding.lane_of(job.key)
    if lane is None:
        return Fullness()
    seen = snapshot or ledger.snapshot()
    return decide.fullness(lane, seen.now - job.since, seen.backends)


def of_everything(ledger: Ledger, asks_rows: bool) -> Waits | None:
    """Why nothing that is held is even decided about; None: it is. See ``waits``."""
    if ledger.api_trouble is not None:
        return Waits.API
    return Waits.ROWS if asks_rows else None


def free_slots(ledger: Ledger) -> int:
    """Slots that a new task could really get: free ones of each backend without those that are wanted by what is held
    for it, and what may be given ahead. While jobs for full backends are in the way of jobs for free ones, as many more
    as may be held: Airflow queues in priority order and cannot pass over those of a full backend."""
    room = ledger.limits.max_held - ledger.held
    wanted = ledger.holding.by_first_choice
    really_free, ahead, in_the_way = 0, 0, False
    for name, backend in list(ledger.backends.items()):  # the overview counts on another thread
        if backend.gone:
            continue
        view, waiting = backend.view(ledger.now), wanted.get(name, 0)
        free = 0 if view.blocked else view.free
        really_free += max(0, free - waiting)
        ahead += max(0, backend.free_ahead(ledger.now) - max(0, waiting - free))
        in_the_way = in_the_way or waiting > free
    return max(0, room if really_free and in_the_way else min(room, really_free + ahead))


def slots_occupied(ledger: Ledger) -> int:
    """Airflow queues nothing once these reach its ``parallelism``, so what may be given ahead is subtracted; but only
    while no slot is free, as what is queued besides would else start at once."""
    backends, now = ledger.backends.values(), ledger.now
    occupied = sum(backend.out for backend in backends)
    if any(backend.room.slots > backend.out and not backend.view(now).blocked for backend in backends):
        return occupied
    return max(0, occupied - sum(backend.takes_ahead(now) for backend in backends))


def tell(ledger: Ledger, job: Job, waits: Reason | Waits | None) -> None:
    """Called from time to time with why a held job waits. What only waits for its turn is told after a while: see
    ``is_told``. What could not be launched has been told already."""
    if waits is Waits.API:
        detail = f"The execution API answers nobody. {ledger.api_trouble or ''}".rstrip()
    elif waits is Reason.WAITS_BLOCKED:
        detail = troubles(ledger, job)
    elif waits is None or waits is Waits.LAUNCH or not is_told(ledger, job):
        return
    else:
        detail = _detail(ledger, job, waits)
    if job.told != waits.value:
        job.told = waits.value
        ledger.told = ledger.moment, _told_now(ledger) + 1
        ledger.do(actions.Record(job.key, waits.value, detail))


def is_told(ledger: Ledger, job: Job) -> bool:
    """Whether its user is told why it waits, be nothing broken: it has waited for long, few wait before it for the same
    targets, and not too many have been told in this ``handle``. Behind a hundred thousand others there is nothing to
    tell but that, and the event log is there for other things, too."""
    after, lane = ledger.limits.told_after, ledger.holding.lane_of(job.key)
    if not after or ledger.now - job.since < after or _told_now(ledger) >= _TOLD_AT_ONCE:
        return False
    return lane is None or lane.entries.is_among_first(job, _TOLD_OF_LANE)


def _told_now(ledger: Ledger) -> int:
    moment, number = ledger.told
    return number if moment == ledger.moment else 0


def _detail(ledger: Ledger, job: Job, waits: Reason | Waits) -> str:
    if isinstance(waits, Waits):
        return f"{waits.words}."
    found = fullness(ledger, job) if waits is Reason.WAITS_FULL else Fullness()
    closed = {name: why for name, why in found.full if why}

    def words(backend: Backend) -> str:
        if backend.name in found.left_out:
            return "It is left out (overflow_after: never)."
        return " ".join(filter(None, (backend.fullness(ledger.now), closed.get(backend.name))))

    return f"{waits.words}. {_of_targets(ledger, job, words)}".rstrip()


def is_anything_broken(ledger: Ledger) -> bool:
    """Whether any job could get such a row now."""
    if ledger.api_trouble is not None:
        return True
    return any(backend.trouble(ledger.now) for backend in ledger.backends.values())


def troubles(ledger: Ledger, job: Job) -> str:
    """Why the targets of a held job take no work, in sentences; empty where they do."""
    return _of_targets(ledger, job, lambda backend: backend.trouble(ledger.now))


def _of_targets(ledger: Ledger, job: Job, words: Callable[[Backend], str]) -> str:
    """A sentence about each backend that a held job may go to, where there is one."""
    lane = ledger.holding.lane_of(job.key)
    names = dict.fromkeys(target.backend for target in lane.targets) if lane is not None else {}
    backends = [ledger.backends[name] for name in names if name in ledger.backends]
    texts = ((backend.name, words(backend)) for backend in backends)
    return " ".join(f"{name}: {text}" for name, text in texts if text)
