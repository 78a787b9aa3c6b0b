# SPDX-License-Identifier: Apache-2.0
"""Answers as one user may see them. Pure, given the user's rights."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Protocol, TypeVar

from airflow_dispatch_provider.operate.model import (
    BackendStatus,
    Running,
    RunningOfTeams,
    RunningTask,
    Status,
    StatusForReader,
    Waiting,
    WaitingOfTeams,
    WaitingTask,
)
from airflow_dispatch_provider.operate.orders import UnknownBackend
from airflow_dispatch_provider.operate.running import first_of as first_running
from airflow_dispatch_provider.operate.waiting import first_of as first_waiting


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


def waiting_for(rights: Rights, waiting: WaitingOfTeams, limit: int) -> Waiting:
    """The first tasks of teams and Dags that may be seen: what may not be seen takes no place in the list. Numbers stay
    as they are: a place in a queue counts all that are before it."""
    seen = _seen(rights, waiting.totals, [*waiting.groups, *waiting.not_begun, *waiting.uncounted])
    of_seen = waiting_of_teams(waiting, seen)
    return first_waiting(replace(of_seen, tasks=_named(rights, of_seen.tasks, seen)), limit)


def waiting_of_teams(waiting: WaitingOfTeams, teams: Collection[str | None]) -> WaitingOfTeams:
    """The part that waits for backends of these teams, None being everybody's."""
    return replace(
        waiting,
        totals={team: total for team, total in waiting.totals.items() if team in teams},
        groups=[each for each in waiting.groups if each.team in teams],
        tasks=[each for each in waiting.tasks if each.team in teams],
        not_begun=[each for each in waiting.not_begun if each.team in teams],
        uncounted=[each for each in waiting.uncounted if each.team in teams],
    )


def running_for(rights: Rights, running: RunningOfTeams, limit: int) -> Running:
    """The first tasks of teams and Dags that may be seen, and the total of those teams: what may not be seen takes no
    place."""
    seen = _seen(rights, running.totals, running.uncounted)
    totals = {team: total for team, total in running.totals.items() if team in seen}
    uncounted = [each for each in running.uncounted if each.team in seen]
    tasks = _named(rights, running.tasks, seen)
    return first_running(replace(running, totals=totals, tasks=tasks, uncounted=uncounted), limit)


def _seen(rights: Rights, teams: Iterable[str | None], things: Iterable[_OfTeam]) -> set[str | None]:
    """Those of these teams, and of the teams of these things, that may be seen."""
    every = dict.fromkeys([*teams, *(each.team for each in things)])
    return {team for team in every if rights.sees_team(team)}


_Task = TypeVar("_Task", WaitingTask, RunningTask)


def _named(rights: Rights, tasks: Iterable[_Task], seen: Collection[str | None]) -> list[_Task]:
    """Those that may be named. A workload of no Dag, such as a connection test, is for those who may give orders to its
    team's backends."""
    tasks = [task for task in tasks if task.team in seen]
    readable = rights.readable({task.dag_id for task in tasks if task.dag_id})
    acts = {team: rights.acts_for(team) for team in {task.team for task in tasks if not task.dag_id}}
    return [task for task in tasks if (task.dag_id in readable if task.dag_id else acts[task.team])]
