# SPDX-License-Identifier: Apache-2.0
"""Answers as one user may see them. Pure, given the user's rights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from airflow_dispatch_provider.operate.model import (
    BackendStatus,
    Running,
    RunningOfTeams,
    Status,
    StatusForReader,
    Waiting,
    Workload,
)
from airflow_dispatch_provider.operate.orders import UnknownBackend
from airflow_dispatch_provider.operate.running import first_of


class Rights(Protocol):
    """The part of ``Access`` that is used."""

    def sees_team(self, team: str | None) -> bool: ...

    def acts_for(self, team: str | None) -> bool: ...

    def readable(self, dag_ids: set[str]) -> set[str]: ...


def status_for(rights: Rights, status: Status, team: str | None = None) -> StatusForReader:
    """
    :param team: this team's alone; None: all that may be seen
    """
    entries: list[_OfTeam] = [*status.backends, *status.schedulers, *status.other_orders, *status.uncounted]
    seen = visible_teams(rights, entries, team)
    backends = [each for each in status.backends if each.team in seen]
    readable = rights.readable({dag_id for each in backends for dag_id in each.dags})
    acts_for = [each for each in dict.fromkeys(backend.team for backend in backends) if rights.acts_for(each)]
    return StatusForReader(
        now=status.now,
        schedulers=[each for each in status.schedulers if each.team in seen],
        backends=[_with_dags(each, readable) for each in backends],
        problem=status.problem,
        other_orders=[each for each in status.other_orders if each.team in seen],
        uncounted=[each for each in status.uncounted if each.team in seen],
        may_act=bool(acts_for),
        acts_for=acts_for,
    )


def check_backend_of(rights: Rights, status: Status, backend: str) -> None:
    """
    :raises UnknownBackend: there is none of that name in a team that may be seen; names those that there are
    """
    seen = visible_teams(rights, status.backends)
    names = sorted({each.name for each in status.backends if each.team in seen})
    if status.problem is None and backend not in names:
        known = f" Known: {', '.join(names)}." if names else ""
        raise UnknownBackend(f"There is no backend {backend!r}.{known}")


class _OfTeam(Protocol):
    @property
    def team(self) -> str | None: ...


def visible_teams(rights: Rights, things: Iterable[_OfTeam], team: str | None = None) -> set[str | None]:
    """The teams of these things that may be seen, each asked about once.

    :param team: this one alone; None: all
    """
    teams = dict.fromkeys(each.team for each in things)
    return {each for each in teams if team in (None, each) and rights.sees_team(each)}


def _with_dags(backend: BackendStatus, readable: set[str]) -> BackendStatus:
    return replace(backend, dags={name: count for name, count in backend.dags.items() if name in readable})


def waiting_for(rights: Rights, waiting: Waiting) -> Waiting:
    """Numbers stay as they are: a place in a queue counts all that are before it."""
    seen = visible_teams(rights, [*waiting.groups, *waiting.not_begun, *waiting.uncounted])
    readable = rights.readable({task.dag_id for task in waiting.tasks if task.dag_id})
    acts = rights.acts_for(None)
    groups = [each for each in waiting.groups if each.team in seen]
    return replace(
        waiting,
        total=waiting.total if len(groups) == len(waiting.groups) else sum(each.held for each in groups),
        groups=groups,
        tasks=[task for task in waiting.tasks if _is_named(task, readable, acts)],
        not_begun=[each for each in waiting.not_begun if each.team in seen],
        uncounted=[each for each in waiting.uncounted if each.team in seen],
    )


def running_for(rights: Rights, running: RunningOfTeams, limit: int) -> Running:
    """The first tasks of teams and Dags that may be seen, and the total of those teams: what may not be seen takes no
    place."""
    totals = {team: total for team, total in running.totals.items() if rights.sees_team(team)}
    readable = rights.readable({task.dag_id for task in running.tasks if task.dag_id})
    acts = rights.acts_for(None)
    tasks = [task for task in running.tasks if task.team in totals and _is_named(task, readable, acts)]
    seen = visible_teams(rights, running.uncounted)
    uncounted = [each for each in running.uncounted if each.team in seen]
    return first_of(replace(running, totals=totals, tasks=tasks, uncounted=uncounted), limit)


def _is_named(task: Workload, readable: set[str], acts: bool) -> bool:
    """A workload of no Dag, such as a connection test, is for those who may give orders."""
    return task.dag_id in readable if task.dag_id else acts
