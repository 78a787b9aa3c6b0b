# SPDX-License-Identifier: Apache-2.0
"""From plain data to checked settings. Pure; collects every mistake before it complains."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.masking import may_be_secret
from airflow_dispatch_provider.routing.model import AnyTarget, Route, Target
from airflow_dispatch_provider.routing.patterns import covers, doubts, is_glob, shadowed
from airflow_dispatch_provider.settings.model import (
    EXECUTOR_ALIASES,
    BackendName,
    BackendSettings,
    EngineOptions,
    Limits,
    RoutingFile,
    Settings,
)
from airflow_dispatch_provider.settings.options import OPTIONS, SECTION
from airflow_dispatch_provider.settings.plain import TooDeepError, plain
from airflow_dispatch_provider.settings.problems import (
    TARGET_KEYS,
    Steps,
    from_pydantic,
    is_inside,
    path,
    remedy_for,
    show,
    suggest,
)

T = TypeVar("T")

ROUTING_KEYS = ("backends", "routes", "default")
_BACKEND: TypeAdapter[BackendSettings] = TypeAdapter(BackendSettings)
_ROUTE: TypeAdapter[Route] = TypeAdapter(Route)
_TARGET: TypeAdapter[Target] = TypeAdapter(AnyTarget)
_TARGETS: TypeAdapter[tuple[Target, ...]] = TypeAdapter(tuple[AnyTarget, ...])
_LIMITS: TypeAdapter[Limits] = TypeAdapter(Limits)
_ENGINE_OPTIONS: TypeAdapter[EngineOptions] = TypeAdapter(EngineOptions)
_NUMBERS: Mapping[str, Callable[[Any], int | float]] = {"integer": int, "float": float}
_NAME: TypeAdapter[str] = TypeAdapter(BackendName)
MOST_PROBLEMS = 100
"""More in one answer nobody reads."""

_GONE = {"SequentialExecutor": "Airflow 3 has none; give 'LocalExecutor', with 1 slot."}
_BY_NAME = ["airflow_dispatch_provider", "executors", "by_name"]
_ROUTERS = {"DispatchExecutor", "CeleryKubernetesExecutor", "LocalKubernetesExecutor"}


@dataclass
class Raw:
    """The configuration as plain data, and where each key of it stands."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    """``backends``, ``routes``, ``default`` and the limits; a key that is not set is not there."""

    place: str = "[dispatch] "
    """Prefix of the place of ``backends``, ``routes`` and ``default``."""

    problems: list[Problem] = field(default_factory=list)
    """Problems found while reading."""

    unreadable: set[str] = field(default_factory=set)
    """Keys that are set but could not be read: reported already, so not to be called missing."""

    share_parallelism: frozenset[str] = frozenset()
    """See ``Settings``."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``config_file``, and of ``backends`` and ``routes`` in ``[dispatch]``."""
    schema: dict[str, Any] = TypeAdapter(RoutingFile).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "dispatch.yaml"}


def parse(raw: Raw) -> Settings:
    """Check everything; raises DispatchConfigError with all problems if there is one."""
    parser = _Parser(raw)
    try:
        settings = parser.settings()
    except _EnoughError:
        settings = None
        del parser.problems[MOST_PROBLEMS:]
        parser.problems.append(
            Problem(raw.place.strip(" :"), "may have more mistakes.", "Correct these first.")
        )
    if parser.problems or settings is None:
        read, found = len(raw.problems), parser.problems
        raise DispatchConfigError(
            [*found[:read], *sorted(found[read:], key=lambda each: _position(each, raw.place))]
        )
    return settings


def _position(problem: Problem, place: str) -> tuple[int, int]:
    """As in a file: backends, routes by their number, default; then what stands elsewhere."""
    found = re.match(r"(backends|routes|default)\b(?:\[(\d+)\])?", problem.where.removeprefix(place))
    return (ROUTING_KEYS.index(found[1]), int(found[2] or 0)) if found else (len(ROUTING_KEYS), 0)


class _EnoughError(Exception):
    """More mistakes would take too long to find, and nobody reads them."""


class _Parser:
    """Collects problems while it goes through the parts; each part is checked whether or not others are."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.problems = list(raw.problems)
        self.unreadable = set(raw.unreadable)
        self.values: dict[str, Any] = {}
        for key, value in raw.values.items():
            try:
                self.values[key] = plain(value, [key], self._report)
            except TooDeepError:
                self._report([key], "is nested too deeply, or contains itself.", self._remedy(key))
                self.unreadable.add(key)

    def _report(self, steps: Steps, found: str, remedy: str) -> None:
        """Add a problem in ``backends``, ``routes`` or ``default``, or in the limits."""
        place = self.raw.place if steps[0] in ROUTING_KEYS else "[dispatch] "
        self._add([Problem(path(steps, place), found, remedy)])

    def _add(self, problems: Sequence[Problem]) -> None:
        self.problems += problems
        if len(self.problems) >= MOST_PROBLEMS:
            raise _EnoughError

    @property
    def _names(self) -> list[str]:
        """Of the backends, as far as there is anything to go by."""
        found = self.values.get("backends")
        return list(found) if isinstance(found, dict) else []

    def _remedy(self, key: str) -> str:
        return remedy_for(key, self._names)

    def settings(self) -> Settings | None:
        backends, names = self._backends()
        routes = self._routes(names)
        default = self._default(names)
        limits = self._limits()
        self._engine_options()
        if names is not None:
            self._check_targets(routes, default, names)
        self._check_patterns(routes)
        self._check_overlaps(routes)
        if default is None or limits is None:
            return None
        own_routes = tuple(route for _, route in routes)
        return Settings(backends, own_routes, default, limits, self.raw.share_parallelism)

    def _reported(self, steps: Steps) -> bool:
        where = path(steps, self.raw.place)
        return any(problem.where == where or is_inside(problem.where, where) for problem in self.problems)

    def _validate(self, adapter: TypeAdapter[T], value: Any, steps: Steps, fields: Sequence[str]) -> T | None:
        """None after problems were reported; where a spot is wrong, the ones that it is part of are not."""
        try:
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            place = path(steps, self.raw.place) if steps else "[dispatch] "
            key = str(steps[0]) if steps else ""
            found = from_pydantic(error, value, place, key, fields, self._names)[:MOST_PROBLEMS]
        known = {problem.where for problem in self.problems}
        places = known | {problem.where for problem in found}
        self._add(
            [
                problem
                for problem in found
                if problem.where not in known and not any(is_inside(place, problem.where) for place in places)
            ]
        )
        return None

    def _backends(self) -> tuple[dict[str, BackendSettings], Sequence[str] | None]:
        """Those that are right, and all names; None instead of names where there is nothing to go by."""
        found = self.values.get("backends")
        if not isinstance(found, dict) or not found:
            if "backends" not in self.unreadable:
                said = "is missing." if "backends" not in self.values else f"found {show(found)}."
                self._report(["backends"], said, self._remedy("backends"))
            return {}, None
        if isinstance(inner := found.get("backends"), dict) and "executor" not in inner:
            self._report(
                ["backends"], "has the key backends in it once more.", "Give what stands under that alone."
            )
            return {}, None
        self._check_names(list(found))
        right = {}
        for name, value in found.items():
            backend = self._backend(name, value)
            if backend is not None:
                right[name] = backend
        return right, list(found)

    def _check_names(self, names: Sequence[str]) -> None:
        """A backend's name goes into the names of variables and metrics; there, two may become one."""
        first: dict[str, str] = {}
        for name in names:
            other = first.setdefault(in_variable(name), name)
            if other != name:
                found = f"shares the variables AIRFLOW_DISPATCH__{in_variable(name)}__... with {show(other)}."
            elif name in _ROUTERS:
                found = "has the name of a router, whose metrics it would overwrite."
            else:
                continue
            self._report(
                ["backends", name], found, f"Give it another name, e.g. {show(_free_name(name, names))}."
            )

    def _backend(self, name: str, value: Any) -> BackendSettings | None:
        try:
            _NAME.validate_python(name)
        except ValidationError:
            remedy = "Use letters, digits, - and _, at most 60, and start with a letter or digit."
            self._report(["backends"], f"found the name {show(name)}.", remedy)
        steps = ["backends", name]
        if not isinstance(value, dict):
            example = 'Give an object, e.g. {"executor": "LocalExecutor", "slots": 8}.'
            # What is no backend may have no name either, but a password that a quote too few has brought here.
            self._report(
                ["backends", "?"] if may_be_secret(name) else steps, f"found {show(value)}.", example
            )
            return None
        backend = self._validate(_BACKEND, value, steps, tuple(BackendSettings.__dataclass_fields__))
        if isinstance(executor := value.get("executor"), str) and executor:
            self._check_executor([*steps, "executor"], executor)
        if backend is not None:
            self._check_config([*steps, "config"], backend)
        return backend

    def _check_executor(self, steps: Steps, executor: str) -> None:
        parts = EXECUTOR_ALIASES.get(executor, executor).split(".")
        if parts[-1] in _ROUTERS:
            self._report(steps, "found a router.", "A backend is an executor that runs tasks.")
        elif parts[:-1] == _BY_NAME:
            found = f"found {show(executor)}, which runs nothing: it hands over to the router."
            self._report(steps, found, suggest(parts[-1], list(EXECUTOR_ALIASES)))
        elif len(parts) < 2 or not all(map(str.isidentifier, parts)):
            found = f"found {show(executor)}, which is no executor's name and no import path."
            remedy = _GONE.get(executor) or suggest(executor, list(EXECUTOR_ALIASES))
            self._report(steps, found, remedy)

    def _check_config(self, steps: Steps, backend: BackendSettings) -> None:
        seen = set()
        for section, options in backend.config.items():
            for option in options:
                address = (section.lower(), option.lower())
                if address in seen:
                    found = "is there twice: upper and lower case do not count here."
                    self._report([*steps, section, option], found, "Remove one of the two.")
                elif address[0] == SECTION and address[1] in EngineOptions.__dataclass_fields__:
                    self._check_engine_option([*steps, section, option], address[1], options[option])
                seen.add(address)

    def _check_engine_option(self, steps: Steps, option: str, value: Any) -> None:
        """An executor reads its options of ``[dispatch]`` as its backend has them."""
        try:
            number_or_text = _NUMBERS.get(OPTIONS[option]["type"], str)(value)
            _ENGINE_OPTIONS.validate_json(json.dumps({option: number_or_text}))
        except ValueError:
            self._report(steps, f"found {show(value)}.", self._remedy(option))

    def _routes(self, names: Sequence[str] | None) -> list[tuple[int, Route]]:
        """Those that are right, with their positions; of the others the targets are checked here."""
        found = self.values.get("routes", [])
        if not isinstance(found, list):
            self._report(["routes"], f"found {show(found)}.", self._remedy("routes"))
            return []
        routes = []
        for index, value in enumerate(found):
            if not isinstance(value, dict):
                self._report(["routes", index], f"found {show(value)}.", self._remedy("route"))
                continue
            route = self._validate(_ROUTE, value, ["routes", index], tuple(Route.__dataclass_fields__))
            if route is not None:
                routes.append((index, route))
            elif names is not None:
                self._check_route(["routes", index, "to"], _targets_of(value), names)
        return routes

    def _default(self, names: Sequence[str] | None) -> Route | None:
        found = self.values.get("default")
        if found is None:
            if names is not None and "default" not in self.unreadable:
                if len(names) == 1:
                    return Route(queue="*", to=(Target(backend=names[0]),)) if names[0] else None
                self._report(["default"], "is missing.", self._remedy("default"))
            return None
        if found == []:
            self._report(["default"], "found an empty list.", self._remedy("default"))
            return None
        if isinstance(found, dict) and "to" in found:
            self._report(["default"], "has the key to, as a route has.", self._remedy("default"))
            return None
        if isinstance(found, list):
            targets = self._validate(_TARGETS, found, ["default"], TARGET_KEYS)
            return None if targets is None else Route(queue="*", to=targets)
        target = self._validate(_TARGET, found, ["default"], TARGET_KEYS)
        return None if target is None else Route(queue="*", to=(target,))

    def _limits(self) -> Limits | None:
        fields = tuple(Limits.__dataclass_fields__)
        given = {key: self.values[key] for key in fields if key in self.values}
        limits = self._validate(_LIMITS, given, [], fields)
        if limits is not None and limits.retry_min_delay > limits.retry_max_delay:
            found = (
                f"found {limits.retry_min_delay:g}, more than retry_max_delay ({limits.retry_max_delay:g})."
            )
            remedy = (
                f"Give a number from above 0 to {limits.retry_max_delay:g}, e.g. {limits.retry_max_delay:g}."
            )
            self._report(["retry_min_delay"], found, remedy)
        return limits

    def _engine_options(self) -> None:
        fields = tuple(EngineOptions.__dataclass_fields__)
        given = {key: self.values[key] for key in fields if key in self.values}
        self._validate(_ENGINE_OPTIONS, given, [], fields)

    def _check_targets(
        self, routes: Sequence[tuple[int, Route]], default: Route | None, names: Sequence[str]
    ) -> None:
        for index, route in routes:
            self._check_route(["routes", index, "to"], route.to, names)
            if route.overflow_after not in (0.0, "never") and len(route.to) == 1:
                self._report(
                    ["routes", index, "overflow_after"],
                    "there is only one target, nothing to overflow to.",
                    "Add a second target to 'to', or leave overflow_after out.",
                )
        if default is not None:
            self._check_route(["default"], default.to, names)

    def _check_route(self, steps: Steps, targets: Sequence[Target], names: Sequence[str]) -> None:
        listed = isinstance(self.values.get("default"), list) or steps != ["default"]
        seen = set()
        for number, target in enumerate(targets):
            spot = [*steps, number] if listed else steps
            if self._reported(spot):
                continue
            if target.backend not in names:
                found = f"found the backend {show(target.backend)}, which is not configured."
                self._report(spot, found, suggest(target.backend, names))
            if target.queue is not None and is_glob(target.queue):
                found = f"found the queue {show(target.queue)}, which is a pattern."
                self._report(spot, found, "Give the exact name of a queue.")
            if (target.backend, target.queue) in seen:
                self._report(spot, f"found the target {show(str(target))} a second time.", "Remove one.")
            seen.add((target.backend, target.queue))
        self._check_weights(steps, [target.weight for target in targets])

    def _check_weights(self, steps: Steps, weights: Sequence[int | None]) -> None:
        given = [weight for weight in weights if weight is not None]
        if given and len(given) < len(weights):
            remedy = "Either all targets of a route have a weight, or none has."
            self._report(steps, "some targets have a weight and others have none.", remedy)
        elif given and not any(given):
            self._report(steps, "every weight is 0.", "Give at least one target a weight above 0.")

    def _check_patterns(self, routes: Sequence[tuple[int, Route]]) -> None:
        for index, route in routes:
            for key, pattern in (("queue", route.queue), ("dag_id", route.dag_id)):
                doubt = doubts(pattern, dag_id=key == "dag_id") if pattern is not None else None
                if doubt is not None and doubt.certain:
                    found = f"found the pattern {show(pattern)}, {doubt.found}."
                    self._report(["routes", index, key], found, doubt.remedy)

    def _check_overlaps(self, routes: Sequence[tuple[int, Route]]) -> None:
        patterns = [(route.queue, route.dag_id) for _, route in routes]
        for position, other in shadowed(patterns):
            earlier = routes[other][0]
            if patterns[position] == patterns[other]:
                found = f"has the same queue and dag_id as routes[{earlier}]."
            else:
                found = (
                    f"is never used: routes[{earlier}] comes first and matches everything that it matches."
                )
            remedy = f"Put it before routes[{earlier}]."
            if _alike(patterns[position][0], patterns[other][0]):
                remedy = "Merge the two or remove one: only the first is ever used."
            self._report(["routes", routes[position][0]], found, remedy)


def _targets_of(route: Mapping[str, Any]) -> tuple[Target, ...]:
    """The targets of a route that is wrong elsewhere; none where they are wrong themselves."""
    try:
        return _TARGETS.validate_json(json.dumps(route.get("to")))
    except ValidationError:
        return ()


def in_variable(name: str) -> str:
    """A part of the name of an environment variable."""
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _free_name(name: str, names: Sequence[str]) -> str:
    taken = {in_variable(other) for other in names}
    return next(
        free
        for number in range(2, len(names) + 3)
        if in_variable(free := f"{name[:50].lower()}-{number}") not in taken
    )


def _alike(pattern: str, other: str) -> bool:
    """Whether two patterns, the second of which covers the first, match the same."""
    return pattern == other or covers(pattern, other)
