# SPDX-License-Identifier: Apache-2.0
"""Differences between two configurations, in words that name options and never their values. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from airflow_dispatch_provider.routing.model import Route
from airflow_dispatch_provider.settings.model import WORKERS, BackendSettings, Settings

ADDED, REMOVED, CHANGED, MOVED = "added", "removed", "changed", "moved"

STARTED = "it is started"
DRAINED = "it gets no new work, and is stopped when it is empty"
REPLACED = "it gets no new work, and is started anew when it is empty"
"""A running scheduler does that with a backend."""


@dataclass(frozen=True)
class Change:
    """One difference."""

    what: str
    """``backends.gpu``, ``routes[2]`` (by the position in the new configuration, of one that is gone in the old) or
    ``default``."""

    kind: str
    """``added``, ``removed``, ``changed`` or ``moved``."""

    details: str
    effect: str = ""
    """``STARTED``, ``DRAINED`` or ``REPLACED``; empty: it takes effect at once."""

    @property
    def name(self) -> str:
        """Of a backend."""
        return self.what.removeprefix("backends.")

    def __str__(self) -> str:
        effect = f" ({self.effect})" if self.effect else ""
        return f"{self.what} {self.kind}: {self.details}{effect}"


def changes(old: Settings, new: Settings) -> tuple[Change, ...]:
    """Backends by name, then routes by position, then the default."""
    return (
        *_backends(old.backends, new.backends),
        *_routes(old.routes, new.routes),
        *_default(old.default, new.default),
    )


def is_same(old: BackendSettings, new: BackendSettings) -> bool:
    """Whether one engine serves for both: they differ in slots and cordon at most."""
    return not any(_at_start(old, new)) and not _counts_otherwise(old, new)


def _backends(old: Mapping[str, BackendSettings], new: Mapping[str, BackendSettings]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        what = f"backends.{name}"
        if name not in new:
            yield Change(what, REMOVED, old[name].executor, DRAINED)
        elif name not in old:
            yield Change(what, ADDED, f"{new[name].executor}, slots {new[name].slots}", STARTED)
        elif details := [*_on_the_fly(old[name], new[name]), *_at_start(old[name], new[name])]:
            effect = "" if is_same(old[name], new[name]) else REPLACED
            yield Change(what, CHANGED, ", ".join(details), effect)


def _on_the_fly(old: BackendSettings, new: BackendSettings) -> Iterator[str]:
    for key in ("slots", "fallback_slots", "cordoned"):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            yield f"{key} {before} -> {after}" if key != "cordoned" else "cordoned" if after else "uncordoned"


def _counts_otherwise(old: BackendSettings, new: BackendSettings) -> bool:
    """Whether its workers are to be counted from now on, or no longer: an engine is made for the one or the other."""
    return (old.slots == WORKERS) != (new.slots == WORKERS)


def _at_start(old: BackendSettings, new: BackendSettings) -> Iterator[str]:
    if old.class_path != new.class_path:
        yield f"executor {old.executor} -> {new.executor}"
    before, after = _options(old), _options(new)
    for option in sorted({*before, *after}):
        if before.get(option) != after.get(option):
            verb = REMOVED if option not in after else ADDED if option not in before else CHANGED
            yield f"{option} {verb}"


def _options(backend: BackendSettings) -> dict[str, object]:
    return {
        f"config.{section}.{option}": (type(value), value)
        for section, options in backend.config.items()
        for option, value in options.items()
    }


def _routes(old: Sequence[Route], new: Sequence[Route]) -> Iterator[Change]:
    """Routes are told apart by queue and dag_id. Among those that are in both, one has moved where another order
    of the rest does not explain its place: only the order of globs can change where a task goes."""
    before = {_pattern(route): (index, route) for index, route in enumerate(old)}
    after = {_pattern(route): (index, route) for index, route in enumerate(new)}
    kept = [pattern for pattern in after if pattern in before]
    in_place = _longest_rising([before[pattern][0] for pattern in kept])
    for pattern, (index, route) in after.items():
        what = f"routes[{index}]"
        if pattern not in before:
            yield Change(what, ADDED, f"{route.name} to {_targets(route)}")
            continue
        position, was = before[pattern]
        if was != route:
            yield Change(what, CHANGED, f"{route.name}: {_targets(was)} -> {_targets(route)}")
        if position not in in_place:
            yield Change(what, MOVED, f"{route.name}, from routes[{position}]")
    for pattern, (index, route) in before.items():
        if pattern not in after:
            yield Change(f"routes[{index}]", REMOVED, f"{route.name} to {_targets(route)}")


def _default(old: Route, new: Route) -> Iterator[Change]:
    if old != new:
        yield Change("default", CHANGED, f"{_targets(old)} -> {_targets(new)}")


def _pattern(route: Route) -> tuple[str, str | None]:
    return route.queue, route.dag_id


def _targets(route: Route) -> str:
    weights = ["" if target.weight is None else f" weight {target.weight}" for target in route.to]
    targets = ", ".join(f"{target}{weight}" for target, weight in zip(route.to, weights, strict=True))
    if route.overflow_after == 0:
        return targets
    after = route.overflow_after if route.overflow_after == "never" else f"after {route.overflow_after:g} s"
    return f"{targets} (overflow {after})"


def _longest_rising(positions: Sequence[int]) -> set[int]:
    """The largest set of positions that are in rising order already (patience sorting, with the way back)."""
    tops: list[int] = []
    piles: list[int] = []
    previous: dict[int, int | None] = {}
    for position in positions:
        pile = bisect_left(tops, position)
        previous[position] = piles[pile - 1] if pile else None
        tops[pile : pile + 1] = [position]
        piles[pile : pile + 1] = [position]
    found: set[int] = set()
    at = piles[-1] if piles else None
    while at is not None:
        found.add(at)
        at = previous[at]
    return found
