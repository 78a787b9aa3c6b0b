# SPDX-License-Identifier: Apache-2.0
"""Where a task would go, found by asking the routing core about made-up situations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from airflow_dispatch_provider.routing.decide import choose
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, BackendView, Route, Target, TaskRef
from airflow_dispatch_provider.routing.patterns import is_glob
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.routing.routes import Match, RouteTable, ordered_targets

Views = Mapping[str, BackendView]


@dataclass(frozen=True)
class Use:
    """One situation in which a target is used."""

    reason: Reason
    after: float = 0.0
    """Seconds that the task waits before."""

    def __str__(self) -> str:
        after = f" after {self.after:g} s" if self.after else ""
        return f"{self.reason}{after}: {self.reason.words}"


@dataclass(frozen=True)
class TargetExplanation:
    """One target of the route that was found."""

    target: Target
    share: float | None
    """Part of the route's tasks that have it first, from 0 to 1; None where the route has no weights."""

    uses: tuple[Use, ...]
    """Empty: it is never used."""

    blocked: str | None
    """Why it takes no work as configured; None: it does."""


@dataclass(frozen=True)
class Explanation:
    """The whole answer."""

    match: Match
    why: str
    """Why this route, in a sentence."""

    targets: tuple[TargetExplanation, ...]
    """In the order in which this task tries them; without a seed, heaviest first where there are weights."""

    choice: Target | None
    """Where it goes with all slots free; None where every target is blocked, or where only its seed tells."""

    reason: Reason | None
    """Why it goes there, or why it waits; None where only its seed tells."""


def explain(table: RouteTable, ref: TaskRef, views: Views) -> Explanation:
    """
    :param ref: an empty seed stands for "any task of this queue"
    :param views: every backend with at least one slot free, blocked where it is cordoned or cannot be loaded
    """
    match = table.match(ref)
    route = match.route
    known_order = bool(ref.seed) or not route.weighted
    order = ordered_targets(route, ref.seed) if known_order else _heaviest_first(route)
    choice, reason = _choose(order, route, views) if known_order else (None, None)
    targets = tuple(
        TargetExplanation(
            target=target,
            share=_share(target, route),
            uses=tuple(_uses(target, order, route, views, known_order)),
            blocked=_blocked(views[target.backend]),
        )
        for target in order
    )
    return Explanation(match, _why(ref, table), targets, choice, reason)


def _heaviest_first(route: Route) -> tuple[Target, ...]:
    return tuple(sorted(route.to, key=lambda target: -(target.weight or 0)))


def _share(target: Target, route: Route) -> float | None:
    if not route.weighted:
        return None
    return (target.weight or 0) / sum(other.weight or 0 for other in route.to)


def _blocked(view: BackendView) -> str | None:
    return view.blocked if EXECUTE_TASK in view.kinds else Reason.UNSUPPORTED


def _uses(
    target: Target, order: Sequence[Target], route: Route, views: Views, known_order: bool
) -> Iterable[Use]:
    """Each reason once, the one that needs least to happen first."""
    seen: set[Reason] = set()
    for attempt in [order] if known_order else _possible_orders(target, order):
        earlier = {other.backend for other in attempt[: attempt.index(target)]}
        full = {name: replace(view, free=0) for name, view in views.items() if name in earlier}
        failed = {
            name: replace(view, blocked=Reason.CIRCUIT_OPEN)
            for name, view in views.items()
            if name in earlier
        }
        for situation in ({}, full, failed):
            chosen, reason = _choose(attempt, route, {**views, **situation})
            if chosen == target and reason not in seen:
                seen.add(reason)
                yield Use(reason, _overflow_after(route) if reason is Reason.OVERFLOW else 0.0)


def _possible_orders(target: Target, order: Sequence[Target]) -> Iterable[Sequence[Target]]:
    """The best and the worst place that a seed can give to a target; weight 0 is last for every seed."""
    weighted = [other for other in order if other.weight and other != target]
    unweighted = [other for other in order if not other.weight]
    if target.weight:
        yield [target, *weighted, *unweighted]
        yield [*weighted, target, *unweighted]
    else:
        yield order


def _choose(order: Sequence[Target], route: Route, views: Views) -> tuple[Target | None, Reason]:
    """The choice in the end: that of a task that has waited as long as the route may ask for."""
    after = _overflow_after(route)
    waited = after if after < inf else 0.0
    return choose(
        order, EXECUTE_TASK, waited, after, views, {name: view.free for name, view in views.items()}
    )


def _overflow_after(route: Route) -> float:
    return inf if route.overflow_after == "never" else route.overflow_after


def _why(ref: TaskRef, table: RouteTable) -> str:
    match = table.match(ref._replace(executor=None))
    route = match.route
    if match is table.default:
        why = f"no route matches the queue {ref.queue!r}, so the default is taken"
    elif is_glob(route.queue):
        why = f"its pattern {route.queue!r} matches the queue {ref.queue!r}"
    else:
        why = f"it is for the queue {ref.queue!r}"
    if route.dag_id is not None:
        why += f", and its dag_id {route.dag_id!r} matches the Dag {ref.dag_id!r}"
    elif not ref.dag_id and any(other.dag_id is not None for other in table.routes):
        why += "; no Dag was given, so routes that ask for one were left out"
    if match is not table.match(ref):
        why += f"; of the backends only those of {ref.executor} count"
    return why
