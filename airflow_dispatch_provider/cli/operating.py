# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch`` about a running deployment: status, waiting. Loaded when one of them is called."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NoReturn

from sqlalchemy.exc import SQLAlchemyError

from airflow_dispatch_provider import __version__
from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.commands import EXIT_WRONG_CONFIG, UsageError, command, database_words
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate.documents import FRESH
from airflow_dispatch_provider.operate.model import (
    BackendState,
    BackendStatus,
    Forecast,
    OrderInForce,
    Running,
    SchedulerStatus,
    Status,
    Uncounted,
    Waiting,
    WaitingGroup,
    WaitingTask,
    Workload,
)
from airflow_dispatch_provider.operate.status import read_status
from airflow_dispatch_provider.operate.waiting import UnknownReason, check_reason, read_waiting

_CLEAR = "\033[H\033[2J"
"""Moves the cursor of a terminal to its beginning, and clears it."""

LOOK_EVERY = 2.0
"""Seconds between two looks of ``--watch`` and ``--wait``."""


class NothingKnown(DispatchError):
    """The database has no status."""


def plain(value: Any) -> Any:
    """Dataclasses as JSON and YAML have them: times in ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def duration(seconds: float) -> str:
    """For people: ``42 s``, ``7 min``, ``3 h 5 min``, ``2 d 4 h``."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(now: datetime, then: datetime | None) -> str | None:
    """How long before; None: nobody knows when."""
    return None if then is None else duration((now - then).total_seconds())


def clock(at: datetime | None) -> str | None:
    """The wall clock of whoever asks with its zone, and with the date where it is another day."""
    if at is None:
        return None
    local, today = at.astimezone(), datetime.now().astimezone().date()
    return f"{local:%H:%M:%S %Z}" if local.date() == today else f"{local:%Y-%m-%d %H:%M:%S %Z}"


def iso(at: datetime | None) -> str | None:
    """For programs: ISO 8601 in UTC, to the second, without blanks."""
    return None if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


@command
def status(args: Namespace) -> int:
    """``airflow dispatch status``"""
    if args.watch and args.output != "table":
        raise UsageError("--watch shows a table: leave out --output, or ask again and again.")
    if not args.watch:
        return _show_status(args)
    try:
        _watch(args)
    except KeyboardInterrupt:
        return 0


def _watch(args: Namespace) -> NoReturn:
    """Where it has been shown once, nothing that fails later ends it."""
    is_shown = False
    while True:
        if sys.stdout.isatty():
            print(_CLEAR, end="")
        try:
            _show_status(args)
            is_shown = True
        except (DispatchError, SQLAlchemyError) as error:
            if not is_shown:
                raise
            words = database_words(error) if isinstance(error, SQLAlchemyError) else str(error)
            print(output.wrapped(words))
        print(flush=True)
        time.sleep(LOOK_EVERY)


def _show_status(args: Namespace) -> int:
    found = read_status(getattr(args, "team", None))
    if args.output in output.STRUCTURED:
        output.show_object(plain(asdict(found)), args.output)
    elif not found.schedulers or (found.problem and args.output != "table"):
        raise NothingKnown(found.problem or "")
    elif args.output != "table":
        say_uncounted(found.uncounted, args.output)
        output.show_rows([_backend_fields(found.now, backend) for backend in found.backends], args.output)
    else:
        if found.backends:
            rows = [_backend_row(found.now, backend) for backend in found.backends]
            _show_backends(rows, args.output)
            print()
        for sentence in _sentences(found):
            print(output.wrapped(sentence, "", "  "))
    return EXIT_WRONG_CONFIG if is_troubled(found) else 0


def _show_backends(rows: list[dict[str, Any]], format_: str) -> None:
    """Trouble is told below the table."""
    hidden = {"trouble"} if any(row["not begun"] for row in rows) else {"trouble", "not begun"}
    output.show_rows([{key: row[key] for key in row if key not in hidden} for row in rows], format_)


def is_troubled(found: Status) -> bool:
    """Whether anything keeps tasks from being run that nobody has ordered."""
    lives = [each for each in found.schedulers if each.lives and each.other_version is None]
    return (
        not lives
        or any(scheduler.refused or scheduler.api_trouble for scheduler in lives)
        or any(backend.state is BackendState.FAILING for backend in found.backends)
    )


def _backend_row(now: datetime, backend: BackendStatus) -> dict[str, Any]:
    ahead = f" +{backend.ahead} ahead" if backend.ahead else ""
    return {
        "backend": backend.name if backend.team is None else f"{backend.name} (team {backend.team})",
        "state": f"{backend.state} {ago(now, backend.since)}",
        "used": f"{backend.used}/{backend.slots}{ahead}",
        "not begun": _not_begun(now, backend),
        "free": backend.free,
        "held": backend.held,
        "oldest": ago(now, backend.oldest),
        "in/min": backend.submitted_per_minute,
        "out/min": backend.ended_per_minute,
    }


def _backend_fields(now: datetime, backend: BackendStatus) -> dict[str, Any]:
    """For ``plain``: a field has no blank in it, but for the last one."""
    return {
        "backend": backend.name,
        "team": backend.team,
        "state": backend.state,
        "since": iso(backend.since),
        "used": backend.used,
        "ahead": backend.ahead,
        "slots": backend.slots,
        "free": backend.free,
        "held": backend.held,
        "oldest": iso(backend.oldest),
        "in/min": backend.submitted_per_minute,
        "out/min": backend.ended_per_minute,
        "trouble": _troubles(now, backend),
    }


def _not_begun(now: datetime, backend: BackendStatus) -> str | None:
    return f"{backend.not_begun} for {ago(now, backend.not_begun_since)}" if backend.not_begun else None


def _troubles(now: datetime, backend: BackendStatus) -> list[str]:
    """Its trouble, when it is tried again, the order about it, and what is left to do of a recall."""
    trouble = [backend.trouble] if backend.trouble else []
    is_ahead = backend.next_try is not None and backend.next_try > now
    late, returning = ", ".join(backend.not_recalled), backend.returning
    return [
        *trouble,
        *([f"Next try at {clock(backend.next_try)}."] if is_ahead else []),
        *order_words(backend.order),
        *([f"Recall is still to be done by scheduler {late}."] if late else []),
        *([f"{returning} are being set back to scheduled."] if returning else []),
        *([f"Nothing that it has has begun. {backend.hint}"] if backend.hint else []),
    ]


def order_words(order: OrderInForce | None) -> list[str]:
    """Its sentence, if there is an order."""
    if order is None:
        return []
    reason = f": {order.reason}" if order.reason else ""
    until = f" until {clock(order.until)}" if order.until else " with no end"
    return [f"{order.command} by {order.by} since {clock(order.since)}{until}{reason}."]


def _sentences(found: Status) -> Iterator[str]:
    for backend in found.backends:
        if troubles := _troubles(found.now, backend):
            yield f"{backend.name}: {' '.join(troubles)}"
    for order in found.other_orders:
        yield f"{order.backend}, of which no scheduler tells: {order_words(order)[0]}"
    if found.problem:
        yield found.problem
    uncounted = {(each.scheduler, each.team): each.words for each in found.uncounted}
    for scheduler in found.schedulers:
        words = None if scheduler.lives else uncounted.get((scheduler.id, scheduler.team))
        yield words or _scheduler_words(found.now, scheduler)
        if scheduler.lives and scheduler.api_trouble:
            yield f"  Nothing is launched: the execution API answers nobody. {scheduler.api_trouble}"
        if scheduler.lives and scheduler.refused:
            yield "  The file on disk is refused, and the last good version is in use."
            yield from (f"  {line}" for line in scheduler.refused.splitlines())


def _scheduler_words(now: datetime, scheduler: SchedulerStatus) -> str:
    executor = f" ({scheduler.executor})" if scheduler.executor else ""
    who = f"Scheduler {scheduler.id} on {scheduler.hostname}{executor}"
    if not scheduler.lives:
        silent = f"has not written for {ago(now, scheduler.written)}"
        ended = (now - scheduler.written).total_seconds() < FRESH
        return f"{who} {'has ended or died' if ended else silent}: it is not counted above."
    if scheduler.other_version is not None:
        return (
            f"{who} runs version {scheduler.other_version} of this package, and this is {__version__}: it is not"
            " counted above."
        )
    file = f", file {scheduler.file}" if scheduler.file else ""
    return f"{who}: last heartbeat {ago(now, scheduler.heartbeat)} ago{file}."


@command
def waiting(args: Namespace) -> int:
    """``airflow dispatch waiting``"""
    found = read_waiting(args.backend, args.reason, args.dag_id, args.limit, getattr(args, "team", None))
    if found.problem is None:
        _check_filters(args)
    if (code := shown_as_object(found, args.output)) is not None:
        return code
    if args.output == "table":
        print(output.wrapped(_total(found, args.dag_id)))
        if found.not_begun:
            print(output.wrapped(_given(found)))
    say_uncounted(found.uncounted, args.output)
    if args.output == "table":
        if found.groups:
            print()
            output.show_rows([_group_row(found.now, group) for group in found.groups], args.output)
        if found.tasks:
            print()
    if found.tasks or args.output != "table":
        tasks = sorted(found.tasks, key=lambda task: (task.targets[:1], not task.position, task.position))
        rows = [_task_row(found.now, task) for task in tasks]
        output.show_rows(
            list(map(_task_fields, tasks)) if args.output == "plain" else rows, args.output, OPTIONAL
        )
    return 0


def shown_as_object(found: Waiting | Running | Forecast, format_: str) -> int | None:
    """Print an answer for programs, whether or not anything is known: the exit code; None: it is for people.

    :raises NothingKnown: then people are told why
    """
    if format_ in output.STRUCTURED:
        output.show_object(plain(asdict(found)), format_)
        return 0 if found.problem is None else EXIT_WRONG_CONFIG
    if found.problem is not None:
        raise NothingKnown(found.problem)
    return None


OPTIONAL = ("scheduler", "then", "usually", "queue")
"""Columns about a task that a table may leave out."""


def say_uncounted(uncounted: Iterable[Uncounted], format_: str) -> None:
    """Tasks that no number has: among the answer for people, beside it for programs."""
    file = sys.stdout if format_ == "table" else sys.stderr
    for each in uncounted:
        print(output.wrapped(each.words, stream=file), file=file)


def name_fields(task: Workload) -> dict[str, Any]:
    """For ``plain``, each as it is; the kind of what is no task."""
    return {
        "dag_id": task.dag_id or task.kind,
        "task_id": task.task_id or None,
        "map_index": task.map_index,
        "run_id": task.run_id or None,
        "queue": task.queue,
    }


def task_name(task: Workload) -> str:
    """Of a task its Dag, id and map index; of anything else its kind."""
    name = f"{task.dag_id} {task.task_id}" if task.task_id else task.kind
    return f"{name} [{task.map_index}]" if task.map_index >= 0 else name


def check_backend_name(args: Namespace) -> None:
    """
    :raises UsageError: ``--backend`` names none that there is
    """
    if args.backend is not None:
        names = [backend.name for backend in read_status(getattr(args, "team", None)).backends]
        if args.backend not in names:
            raise UsageError(f"There is no backend {args.backend!r}. Known: {', '.join(names)}.")


def _check_filters(args: Namespace) -> None:
    """
    :raises UsageError: nothing can wait for that
    """
    check_backend_name(args)
    try:
        check_reason(args.reason)
    except UnknownReason as error:
        raise UsageError(str(error)) from None


def _total(found: Waiting, dag_id: str | None) -> str:
    if not found.total:
        return "Nothing waits with a scheduler that is counted." if found.uncounted else "Nothing waits."
    tasks = f"{found.total} task{' waits' if found.total == 1 else 's wait'}{in_all(dag_id)}"
    return f"{tasks}. Listed are the first of each backend{of_dag(dag_id)}: {len(found.tasks)}."


def in_all(dag_id: str | None) -> str:
    """Behind a number that counts other Dags, too."""
    return "" if dag_id is None else ", of whatever Dag"


def of_dag(dag_id: str | None) -> str:
    """Behind what is listed."""
    return "" if dag_id is None else f" that are of the Dag {dag_id!r}"


def _given(found: Waiting) -> str:
    """Those that do not wait any more, and have not begun either."""
    number = sum(each.number for each in found.not_begun)
    where = ", ".join(f"{each.backend} {each.number}" for each in found.not_begun)
    oldest = ago(found.now, min(each.since for each in found.not_begun))
    have = "has" if number == 1 else "have"
    return (
        f"{number} more {have} been given to a backend ({where}) and {have} not begun, the oldest for {oldest}:"
        " airflow dispatch running"
    )


def _group_row(now: datetime, group: WaitingGroup) -> dict[str, Any]:
    return {
        "backend": group.backend or None,
        "held": group.held,
        "oldest wait": ago(now, group.oldest),
        "reason": group.reason,
        "meaning": [group.words, *([group.detail] if group.detail else [])],
    }


def _task_row(now: datetime, task: WaitingTask) -> dict[str, Any]:
    return {
        "backend": next(iter(task.targets), None),
        "place": task.position or None,
        "task": task_name(task),
        "run": task.run_id,
        "queue": task.queue,
        "then": task.targets[1:],
        "waits": ago(now, task.since),
        "reason": task.reason,
        "usually": None if task.usual is None else duration(task.usual),
        "expected": about(task.expected),
    }


def _task_fields(task: WaitingTask) -> dict[str, Any]:
    """For ``plain``: a field has no blank in it, unless a name has."""
    return {
        "backend": next(iter(task.targets), None),
        "place": task.position or None,
        **name_fields(task),
        "then": ",".join(task.targets[1:]) or None,
        "since": iso(task.since),
        "reason": task.reason,
        "usually": None if task.usual is None else round(task.usual),
        "expected": iso(task.expected),
    }


def about(at: datetime | None) -> str | None:
    """A time that is only expected."""
    return None if at is None else f"about {at.astimezone():%H:%M %Z}"
