# SPDX-License-Identifier: Apache-2.0
"""Decides on the backends and routes that do what the old configuration did."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape
from itertools import chain, count
from typing import Any

from airflow_dispatch_provider.get_provider_info import EXECUTORS
from airflow_dispatch_provider.migration.executors import HYBRIDS, ROUTER, Entry, Kind, backend_name
from airflow_dispatch_provider.migration.old import OldConfig
from airflow_dispatch_provider.migration.uses import Use

_SHORT = {
    Kind.LOCAL: ("local", "LocalExecutor"),
    Kind.SEQUENTIAL: ("local", "LocalExecutor"),
    Kind.DEBUG: ("local", "LocalExecutor"),
    Kind.CELERY: ("celery", "CeleryExecutor"),
    Kind.KUBERNETES: ("kubernetes", "KubernetesExecutor"),
}
"""Name of the backend and of its executor, which is this package's."""


@dataclass(frozen=True)
class Backend:
    """A backend, and how its tasks were found before."""

    name: str
    executor: str
    kind: Kind
    slots: int
    names: frozenset[str]
    """The names that ``executor=`` had for it."""

    queue: str | None = None
    """The queue that leads to it now; None: it is the default, or no queue does."""

    def config(self) -> dict[str, Any]:
        """As ``[dispatch] backends`` has it."""
        return {"executor": self.executor, "slots": self.slots}


@dataclass(frozen=True)
class Section:
    """One ``[dispatch]`` section: that of everybody, or of a team."""

    team: str | None
    backends: tuple[Backend, ...]
    routes: tuple[dict[str, Any], ...]
    """As ``[dispatch] routes`` has them."""

    default: str

    def named(self, executor: str) -> Backend | None:
        """The backend that ``executor=`` meant."""
        return next((backend for backend in self.backends if executor in backend.names), None)

    @property
    def kubernetes(self) -> Backend:
        """The Kubernetes part of a hybrid; raises StopIteration where there is no hybrid."""
        return next(backend for backend in self.backends if backend.kind is Kind.KUBERNETES)


@dataclass(frozen=True)
class Plan:
    """Options to put in."""

    sections: tuple[Section, ...]
    """Everybody's first."""

    parallelism: int
    one_class: str | None
    """The class that does the same as ``[core] executor``; None: there is none."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """Of the backends, a hybrid's two parts included."""
        return frozenset(backend.kind for section in self.sections for backend in section.backends)

    @property
    def main(self) -> Section:
        return self.sections[0]

    @property
    def executor(self) -> str:
        """``[core] executor``"""
        return ";".join([ROUTER, *(f"{section.team}={ROUTER}" for section in self.sections[1:])])


def make_plan(old: OldConfig, uses: Sequence[Use] = ()) -> Plan:
    """The router in place of every executor of ``old``; Dags as they are where that is possible.

    :param uses: what Dags say: queues in use keep their meaning, and one that always came with the same ``executor=``
        gets a route to it
    """
    teams = dict.fromkeys(entry.team for entry in old.entries)
    sections = tuple(_section(old, team, () if team else uses) for team in teams)
    ours = {path.rpartition(".")[2]: path for path in EXECUTORS}
    one_class = ours.get(old.entries[0].kind.value) if len(old.entries) == 1 else None
    total = sum(backend.slots for section in sections for backend in section.backends)
    return Plan(sections, max(total, old.parallelism), one_class)


def before(section: Section, old: OldConfig, use: Use) -> Backend | None:
    """The backend that stands for where such a task ran; None: its executor was not configured."""
    if use.executor is not None:
        return section.named(use.executor)
    queue = old.default_queue if use.queue is None else use.queue
    first = next(entry for entry in old.entries if entry.team == section.team)
    if first.kind.hybrid and queue == old.queues[first.kind]:
        return section.kubernetes
    return section.named(first.path)


def _section(old: OldConfig, team: str | None, uses: Sequence[Use]) -> Section:
    entries = [entry for entry in old.entries if entry.team == team]
    backends = _backends(entries, old.slots)
    bare = Section(team, backends, (), backends[0].name)
    routes, leading = _routes(bare, old, uses)
    named = tuple(replace(backend, queue=leading.get(backend.name)) for backend in backends)
    return Section(team, named, routes, bare.default)


def _backends(entries: Sequence[Entry], slots: int) -> tuple[Backend, ...]:
    """One for each executor, two for a hybrid; in the order of the executors, since the first is the default."""
    found: dict[str, Backend] = {}
    for entry in entries:
        for number, kind in enumerate(_parts(entry.kind)):
            name, executor = _SHORT.get(kind, ("", entry.path))
            names = frozenset[str]() if number else entry.names
            if not name or (entry.alias and not entry.kind.hybrid):
                name = backend_name(entry)
            elif (same := found.get(name)) is not None and same.executor == executor:
                most = max(same.slots, _slots(kind, slots))
                found[name] = Backend(name, executor, kind, most, same.names | names)
                continue
            name = _free(name, found)
            found[name] = Backend(name, executor, kind, _slots(kind, slots), names)
    return tuple(found.values())


def _parts(kind: Kind) -> tuple[Kind, ...]:
    """The kinds of its backends."""
    hybrid = HYBRIDS.get(kind)
    return (kind,) if hybrid is None else (Kind(hybrid.executor), Kind.KUBERNETES)


def _slots(kind: Kind, slots: int) -> int:
    return 1 if kind.one_at_a_time else slots


def _free(name: str, taken: Container[str | None]) -> str:
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _routes(
    section: Section, old: OldConfig, uses: Sequence[Use]
) -> tuple[tuple[dict[str, Any], ...], dict[str, str]]:
    """The routes, and by backend the queue that a Dag can write to get there."""
    by_use = _always_with_one_executor(section, old, uses)
    routes = [_route(queue, {"backend": name}) for queue, name in by_use.items()]
    leading: dict[str, str] = {}
    for entry in old.entries:
        if entry.team == section.team and entry.kind.hybrid and (queue := old.queues[entry.kind]):
            routes.append(_route(queue, {"backend": section.kubernetes.name}))
            leading.setdefault(section.kubernetes.name, queue)
    for backend in _without_queue(section):
        own = _own_queue(backend, section, old, uses)
        leading.setdefault(backend.name, own)
        routes.append(_route(own, _target(backend, old.default_queue)))
    return tuple(_unique(routes)), leading


def _unique(routes: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen = set()
    for route in routes:
        if route["queue"] not in seen:
            yield route
        seen.add(route["queue"])


def _route(queue: str, target: dict[str, str]) -> dict[str, Any]:
    return {"queue": escape(queue), "to": [target if len(target) > 1 else target["backend"]]}


def _target(backend: Backend, default_queue: str) -> dict[str, str]:
    """Celery workers, and maybe those of other executors, go by the queue: they get the one that such tasks had
    before. Local processes and pods do not."""
    if backend.executor in ("LocalExecutor", "KubernetesExecutor"):
        return {"backend": backend.name}
    return {"backend": backend.name, "queue": default_queue}


def _without_queue(section: Section) -> Iterator[Backend]:
    """Those that tasks reached by ``executor=`` alone."""
    for backend in section.backends:
        if backend.name != section.default and backend.names:
            yield backend


def _own_queue(backend: Backend, section: Section, old: OldConfig, uses: Sequence[Use]) -> str:
    """A queue of its own for a backend: a name that no task of another backend has.

    Not the backend's own name: where Dags were not looked at, tasks may well have such a queue, and run elsewhere.
    """
    taken = {use.queue for use in uses if before(section, old, use) != backend}
    taken |= {old.queues[entry.kind] for entry in old.entries if entry.kind.hybrid}
    taken.add(old.default_queue)
    return _free(f"{backend.name}-executor", taken)


def _always_with_one_executor(section: Section, old: OldConfig, uses: Sequence[Use]) -> dict[str, str]:
    """Queues whose tasks all ran on one backend that is not the default, by an ``executor=`` beside it."""
    owners: dict[str, set[Backend | None]] = {}
    for use in uses:
        if use.queue is not None:
            owners.setdefault(use.queue, set()).add(before(section, old, use))
    found = {}
    for queue, backends in sorted(owners.items()):
        owner = next(iter(backends)) if len(backends) == 1 else None
        if owner is not None and owner.name != section.default and queue != old.default_queue:
            found[queue] = owner.name
    return found
