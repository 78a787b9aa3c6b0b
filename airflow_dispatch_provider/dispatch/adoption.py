# SPDX-License-Identifier: Apache-2.0
"""Tasks of a scheduler that died, as the life cycle is offered them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_dispatch_provider.bridge import task_instances
from airflow_dispatch_provider.bridge.workload import task_ref_of
from airflow_dispatch_provider.lifecycle.events import Offered
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable

log = logging.getLogger(__name__)


def offers(
    tis: Sequence[Any],
    key_of: Callable[[Any], Any],
    owners: Callable[[Sequence[Any]], Mapping[Any, str]],
    candidates: Callable[[TaskRef], Iterable[str]],
) -> Iterator[Offered]:
    """One for each task instance, with the backend that evidence names. One that runs was certainly dispatched:
    where its evidence is missing (the scheduler died in the instant before it was written), any backend may have it.

    Costs one query for all of them, in the session that they come from, besides those of ``owners``.

    :param tis: as the scheduler offers them, within its session
    :param owners: gives the backends to which they were dispatched, by task instance id; all their columns are loaded
    :param candidates: names of the backends that could have a task, the surest first
    """
    task_instances.load(tis)
    owner_of = owners(tis)
    for ti in tis:
        try:
            yield _offer(ti, owner_of.get(ti.id), key_of, candidates)
        except Exception:
            log.exception(
                "%s could not be offered to any backend; Airflow watches it, or schedules it again.", ti
            )


def _offer(
    ti: Any, owner: str | None, key_of: Callable[[Any], Any], candidates: Callable[[TaskRef], Iterable[str]]
) -> Offered:
    ref, runs = task_ref_of(ti), task_instances.is_running(ti)
    names = tuple(candidates(ref)) if runs and owner is None else ()
    return Offered(key_of(ti), ref, runs, owner, names, task_instances.detached(ti))


def candidates(table: RouteTable, is_local: Mapping[str, bool], ref: TaskRef) -> list[str]:
    """Backends that could have a task: local ones first, which can tell for sure, then those of its route, then the
    others.

    :param is_local: by the name of the backend
    """
    on_route = [target.backend for target in table.match(ref).route.to]

    def rank(name: str) -> tuple[bool, bool, int]:
        is_on_route = name in on_route
        return not is_local[name], not is_on_route, on_route.index(name) if is_on_route else 0

    return sorted(is_local, key=rank)
