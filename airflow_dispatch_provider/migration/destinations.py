# SPDX-License-Identifier: Apache-2.0
"""Where the tasks of each queue and each ``executor=`` ran, where they go now, and what to write in the Dag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_dispatch_provider.migration.executors import OURS, Kind
from airflow_dispatch_provider.migration.old import OldConfig
from airflow_dispatch_provider.migration.plan import Backend, Plan, Section, before
from airflow_dispatch_provider.migration.uses import Use, grouped
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.parse import Raw, parse

NOTHING = "nothing"
"""As what there is to do."""

BY_NAME = frozenset({Kind.LOCAL, Kind.CELERY, Kind.KUBERNETES})
"""Backends for which ``by_name`` has a class."""


@dataclass(frozen=True)
class Destination:
    """The destination of all tasks with the same ``queue=`` and ``executor=``."""

    queue: str | None
    executor: str | None
    places: tuple[str, ...]
    ran_on: str | None
    """The backend that stands for where they ran; None: that executor is not configured."""

    goes_to: str
    """The backend that they go to as the Dags are."""

    route: str
    do: str
    """In words; ``nothing`` where it goes where it went."""


def settings_of(section: Section) -> Settings:
    """The settings that the router reads from a planned section."""
    backends = {backend.name: backend.config() for backend in section.backends}
    return parse(Raw({"backends": backends, "routes": list(section.routes), "default": section.default}))


def destinations(plan: Plan, old: OldConfig, uses: Sequence[Use]) -> tuple[Destination, ...]:
    """One for each pair of queue and executor, executors last."""
    settings = settings_of(plan.main)
    table = RouteTable(settings.routes, settings.default)
    return tuple(
        _destination(queue, executor, places, table, plan.main, old)
        for (queue, executor), places in grouped(uses).items()
    )


def _routed(table: RouteTable, queue: str) -> tuple[str, str]:
    match = table.match(TaskRef(queue))
    return match.route.to[0].backend, match.name


def _destination(
    queue: str | None,
    executor: str | None,
    places: Sequence[str],
    table: RouteTable,
    section: Section,
    old: OldConfig,
) -> Destination:
    ran_on = before(section, old, Use("", queue, executor))
    goes_to, route = _routed(table, old.default_queue if queue is None else queue)
    # The database has a queue for every task, whether or not its Dag names one.
    named = None if queue == old.default_queue else queue
    do = NOTHING if executor is None else _what_to_do(named, executor, ran_on, goes_to, section)
    known = None if ran_on is None else ran_on.name
    return Destination(queue, executor, tuple(places), known, goes_to, route, do)


def _what_to_do(
    queue: str | None, executor: str, ran_on: Backend | None, goes_to: str, section: Section
) -> str:
    if ran_on is None:
        return f"{_remove(executor)}: [core] executor has none of that name"
    if ran_on.name == goes_to:
        return f"{_remove(executor)}: {'the default' if queue is None else 'its queue'} leads there"
    if ran_on.name == section.default:
        return f'{_remove(executor)}, and give the task another queue than "{queue}", which leads elsewhere'
    instead = f'write queue="{ran_on.queue}" instead of executor="{executor}"'
    if queue is None:
        return instead
    return f'{instead} and queue="{queue}", or a route with the dag_id'


def _remove(executor: str) -> str:
    return f'remove executor="{executor}"'


def names_to_keep(plan: Plan, uses: Sequence[Use]) -> dict[str, str]:
    """The classes that keep every ``executor=`` of the Dags as it is, by its name: what is used, or without Dags what
    may be. A class can have one name only. Empty where there is no choice to make by ``executor=``, or none of this
    package's classes stands for it."""
    used = {use.executor for use in uses if use.executor is not None}
    named = [backend for backend in plan.main.backends if backend.names]
    if not used and len(named) > 1:
        used = {min(backend.names, key=len) for backend in named}
    names = {
        backend.executor: name
        for name in sorted(used, reverse=True)
        if (backend := plan.main.named(name)) and backend.kind in BY_NAME
    }
    return {name: f"{OURS}.by_name.{executor}" for executor, name in sorted(names.items())}
