# SPDX-License-Identifier: Apache-2.0
"""The story of one try of a task: what was decided about it, in order, and where it is now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_dispatch_provider.bridge import schedulers
from airflow_dispatch_provider.bridge.database.tables import TablesMissing
from airflow_dispatch_provider.bridge.event_log import DISPATCHED, object_in
from airflow_dispatch_provider.bridge.histories import Event, Try, find_try, missing
from airflow_dispatch_provider.bridge.orphans import is_unfinished
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.lifecycle.events import RECALLED, TAKEN_OVER, WAITS_START
from airflow_dispatch_provider.operate.beginning import hint_of
from airflow_dispatch_provider.operate.documents import Reading, read
from airflow_dispatch_provider.operate.model import WaitingTask, Workload
from airflow_dispatch_provider.operate.past import Given, StoryStep, TaskStory
from airflow_dispatch_provider.operate.running import tasks_there
from airflow_dispatch_provider.operate.uncounted import adopted_when
from airflow_dispatch_provider.operate.waiting import tasks_of, with_usual


class NoSuchTask(DispatchError):
    """There is no such Dag, run, task or try: which of them it is."""


def read_story(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    try_number: int | None = None,
    with_audit_log: bool = True,
) -> TaskStory:
    """
    The story of a try.

    :param map_index: -1: it is not mapped
    :param try_number: None: the last one
    :param with_audit_log: with rows of Airflow's audit log that are not of this package
    :raises NoSuchTask: there is none
    """
    found = find_try(dag_id, run_id, task_id, map_index, try_number)
    if found is None:
        raise NoSuchTask(missing(dag_id, run_id, task_id, map_index, try_number))
    waiting = given = unqueued = None
    steps = sorted(_steps(found, with_audit_log), key=lambda step: step.at)
    with suppress(TablesMissing):
        reading = read()
        steps = [_with_order(reading, step) for step in steps]
        if found.state == _SCHEDULED:
            unqueued = _unqueued(reading)
        if found.state == _QUEUED:
            waiting, given = _now(found, (dag_id, run_id, task_id, map_index, found.try_number), reading)
    return TaskStory(
        dag_id,
        task_id,
        run_id,
        map_index,
        found.try_number,
        found.state,
        steps,
        waiting,
        given,
        unqueued,
        _orphaned(found),
    )


def _unqueued(reading: Reading) -> str | None:
    """See ``TaskStory``. Airflow queues no more than executors have free slots. Nothing is said where teams have
    executors of their own: which one would get it is not known here."""
    if any(document.team for document in reading.documents):
        return None
    if not reading.living:
        return reading.problem
    takes = sum(document.body.get("takes", 0) for document in reading.living)
    if takes:
        return (
            f"Airflow has not queued it, though the executor would take {takes} more tasks: see the limits of its pool"
            " and its Dag, and [core] parallelism."
        )
    held = sum(document.body["held"] for document in reading.living)
    return (
        "Airflow has not queued it: the executor takes no more tasks now, as no backend has a free slot but for the"
        f" {held} that it holds. It has no place among these yet."
    )


def _orphaned(found: Try) -> str | None:
    """See ``TaskStory``."""
    job = found.queued_by
    if job is None or not is_unfinished(found.state) or str(job) in schedulers.living():
        return None
    return (
        f"Scheduler {job}, which looked after it, has ended or died, and no other one has taken it over yet."
        f" {adopted_when()}"
    )


def _with_order(reading: Reading, step: StoryStep) -> StoryStep:
    """Where a backend took no work since somebody had ordered so, who and why, if that is known: the order is still in
    force, and no team has backends of its own."""
    if not step.event.startswith("waits_") or any(document.team for document in reading.documents):
        return step
    before = [order for order in reading.orders if order.since <= step.at]
    return replace(step, words=reading._replace(orders=before).with_orders(step.words, None) or step.words)


_SCHEDULED = "scheduled"

_QUEUED = "queued"
"""The only state of a task that is held, or that a backend has and has not begun: what a scheduler wrote seconds ago of
one that is in another by now is over."""

_Identity = tuple[str, str, str, int, int]


def _now(found: Try, identity: _Identity, reading: Reading) -> tuple[WaitingTask | None, Given | None]:
    """Where it is while it is queued."""
    for task in tasks_of(reading):
        if _identity(task) == identity:
            (waits,) = with_usual([task])
            return waits, None
    there = [task for task in tasks_there(reading) if _identity(task) == identity and not task.has_begun]
    if not there:
        return None, _as_told(found, reading)
    return None, _given(there[0].backend, there[0].since, reading)


def _identity(task: Workload) -> _Identity:
    return task.dag_id, task.run_id, task.task_id, task.map_index, task.try_number


def _as_told(found: Try, reading: Reading) -> Given | None:
    """By the event log: schedulers list the first tasks of each backend alone."""
    told = [(each, extra) for each in found.events if (extra := _told(each))]
    sent = [(each.at, extra) for each, extra in told if each.event == DISPATCHED]
    if not sent or told[-1][0].event not in _THERE:
        return None
    at, extra = sent[-1]
    is_anew = found.scheduled is not None and found.scheduled > at
    return None if is_anew else _given(str(extra.get("backend")), at, reading)


_THERE = (DISPATCHED, WAITS_START, TAKEN_OVER)
"""The last news of what a backend has."""


def _given(backend: str, since: datetime, reading: Reading) -> Given:
    return Given(backend, since, hint_of(reading.about(backend), since.timestamp(), reading.now))


def _steps(found: Try, with_audit_log: bool) -> Iterator[StoryStep]:
    if found.scheduled is not None:
        yield StoryStep(found.scheduled, "scheduled", _why_scheduled(found, found.scheduled))
    yield from (_step(event) for event in found.events if with_audit_log or _is_ours(event))
    if found.queued is not None:
        yield from _queued(found, found.queued)
    if found.started is not None:
        yield StoryStep(found.started, "started", "it began to run", detail=found.hostname or None)
    if found.ended is not None:
        yield StoryStep(found.ended, "ended", f"its state is {found.state}")


def _why_scheduled(found: Try, at: datetime) -> str:
    """Airflow keeps the last time alone, and the rows before it say whether it was the first."""
    before = [event for event in found.events if event.at < at]
    if any(event.event in _BEGAN for event in before):
        return "again, in the same try: it had deferred, or nothing of it had run"
    own = [event for event in before if _is_ours(event)]
    if not own:
        return "all that it depends on is done (Airflow keeps only the last such time)"
    if own[-1].event == RECALLED:
        return "again, in the same try: an operator had recalled it"
    return (
        "again, in the same try: it had not begun, and its scheduler had died, or no backend had it any more"
    )


_BEGAN = ("running", "deferred", "up_for_reschedule")
"""Airflow's rows about a task that has begun."""


def _queued(found: Try, at: datetime) -> Iterator[StoryStep]:
    """Nothing, where rows about what came after it show that its time has been moved since."""
    after = [event for event in found.events if _is_ours(event) and event.at >= (found.scheduled or event.at)]
    if after and after[0].at < at:
        return
    waits = found.state == _QUEUED and not after
    renewed = " (while it waits, this time is renewed)" if waits else ""
    words = f"Airflow gave it to the executor, in queue {found.queue!r}{renewed}"
    cares = "has it now" if is_unfinished(found.state) else "had it last"
    detail = None if found.queued_by is None else f"scheduler {found.queued_by} {cares}"
    yield StoryStep(at, "queued", words, detail=detail)


def _is_ours(event: Event) -> bool:
    return _told(event) is not None


def _told(event: Event) -> dict[str, Any] | None:
    """The facts of a row of this package, JSON with a ``detail``; None: it is another's. What somebody has asked of
    Airflow may have a parameter of that name, too."""
    facts = object_in(event.extra) or {}
    return facts if "detail" in facts and not _OF_PEOPLE & facts.keys() else None


def _step(event: Event) -> StoryStep:
    extra = _told(event)
    if extra is None:
        return _of_airflow(event)
    detail = str(extra["detail"])
    if event.event != DISPATCHED:
        return StoryStep(event.at, event.event, detail)
    queue = f" as queue {extra['queue']!r}" if extra.get("queue") else ""
    words = f"to backend {extra.get('backend')!r}{queue} by route {extra.get('route')!r}"
    return StoryStep(event.at, event.event, words, extra.get("backend"), f"{extra.get('reason')}: {detail}")


_OF_PEOPLE = {"method", "full_command"}
"""One of these facts has a row that Airflow's API server or a command has written for somebody, its owner; the owner of
other rows is that of the task."""


def _of_airflow(event: Event) -> StoryStep:
    """Its rows have sentences, JSON, or nothing."""
    facts = object_in(event.extra)
    if facts is None:
        return StoryStep(event.at, event.event, event.extra or event.event)
    by = f" by {event.owner}" if event.owner and _OF_PEOPLE & facts.keys() else ""
    said = (
        f"{key.replace('_', ' ')}: {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in facts.items()
        if value not in (None, "", [], {})
    )
    words = f"{event.event.replace('_', ' ')}{by}"
    return StoryStep(event.at, event.event, words, detail=", ".join(said) or None)
