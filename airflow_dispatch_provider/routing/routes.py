# SPDX-License-Identifier: Apache-2.0
"""From a task reference to its route and the order of its targets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b

from airflow_dispatch_provider.routing.model import DEFAULT_ROUTE, Routable, Route, Target
from airflow_dispatch_provider.routing.patterns import is_glob

MEMO_SIZE = 16_384
"""Queue names remembered; a deployment has tens, a Dag that makes them up must not eat the scheduler."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """The route of a workload. One object for each route of a table: names may be alike, matches are not."""

    name: str
    """How logs, ``explain`` and the event log call it."""

    route: Route


class RouteTable:
    """Finds the route of a queue: an exact name before any glob, globs as ordered, then the default."""

    def __init__(
        self, routes: Sequence[Route], default: Route, executors: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """
        :param executors: the backends of each executor that a task may ask for, by its name
        """
        self.routes = tuple(routes)
        self.default = Match(DEFAULT_ROUTE, default)
        self._exact: defaultdict[str, list[Match]] = defaultdict(list)
        self._globs: list[Match] = []
        for route in routes:
            match = Match(route.name, route)
            (self._globs if is_glob(route.queue) else self._exact[route.queue]).append(match)
        self._by_dag = any(route.dag_id is not None for route in routes)
        self._executors = executors or {}
        self._memo = lru_cache(MEMO_SIZE)(self._find)
        self._narrowed = lru_cache(MEMO_SIZE)(self._narrow)

    def match(self, ref: Routable) -> Match:
        """Never fails: what matches no route gets the default one."""
        match = self.default
        if ref.queue is not None:
            match = self._memo(ref.queue, ref.dag_id if self._by_dag else "")
        return self._narrowed(match, ref.executor) if ref.executor in self._executors else match

    def _narrow(self, match: Match, executor: str) -> Match:
        return narrowed(match, executor, self._executors[executor])

    def _find(self, queue: str, dag_id: str) -> Match:
        exact = self._exact.get(queue, ())
        globs = (match for match in self._globs if fnmatchcase(queue, match.route.queue))
        return _first_for_dag(exact, dag_id) or _first_for_dag(globs, dag_id) or self.default


def narrowed(match: Match, executor: str, backends: Sequence[str]) -> Match:
    """The match of a task that asks for an executor: those targets of its route that have it, else every backend that
    has it, as configured.

    :param backends: those that have it, at least one
    """
    route = match.route
    kept = [target for target in route.to if target.backend in backends]
    if not any(target.weight for target in kept):
        kept = [replace(target, weight=None) for target in kept]
    targets = tuple(kept or (Target(backend=name) for name in backends))
    own = Route(queue=route.queue, to=targets, dag_id=route.dag_id, overflow_after=route.overflow_after)
    return Match(f"{match.name}, {executor}", own)


def _first_for_dag(matches: Iterable[Match], dag_id: str) -> Match | None:
    """A route with a dag_id pattern is more specific than one without, whatever their order."""
    plain = None
    for match in matches:
        pattern = match.route.dag_id
        if pattern is None:
            plain = plain or match
        elif fnmatchcase(dag_id, pattern):
            return match
    return plain


def task_seed(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The seed that picks among weighted targets: the task instance without its try, so that a retry and a second
    scheduler agree. (Its database id will not do: Airflow gives every try a new one.)"""
    return f"{dag_id}/{run_id}/{task_id}/{map_index}"


def ordered_targets(route: Route, seed: str) -> tuple[Target, ...]:
    """The route's targets in the order in which this task tries them.

    Without weights: as written. With weights: weighted rendezvous hashing (Thaler and Ravishankar 1998), so
    the order depends on the seed alone, each target comes first for its share of seeds, and taking a target
    away moves only the tasks that had it first. Targets of weight 0 come last, as written.
    """
    if not route.weighted:
        return route.to
    return tuple(sorted(route.to, key=lambda target: _rendezvous(target, seed)))


def _rendezvous(target: Target, seed: str) -> float:
    if not target.weight:
        return math.inf
    digest = blake2b(
        f"{target.backend}\0{target.queue}\0{seed}".encode(errors="surrogatepass"), digest_size=8
    ).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2**64
    return -math.log(uniform) / target.weight
