# SPDX-License-Identifier: Apache-2.0
"""Findings about a configuration that parses: can its executors be imported, is it sensible."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from typing import Any

from airflow_dispatch_provider.bridge.backend_conf import unread_options
from airflow_dispatch_provider.bridge.installed import extra_of, remedy_for, unmet
from airflow_dispatch_provider.bridge.version_compat import UNTESTED_REMEDY, untested
from airflow_dispatch_provider.cli.output import only_answers
from airflow_dispatch_provider.cli.surroundings import tests_connections
from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.operate.inspection import ConfiguredBackend, inspect
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, TEST_CONNECTION, Route
from airflow_dispatch_provider.routing.patterns import doubts, is_glob
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES, WORKERS, BackendSettings, Settings
from airflow_dispatch_provider.settings.problems import show


@only_answers()
def inspect_backends(
    settings: Settings, names: Collection[str] | None = None
) -> tuple[ConfiguredBackend, ...]:
    """``inspect`` for a command, whose stdout is kept free of what the executors print."""
    return inspect(settings, names)


def import_problems(statuses: Sequence[ConfiguredBackend], place: str) -> Iterator[Problem]:
    """One for each executor that cannot be imported, whichever backends have it.

    :param place: where ``backends`` stands: ``[dispatch] `` or the name of the file
    """
    failed: dict[tuple[str, str, str], list[str]] = {}
    for status in statuses:
        if status.missing is not None:
            failed.setdefault((status.key, status.missing, status.remedy), []).append(status.name)
    for (key, found, remedy), (name, *others) in failed.items():
        also = f" The same holds for {', '.join(others)}." if others else ""
        yield Problem(f"{place}backends.{name}.{key}", found + also, remedy)


def warnings(
    settings: Settings, statuses: Sequence[ConfiguredBackend], conf: Any, place: str
) -> Iterator[Problem]:
    """Settings that are allowed but probably a mistake."""
    yield from _airflow_is_tested()
    yield from _versions_are_met(statuses, place)
    yield from unread_options(settings)
    yield from _kinds_are_covered(statuses, place)
    yield from _backends_are_used(settings, place)
    yield from _fallbacks_are_used(settings, place)
    yield from _routes_are_open(settings, place)
    yield from _queues_are_read(settings, place)
    yield from _patterns_are_meant(settings, place)
    yield from _preloads_exist(settings, conf)


def _airflow_is_tested() -> Iterator[Problem]:
    if words := untested():
        yield Problem("apache-airflow", words, UNTESTED_REMEDY)


def _versions_are_met(statuses: Sequence[ConfiguredBackend], place: str) -> Iterator[Problem]:
    """Versions that can be imported, but are older or newer than those that were tested."""
    extras: dict[str, str] = {}
    for status in statuses:
        extra = extra_of(status.settings.class_path.rpartition(".")[0])
        if extra and status.missing is None:
            extras.setdefault(extra, status.name)
    for extra, name in extras.items():
        if missing := unmet(extra):
            words = f"can be imported, but needs {', '.join(map(str, missing))}."
            yield Problem(f"{place}backends.{name}.executor", words, remedy_for(extra, missing))


def _kinds_are_covered(statuses: Sequence[ConfiguredBackend], place: str) -> Iterator[Problem]:
    """Callbacks occur only where a Dag has a deadline with one, which cannot be known here."""
    wanted = {EXECUTE_TASK: "tasks", **({TEST_CONNECTION: "connection tests"} if tests_connections() else {})}
    covered = frozenset[str]().union(*(status.kinds for status in statuses))
    if any(status.missing for status in statuses):
        return
    for kind, words in wanted.items():
        if kind not in covered:
            yield Problem(
                f"{place}backends",
                f"no backend can run {words}.",
                "Add a backend whose executor can, e.g. a LocalExecutor; `airflow dispatch backends` lists"
                " the workload types of each.",
            )


def _backends_are_used(settings: Settings, place: str) -> Iterator[Problem]:
    used = {target.backend for route in (*settings.routes, settings.default) for target in route.to}
    for name in settings.backends:
        if name not in used:
            yield Problem(
                f"{place}backends.{name}",
                "no route and no default names it.",
                "Add a route to it, or remove it.",
            )


def _fallbacks_are_used(settings: Settings, place: str) -> Iterator[Problem]:
    for name, backend in settings.backends.items():
        if backend.slots != WORKERS and backend.fallback_slots != BackendSettings.fallback_slots:
            found = "is not used: the slots are a number."
            yield Problem(
                f"{place}backends.{name}.fallback_slots", found, 'Leave it out, or set slots to "workers".'
            )


_WITHOUT_QUEUES = {EXECUTOR_ALIASES[name]: name for name in ("LocalExecutor", "KubernetesExecutor")}


def _queues_are_read(settings: Settings, place: str) -> Iterator[Problem]:
    """Of these classes themselves: one that is made from them may do anything with a queue."""
    for where, route in settings.routes_by_place.items():
        for target in route.to:
            name = _WITHOUT_QUEUES.get(settings.backends[target.backend].class_path)
            if target.queue and name:
                found = (
                    f"gives {target.backend} the queue {show(target.queue)}, and a {name} knows no queues."
                )
                yield Problem(f"{place}{where}", found, "Leave it out, or make a backend for what it means.")


def _routes_are_open(settings: Settings, place: str) -> Iterator[Problem]:
    for where, route in settings.routes_by_place.items():
        if all(settings.backends[target.backend].cordoned for target in route.to):
            names = ", ".join(dict.fromkeys(target.backend for target in route.to))
            queue = f" (queue {show(route.queue)})" if route.queue and where != "default" else ""
            yield Problem(
                place + where,
                f"all its targets are cordoned{queue}: its tasks wait.",
                f"Take 'cordoned' off one of them: {names}.",
            )


def _patterns_are_meant(settings: Settings, place: str) -> Iterator[Problem]:
    for index, route in enumerate(settings.routes):
        for key, pattern in (("queue", route.queue), ("dag_id", route.dag_id)):
            if pattern is not None and (doubt := doubts(pattern, dag_id=key == "dag_id")):
                found = f"found the pattern {show(pattern)}, {doubt.found}."
                yield Problem(f"{place}routes[{index}].{key}", found, doubt.remedy)


def _preloads_exist(settings: Settings, conf: Any) -> Iterator[Problem]:
    if "LocalExecutor" not in settings.executors:
        return
    modules = str(conf.get("dispatch", "local_preload", fallback="") or "")
    for module in filter(None, map(str.strip, modules.split(","))):
        if not _can_be_found(module):
            found = f"names the module {module!r}, which cannot be found: no task will find it imported."
            yield Problem("[dispatch] local_preload", found, "Install it for the scheduler, or leave it out.")


def _can_be_found(module: str) -> bool:
    """Told without importing the packages that it is in: that would run their code."""
    package, _, name = module.rpartition(".")
    try:
        if not package or package in sys.modules:
            return find_spec(module) is not None
        folders = _folders(package)
        return folders is not None and bool(name) and PathFinder.find_spec(module, folders) is not None
    except (ImportError, ValueError):
        return False


def _folders(package: str) -> Sequence[str] | None:
    """Where the modules of a package are; None where it is none."""
    spec: ModuleSpec | None
    outer, _, _ = package.rpartition(".")
    if not outer or package in sys.modules:
        spec = find_spec(package)
    else:
        folders = _folders(outer)
        spec = None if folders is None else PathFinder.find_spec(package, folders)
    return None if spec is None else spec.submodule_search_locations


def by_precedence(routes: Sequence[Route]) -> list[Route]:
    """In the order in which ``RouteTable`` lets them win."""
    return sorted(routes, key=lambda route: (is_glob(route.queue), route.dag_id is None))
