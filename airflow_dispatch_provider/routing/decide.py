# SPDX-License-Identifier: Apache-2.0
"""The whole policy: which held workload goes to which target now, and why.

The cases of one workload, in the order in which ``choose`` meets them while it walks the targets:

1. the target cannot run this type of workload: pass over it;
2. its backend takes no work (cordoned, circuit open): pass over it at once, that is failover;
3. its backend has a free slot: take it;
4. its backend is full and the workload has waited ``overflow_after``: pass over it, that is overflow;
5. its backend is full and the workload has not waited that long: wait.

A backend is full, too, for what would use a lane of it that is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappushpop
from itertools import zip_longest
from math import inf
from typing import NamedTuple

from airflow_dispatch_provider.routing.hold import Lane, Places
from airflow_dispatch_provider.routing.model import BackendView, Held, Snapshot, Target
from airflow_dispatch_provider.routing.reasons import Reason

_GONE = BackendView(free=0, blocked=Reason.UNKNOWN_BACKEND)


class Decision(NamedTuple):
    """Give ``held`` to ``target`` now."""

    held: Held
    target: Target
    route: str
    reason: Reason
    ahead: bool = False
    """It has no slot for it yet: the next one that becomes free there is meant."""


def choose(
    targets: Iterable[Target],
    kind: str,
    waited: float,
    overflow_after: float,
    backends: Mapping[str, BackendView],
    free: Mapping[str, int],
    places: Places = (),
) -> tuple[Target | None, Reason]:
    """The target for one workload and why; no target, and why it waits, where there is none.

    :param waited: seconds that it has been held
    :param overflow_after: seconds after which it may pass over a full target
    :param free: slots still free, by backend; overrides ``BackendView.free`` while a batch is decided
    :param places: the lane that it would use at each target
    """
    taken, waits = Reason.FIRST_CHOICE, Reason.UNSUPPORTED
    rest = zip_longest(targets, places)
    for target, place in rest:
        view = backends.get(target.backend, _GONE)
        if kind not in view.kinds and view is not _GONE:
            taken = _later(taken, Reason.CAPABLE)
        elif view.blocked is not None:
            taken, waits = _later(taken, Reason.FAILOVER), _later(waits, Reason.WAITS_BLOCKED)
        elif free.get(target.backend, 0) > 0 and place not in view.closed:
            return target, taken
        elif waited >= overflow_after:
            taken, waits = Reason.OVERFLOW, Reason.WAITS_FULL
        else:
            overflows = overflow_after < inf and any(_takes(kind, backends, later) for later, _ in rest)
            return None, Reason.WAITS_OVERFLOW if overflows else Reason.WAITS_FULL
    return None, waits


def _takes(kind: str, backends: Mapping[str, BackendView], target: Target) -> bool:
    """Whether it would take such work if it had a free slot."""
    view = backends.get(target.backend, _GONE)
    return view.blocked is None and kind in view.kinds


class Fullness(NamedTuple):
    """The targets that keep a workload waiting for a slot."""

    full: tuple[tuple[str, str], ...] = ()
    """Backends that are full, each with the reason where only a lane of it is."""

    left_out: tuple[str, ...] = ()
    """Backends to which it may not overflow, or not yet."""


def fullness(lane: Lane, waited: float, backends: Mapping[str, BackendView]) -> Fullness:
    """As ``choose`` walks the targets of a workload that has been held for so many seconds, and waits for a slot."""
    full: dict[tuple[str, str], None] = {}
    left_out: dict[str, None] = {}
    for target, place in zip_longest(lane.targets, lane.places):
        if not _takes(lane.kind, backends, target):
            continue
        if full and waited < lane.overflow_after:
            left_out[target.backend] = None
        else:
            full[target.backend, backends[target.backend].closed.get(place or "", "")] = None
    return Fullness(tuple(full), tuple(left_out))


_WEIGHT = {
    Reason.FIRST_CHOICE: 0,
    Reason.CAPABLE: 1,
    Reason.FAILOVER: 2,
    Reason.OVERFLOW: 3,
    Reason.UNSUPPORTED: 0,
    Reason.WAITS_BLOCKED: 1,
    Reason.WAITS_FULL: 2,
}


def _later(known: Reason, new: Reason) -> Reason:
    """Of two reasons for passing over targets, the one that tells the user more."""
    return new if _WEIGHT[new] > _WEIGHT[known] else known


def decide(snapshot: Snapshot, lanes: Iterable[Lane]) -> list[Decision]:
    """Match held workloads with free slots, in one priority order over all lanes.

    Pure: neither argument is changed. Costs the number of lanes plus the number of decisions; a lane whose
    best workload waits is left alone, but for those of it that have waited long enough to overflow.
    """
    free = {
        name: view.free for name, view in snapshot.backends.items() if view.blocked is None and view.free > 0
    }
    if not free:
        return []
    decisions: list[Decision] = []
    heads = [
        (held.order, index, cursor)
        for index, cursor in enumerate(_cursors(lanes, snapshot, free))
        if (held := cursor.current) is not None
    ]
    heapify(heads)
    entry = heappop(heads) if heads else None
    while entry is not None and free:
        _, index, cursor = entry
        decision = cursor.decide()
        if decision is not None:
            decisions.append(decision)
            _take(free, decision.target.backend)
        held = cursor.current
        if held is not None:
            entry = heappushpop(heads, (held.order, index, cursor))
        else:
            entry = heappop(heads) if heads else None
    return decisions


def _take(free: dict[str, int], backend: str) -> None:
    free[backend] -= 1
    if not free[backend]:
        del free[backend]


def _cursors(lanes: Iterable[Lane], snapshot: Snapshot, free: Mapping[str, int]) -> Iterator[_Cursor]:
    for lane in lanes:
        if any(target.backend in free for target in lane.targets):
            yield _Cursor(lane, snapshot, free)


class _Cursor:
    """Walks one lane. Slots only become fewer while a batch is decided, so once a workload has to wait, only
    those of the lane that may overflow are worth a look, and once one of these waits, nothing is."""

    def __init__(self, lane: Lane, snapshot: Snapshot, free: Mapping[str, int]) -> None:
        self._lane, self._snapshot, self._free = lane, snapshot, free
        self._entries: Iterator[Held] = iter(lane.entries)
        self._overflowing = False
        self._settled: tuple[Target, Reason] | None = None
        """The choice for the last one, if it was none for the time that it had waited."""

        self.current: Held | None = next(self._entries, None)

    def decide(self) -> Decision | None:
        """Decide for the current workload and move on; None where it waits."""
        held = self.current
        assert held is not None
        waited = self._snapshot.now - held.since
        target, reason = self._choose(waited)
        if target is not None:
            self.current = next(self._entries, None)
            return Decision(held, target, self._lane.match.name, reason)
        if self._overflowing or waited >= self._lane.overflow_after or self._choose(inf)[0] is None:
            self.current = None
        else:
            self._overflowing = True
            self._entries = filter(self._may_overflow, self._entries)
            self.current = next(self._entries, None) if self._may_overflow(self._lane) else None
        return None

    def _choose(self, waited: float) -> tuple[Target | None, Reason]:
        settled, lane, free = self._settled, self._lane, self._free
        if settled is not None and settled[0].backend in free:
            return settled
        choice = choose(
            lane.targets, lane.kind, waited, lane.overflow_after, self._snapshot.backends, free, lane.places
        )
        target, reason = choice
        if target is not None:
            self._settled = None if reason is Reason.OVERFLOW else (target, reason)
        return choice

    def _may_overflow(self, held: Held | Lane) -> bool:
        return self._snapshot.now - held.since >= self._lane.overflow_after
