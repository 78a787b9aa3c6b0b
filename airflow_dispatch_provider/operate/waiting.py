# SPDX-License-Identifier: Apache-2.0
"""Tasks that wait, and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_dispatch_provider.bridge.database.tables import TablesMissing
from airflow_dispatch_provider.bridge.usual_waits import TaskOfRuns, usual_waits
from airflow_dispatch_provider.dispatch.report import NEXT
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.operate.beginning import hint_about, not_begun_of
from airflow_dispatch_provider.operate.documents import Document, Reading, moment, read
from airflow_dispatch_provider.operate.fullness import words_of
from airflow_dispatch_provider.operate.model import Waiting, WaitingGroup, WaitingOfTeams, WaitingTask
from airflow_dispatch_provider.operate.uncounted import uncounted_of
from airflow_dispatch_provider.routing.reasons import Reason

LIMIT = 200
"""Tasks that are listed where nobody says how many."""

REASONS = (
    *(each.value for each in (*Reason, *Waits) if each.value.startswith("waits_")),
    Reason.UNSUPPORTED.value,
    NEXT[0],
)
"""Words for why something waits."""


class UnknownReason(DispatchError):
    """Nothing can wait for that."""


def check_reason(reason: str | None) -> None:
    """
    :raises UnknownReason: nothing can wait for it; names those that there are
    """
    if reason is not None and reason not in REASONS:
        raise UnknownReason(f"{reason!r} is no reason to wait. Known: {', '.join(REASONS)}.")


def read_waiting(
    backend: str | None = None,
    reason: str | None = None,
    dag_id: str | None = None,
    limit: int = LIMIT,
    team: str | None = None,
) -> Waiting:
    """
    Everything that waits in a deployment.

    :param backend: only what has this one as first target
    :param reason: only what waits for this, by its word
    :param dag_id: only tasks of this Dag; groups are of all Dags
    :param team: only of this team; None: of all
    """
    found = first_of(read_waiting_of_teams(backend, reason, dag_id, team), limit)
    return replace(found, tasks=with_usual(found.tasks))


def read_waiting_of_teams(
    backend: str | None = None, reason: str | None = None, dag_id: str | None = None, team: str | None = None
) -> WaitingOfTeams:
    """As ``read_waiting``, all that are listed, and not how long they usually wait."""
    try:
        return waiting_of(read(team), backend, reason, dag_id)
    except TablesMissing as error:
        return WaitingOfTeams(moment(time.time()), {}, [], [], str(error))


def waiting_of(
    reading: Reading, backend: str | None, reason: str | None, dag_id: str | None
) -> WaitingOfTeams:
    """See ``read_waiting``."""
    groups = [
        group
        for group in _groups(reading)
        if backend in (None, group.backend) and reason in (None, group.reason)
    ]
    tasks = sorted(
        (
            task
            for task in tasks_of(reading)
            if backend in (None, *task.targets[:1])
            and reason in (None, task.reason)
            and dag_id in (None, task.dag_id)
        ),
        key=lambda task: (not task.position, task.position, task.since),
    )
    totals: Counter[str | None] = Counter()
    if backend is None and reason is None:
        for document in reading.living:
            totals[document.team] += document.body["held"]
    else:
        for group in groups:
            totals[group.team] += group.held
    given = not_begun_of(reading, backend) if reason is None else []
    uncounted = uncounted_of(reading)
    return WaitingOfTeams(moment(reading.now), dict(totals), groups, tasks, reading.problem, given, uncounted)


def first_of(found: WaitingOfTeams, limit: int) -> Waiting:
    """Of all teams as one."""
    return Waiting(
        found.now,
        sum(found.totals.values()),
        found.groups,
        found.tasks[:limit],
        found.problem,
        found.not_begun,
        found.uncounted,
    )


def with_usual(tasks: list[WaitingTask]) -> list[WaitingTask]:
    """The same, with what Airflow's tables tell of how long they usually wait."""
    usual = usual_waits(_of_runs(task) for task in tasks if task.dag_id)
    return [replace(task, usual=usual.get(_of_runs(task))) for task in tasks]


def _of_runs(task: WaitingTask) -> TaskOfRuns:
    return TaskOfRuns(task.dag_id, task.task_id, task.map_index)


def _groups(reading: Reading) -> list[WaitingGroup]:
    """The most first."""
    groups: dict[tuple[Any, ...], list[tuple[Document, dict[str, Any]]]] = {}
    for document in reading.living:
        for entry in document.body["groups"]:
            key = document.team, *map(str, (entry[each] for each in _ALIKE))
            groups.setdefault(key, []).append((document, entry))
    return sorted((_group(reading, told) for told in groups.values()), key=lambda group: -group.held)


_ALIKE = ("backend", "reason", "detail", "full", "left_out")
"""Values that are the same for all of a group."""


def _group(reading: Reading, told: Sequence[tuple[Document, dict[str, Any]]]) -> WaitingGroup:
    """By each scheduler that has such tasks."""
    documents, entries = zip(*told, strict=True)
    return WaitingGroup(
        entries[0]["backend"],
        documents[0].team,
        entries[0]["reason"],
        words_of(entries[0], documents),
        _detail(reading, entries[0], documents),
        sum(entry["held"] for entry in entries),
        moment(min(entry["oldest"] for entry in entries)),
    )


def _detail(reading: Reading, entry: dict[str, Any], documents: Sequence[Document]) -> str | None:
    """The trouble of its targets, and what to look at where nothing begins at a full one."""
    said = reading.with_orders(entry["detail"], documents[0].team)
    hints = []
    for name, _ in entry["full"]:
        hint = hint_about([each for document in documents for each in document.about(name)], reading.now)
        if hint is not None:
            hints.append(f"{name}: nothing that it has has begun for a while. {hint}")
    return " ".join(filter(None, (said, *hints))) or None


def tasks_of(reading: Reading) -> Iterator[WaitingTask]:
    """Those that their schedulers have listed."""
    for document in reading.living:
        expected = _expectation(document, reading.now)
        for entry in document.body["waiting"]:
            yield WaitingTask(
                **{key: entry[key] for key in _COPIED},
                team=document.team,
                words=words_of(entry, [document]),
                detail=_detail(reading, entry, [document]),
                since=moment(entry["since"]),
                expected=expected(entry),
                others=len(set(entry["targets"]).difference(entry["left_out"])) > 1,
                scheduler=document.scheduler,
            )


_COPIED = (
    "dag_id",
    "task_id",
    "run_id",
    "map_index",
    "try_number",
    "kind",
    "queue",
    "route",
    "targets",
    "reason",
    "position",
)


def _expectation(document: Document, now: float) -> Callable[[dict[str, Any]], datetime | None]:
    """When a task may start that waits for a slot, by its place and by the pace at which tasks end at its first target.
    Nobody can tell where none has ended lately, or so few that they are no pace."""
    paces = {entry["name"]: _pace(entry["minutes"], now) for entry in document.body["backends"]}
    is_open = {entry["name"] for entry in document.body["backends"] if entry["state"] == "open"}

    def expected(entry: dict[str, Any]) -> datetime | None:
        if document.body["api_trouble"] or entry["reason"] != Reason.WAITS_FULL or not entry["position"]:
            return None
        name = entry["targets"][0]
        pace = paces.get(name) if name in is_open else None
        return moment(now + entry["position"] / pace) if pace else None

    return expected


def _pace(minutes: list[list[int]], now: float) -> float | None:
    """Tasks a second that have ended at a backend over the last minutes."""
    latest = [each for each in minutes if each[0] > now - _PACE_OF]
    over = sum(ended for _, _, ended in latest)
    return over / max(60.0, now - latest[0][0]) if over >= _LEAST else None


_PACE_OF, _LEAST = 600.0, 5
"""Seconds over which a pace is measured, and tasks that make one."""
