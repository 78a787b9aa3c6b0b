# SPDX-License-Identifier: Apache-2.0
"""Changes that another routing file would make, and for which of the tasks that wait. Imports no executor: the file
may come from somebody who may only read."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Protocol

from airflow_dispatch_provider.dispatch.rules import route_table
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.operate.model import Waiting, WaitingTask
from airflow_dispatch_provider.operate.trying import FileChange, Mistake, MovedTask, WhatIf
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable, ordered_targets, task_seed
from airflow_dispatch_provider.settings.changes import changes
from airflow_dispatch_provider.settings.model import Settings

NAME = "pasted.yaml"
"""How mistakes call the file."""

MOST_SHOWN = 200


class Source(Protocol):
    """The part of a ``SettingsSource`` that is used."""

    @property
    def config_file(self) -> str | None: ...

    def load(self) -> Settings: ...

    def try_out(self, text: str, name: str) -> Settings: ...


def what_if(source: Source, text: str, waiting: Waiting) -> WhatIf:
    """
    :param text: of the file
    :param waiting: the tasks that are asked; those of other teams must be left out
    """
    try:
        new = source.try_out(text, NAME)
    except DispatchConfigError as error:
        return WhatIf([Mistake(each.where, each.found, each.remedy) for each in error.problems])
    try:
        old = source.load()
    except DispatchConfigError:
        problem = (
            "The configuration that the API server reads is wrong itself: there is nothing to compare with."
        )
        return WhatIf([], problem=problem)
    found = WhatIf(
        mistakes=[],
        changes=[FileChange(**asdict(each)) for each in changes(old, new)],
        reads_file=source.config_file is not None,
        problem=waiting.problem,
    )
    if not found.changes:
        return replace(found, looked_at=len(waiting.tasks), waiting=waiting.total)
    before, after = route_table(old), route_table(new)
    moved = [task for each in waiting.tasks if (task := _moved(each, before, after)) is not None]
    return replace(
        found,
        moved=moved[:MOST_SHOWN],
        moved_total=len(moved),
        looked_at=len(waiting.tasks),
        waiting=waiting.total,
        problem=waiting.problem or " ".join(each.words for each in waiting.uncounted) or None,
    )


def _moved(task: WaitingTask, before: RouteTable, after: RouteTable) -> MovedTask | None:
    seed = task_seed(task.dag_id, task.run_id, task.task_id, task.map_index)
    ref = TaskRef(task.queue, task.dag_id, seed, task.kind)
    was, route_before = _targets(before, ref)
    will_be, route_after = _targets(after, ref)
    if was == will_be:
        return None
    return MovedTask(
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id=task.run_id,
        map_index=task.map_index,
        queue=task.queue,
        route_before=route_before,
        route_after=route_after,
        before=was,
        after=will_be,
    )


def _targets(table: RouteTable, ref: TaskRef) -> tuple[list[str], str]:
    match = table.match(ref)
    return [str(target) for target in ordered_targets(match.route, ref.seed)], match.name
