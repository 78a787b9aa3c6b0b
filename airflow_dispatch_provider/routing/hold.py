# SPDX-License-Identifier: Apache-2.0
"""The hold queue: workloads that have a route but no backend yet."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from math import inf
from operator import attrgetter

from airflow_dispatch_provider.routing.model import Held, Order, Target
from airflow_dispatch_provider.routing.routes import Match

_ORDER = attrgetter("order")
_PIECE = 256
"""Entries that a piece has at most: small against the memory that a processor moves in a microsecond."""


class Entries:
    """Held workloads, best first. Cut into sorted pieces, so that adding and removing do not shift everything
    that waits."""

    def __init__(self) -> None:
        self._pieces: list[list[Held]] = []
        """None of them empty."""

        self._lasts: list[Order] = []
        """The order of the last of each piece."""

    def __iter__(self) -> Iterator[Held]:
        return chain.from_iterable(self._pieces)

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def is_among_first(self, held: Held, number: int) -> bool:
        """Whether no more than ``number - 1`` others come before it."""
        last = next(islice(self, number - 1, None), None)
        return last is None or held.order <= last.order

    def add(self, held: Held) -> None:
        if not self._pieces:
            self._pieces.append([])
            self._lasts.append(held.order)
        index = min(bisect_left(self._lasts, held.order), len(self._lasts) - 1)
        piece = self._pieces[index]
        insort(piece, held, key=_ORDER)
        if len(piece) > _PIECE:
            middle = len(piece) // 2
            self._pieces[index : index + 1] = [piece[:middle], piece[middle:]]
            self._lasts.insert(index, piece[middle - 1].order)
            index += 1
        self._lasts[index] = self._pieces[index][-1].order

    def remove(self, held: Held) -> None:
        index = bisect_left(self._lasts, held.order)
        piece = self._pieces[index]
        del piece[0 if piece[0] is held else bisect_left(piece, held.order, key=_ORDER)]
        if piece:
            self._lasts[index] = piece[-1].order
        else:
            del self._pieces[index], self._lasts[index]


Places = tuple[str | None, ...]
"""For each target, the lane of its backend that the workload would use there; None, or no entry: it has none."""


LaneKey = tuple[Hashable, ...]


@dataclass(eq=False)
class Lane:
    """Held workloads that have the same targets in the same order, best first.

    What can be decided for the first of a lane can be decided for all of it, which is why a heartbeat costs
    what moves and not what waits.
    """

    match: Match
    targets: tuple[Target, ...]
    kind: str
    places: Places = ()
    key: LaneKey = ()
    entries: Entries = field(default_factory=Entries)
    overflow_after: float = field(init=False)
    """Seconds; infinite for ``never``."""

    since: float = field(init=False, default=inf)
    """Nothing here has waited for longer than since this moment; what had may be gone."""

    def __post_init__(self) -> None:
        self.overflow_after = self.match.route.patience


class HoldQueue:
    """All lanes. ``decide`` reads them; only the methods here change them."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane] = {}
        self._held: dict[Hashable, Held] = {}
        self._first_choice: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._held)

    @property
    def lanes(self) -> Iterable[Lane]:
        return self._lanes.values()

    @property
    def held(self) -> Iterator[Held]:
        return iter(self._held.values())

    @property
    def by_first_choice(self) -> Mapping[str, int]:
        """How many wait whose first target is this backend."""
        return self._first_choice

    def add(self, held: Held, match: Match, targets: tuple[Target, ...], places: Places = ()) -> None:
        """A key that is held already is replaced: the newer workload is the one that counts."""
        if held.key in self._held:
            self.remove(held.key)
        # Hashing the targets of every workload takes longer than the rest of this.
        order = None if targets is match.route.to else targets
        lane_key = (match, order, held.kind, places)
        lane = self._lanes.get(lane_key)
        if lane is None:
            lane = self._lanes[lane_key] = Lane(match, targets, held.kind, places, lane_key)
        lane.entries.add(held)
        if held.since < lane.since:
            lane.since = held.since
        self._held[held.key], held.lane = held, lane
        self._first_choice[targets[0].backend] += 1

    def remove(self, key: Hashable) -> Held | None:
        """Take one out wherever it stands; None if it is not held."""
        held = self._held.pop(key, None)
        if held is None:
            return None
        lane: Lane = held.lane
        lane.entries.remove(held)
        self._first_choice[lane.targets[0].backend] -= 1
        if not lane.entries:
            del self._lanes[lane.key]
        return held

    def lane_of(self, key: Hashable) -> Lane | None:
        """Where a workload stands; None if it is not held."""
        held = self._held.get(key)
        return None if held is None else held.lane

    def clear(self) -> list[Held]:
        """Empty the queue, e.g. to route everything anew; returns what was in it, best first."""
        everything = sorted(self.held, key=_ORDER)
        self._lanes.clear()
        self._held.clear()
        self._first_choice.clear()
        return everything
