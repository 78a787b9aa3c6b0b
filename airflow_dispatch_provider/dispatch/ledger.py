# SPDX-License-Identifier: Apache-2.0
"""The workloads given to each backend, until their terminal events are drained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from airflow_dispatch_provider.routing.model import Held


@dataclass(slots=True)
class Entry:
    """One workload that a backend has."""

    backend: str
    child_key: Hashable
    """The key under which the backend's executor knows it; not the router's where only one of the two
    speaks Airflow 3.4's UUID keys."""

    held: Held | None = None
    """The entry it was in the hold queue, to put it back there; None where it was adopted."""

    dispatches: int = 1
    """How often the key was given away without a terminal event: a task that deferred comes back under the
    same key, maybe before the end of its first half was seen."""


class Ledger:
    """Entries by the router's key, countable by backend in constant time."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, Entry] = {}
        self._translated: dict[tuple[str, Hashable], Hashable] = {}
        self._load: Counter[str] = Counter()
        self._revoked: set[tuple[str, Hashable]] = set()

    def __len__(self) -> int:
        return sum(self._load.values())

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._entries)

    def get(self, key: Hashable) -> Entry | None:
        return self._entries.get(key)

    def load(self, backend: str) -> int:
        """Slots in use there."""
        return self._load[backend]

    def add(self, key: Hashable, backend: str, child_key: Hashable, held: Held | None = None) -> None:
        """Record a dispatch or an adoption."""
        dispatches = 1
        previous = self._entries.get(key)
        if previous is not None:
            if previous.backend == backend:
                dispatches += previous.dispatches
            else:
                self.drop(key)
        self._entries[key] = Entry(backend, child_key, held, dispatches)
        self._load[backend] += 1
        if child_key != key:
            self._translated[backend, child_key] = key
        if self._revoked:
            self._revoked.discard((backend, child_key))

    def release(self, key: Hashable) -> None:
        """One dispatch of the key has ended."""
        entry = self._entries.get(key)
        if entry is None:
            return
        self._load[entry.backend] -= 1
        entry.dispatches -= 1
        if not entry.dispatches:
            self._forget(key, entry)

    def drop(self, key: Hashable) -> Entry | None:
        """All dispatches of the key are over, however many there were."""
        entry = self._entries.get(key)
        if entry is not None:
            self._load[entry.backend] -= entry.dispatches
            self._forget(key, entry)
        return entry

    def revoke(self, key: Hashable) -> None:
        """Like ``drop``; and what the backend still says of it is not to be believed."""
        entry = self.drop(key)
        if entry is not None:
            self._revoked.add((entry.backend, entry.child_key))

    def was_revoked(self, backend: str, child_key: Hashable) -> bool:
        return bool(self._revoked) and (backend, child_key) in self._revoked

    def close_revoked(self, backend: str, child_key: Hashable) -> None:
        """The backend has reported the end of a revoked key."""
        self._revoked.discard((backend, child_key))

    def key_of(self, backend: str, child_key: Hashable) -> Hashable:
        """The router's key for a backend's; the backend's own where it is the same or not known."""
        if not self._translated:
            return child_key
        return self._translated.get((backend, child_key), child_key)

    def _forget(self, key: Hashable, entry: Entry) -> None:
        del self._entries[key]
        if self._translated:
            self._translated.pop((entry.backend, entry.child_key), None)
