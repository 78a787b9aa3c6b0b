# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch explain``. Loaded when it is called."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.commands import (
    UsageError,
    command,
    database_words,
    judged,
    settings_of,
    show_missing,
)
from airflow_dispatch_provider.cli.inspection import inspect_backends
from airflow_dispatch_provider.dispatch.rules import route_table
from airflow_dispatch_provider.operate.documents import moment
from airflow_dispatch_provider.operate.explaining import explain_now
from airflow_dispatch_provider.operate.explanation import Explanation, TargetExplanation
from airflow_dispatch_provider.operate.explanation import explain as explain_task
from airflow_dispatch_provider.operate.model import Status
from airflow_dispatch_provider.operate.status import read_status
from airflow_dispatch_provider.operate.trying import Explained, ExplainedTarget
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import task_seed
from airflow_dispatch_provider.settings.model import Settings


@command
def explain(args: Namespace) -> int:
    """``airflow dispatch explain``"""
    settings = settings_of(args)
    seed = _seed(args)
    executor = _executor(args.executor, settings, getattr(args, "team", None)) if args.executor else None
    ref = TaskRef(queue=args.queue, dag_id=args.dag_id, seed=seed, executor=executor)
    table = route_table(settings)
    statuses = inspect_backends(settings, {target.backend for target in table.match(ref).route.to})
    found = explain_task(table, ref, {status.name: status.view for status in statuses})
    problems = {status.name: status.missing for status in statuses}
    live = _live(settings, ref, getattr(args, "team", None))
    if args.output in output.STRUCTURED:
        output.show_object(_explanation_object(found, ref, problems, live), args.output)
        return judged(statuses)
    rows = _rows(found, ref, problems, live)
    if args.output == "plain":
        output.show_rows(rows, args.output)
        return judged(statuses)
    for sentence in (*_explanation_sentences(found), *_live_sentences(live)):
        print(output.wrapped(sentence))
    print()
    output.show_rows([_for_people(row, live) for row in rows], args.output)
    for target in live.targets:
        if target.trouble:
            print(output.wrapped(f"{target.backend}: {target.trouble}", "", "  "))
    show_missing(statuses)
    return judged(statuses)


@output.only_answers()
def _live(settings: Settings, ref: TaskRef, team: str | None) -> Explained:
    """The same as the backends are now; ``problem`` says why that is not known: the configuration is all that is
    needed."""
    try:
        status = read_status(team)
    except SQLAlchemyError as error:
        status = Status(moment(time.time()), [], [], database_words(error))
    return explain_now(settings, ref, status, team)


def _live_sentences(live: Explained) -> Iterator[str]:
    if live.problem is not None:
        yield f"How its targets are now is not known: {live.problem}"
    elif live.now is not None:
        where = f"it goes to {live.now.backend}" if live.now.backend is not None else "it waits"
        yield f"Now {where} ({live.now.reason}: {live.now.words}), if no other task is before it."


def _rows(
    found: Explanation, ref: TaskRef, problems: Mapping[str, str | None], live: Explained
) -> list[dict[str, Any]]:
    """For ``plain``: what is not known now is empty."""
    rows = []
    for order, (target, now) in enumerate(zip(found.targets, live.targets, strict=True), start=1):
        row = _target_row(order, target, ref, problems)
        row["share"] = None if row["share"] is None else f"{row['share']:.0%}"
        row["used"] = row["used"] or ["never"]
        rows.append({**row, **_now(now)})
    return rows


def _now(target: ExplainedTarget) -> dict[str, Any]:
    """Figures of a target over all schedulers; ``in_use`` are slots."""
    return {
        "state": target.state,
        "slots": target.slots,
        "in_use": target.used,
        "free": target.free,
        "held": target.held,
        "trouble": target.trouble,
    }


def _for_people(row: dict[str, Any], live: Explained) -> dict[str, Any]:
    """In a column more, where it is known; troubles are told below the table."""
    now = [f"{row['state']}", f"{row['in_use']}/{row['slots']} used", f"{row['held']} held"]
    is_known = any(target.state is not None for target in live.targets)
    shown = ("order", "backend", "queue", "share", "blocked", "used")
    column = {"now": now if row["state"] is not None else None} if is_known else {}
    return {**{key: row[key] for key in shown}, **column}


@output.only_answers()
def _executor(name: str, settings: Settings, team: str | None) -> str | None:
    """The class that a backend must have for a task with this ``executor=``; None: its queue alone decides."""
    from airflow_dispatch_provider.executors import by_name
    from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor

    ours = {
        cls.__name__: cls
        for cls in (by_name.CeleryExecutor, by_name.KubernetesExecutor, by_name.LocalExecutor)
    }
    found = _listed_executor(name, team)
    if found is not None and issubclass(found, DispatchExecutor):
        return None
    if found is not None and not issubclass(found, tuple(ours.values())):
        path = f"{found.__module__}.{found.__name__}"
        raise UsageError(f"--executor: {name!r} is {path} to Airflow: its tasks do not come to the router.")
    wanted = name if found is None else found.__name__
    if wanted not in settings.executors:
        known = ", ".join(map(repr, settings.executors))
        raise UsageError(f"--executor: no backend has an executor of the name {wanted!r}. Known: {known}.")
    if found is None:
        remedy = (
            f"List {name}:{ours[name].__module__}.{name} after the router" if name in ours else "Use queue="
        )
        raise UsageError(
            f"--executor: [core] executor lists no {name!r}, and Airflow refuses a Dag that names it. {remedy}."
        )
    return wanted


def _listed_executor(name: str, team: str | None) -> type[Any] | None:
    """The class that Airflow takes for ``executor=name``: a team's own first, by alias, import path or class name."""
    from airflow_dispatch_provider.executors.configured import configured_executors

    found: dict[tuple[str | None, int], type[Any]] = {}
    for each, cls in configured_executors():
        for rank, known in enumerate((each.alias, each.module_path, each.module_path.rpartition(".")[2])):
            if known == name:
                found[each.team_name, rank] = cls
    ranks = ((wanted, rank) for wanted in dict.fromkeys((team, None)) for rank in range(3))
    return next((found[rank] for rank in ranks if rank in found), None)


def _seed(args: Namespace) -> str:
    """The seed that picks among weighted targets, where the task instance is given."""
    if not any((args.task_id, args.run_id, args.map_index is not None)):
        return ""
    if not (args.dag_id and args.task_id and args.run_id):
        raise UsageError(
            "--task-id, --run-id and --map-index need each other: give --dag-id, --task-id and --run-id."
        )
    return task_seed(args.dag_id, args.run_id, args.task_id, -1 if args.map_index is None else args.map_index)


def _explanation_sentences(found: Explanation) -> Iterator[str]:
    yield f"Route {found.match.name!r}: {found.why}."
    if found.reason is None:
        yield "Which target a task has first depends on its Dag, run, task and map index."
    elif found.choice is None:
        yield f"It waits ({found.reason}: {found.reason.words})."
    else:
        yield f"As configured it goes to {found.choice} ({found.reason}: {found.reason.words})."


def _explanation_object(
    found: Explanation, ref: TaskRef, problems: Mapping[str, str | None], live: Explained
) -> dict[str, Any]:
    choice, reason = found.choice, found.reason
    return {
        "queue": ref.queue,
        "dag_id": ref.dag_id or None,
        "route": found.match.name,
        "why": found.why,
        "overflow_after": found.match.route.overflow_after,
        "choice": None if choice is None else {"backend": choice.backend, "queue": choice.queue or ref.queue},
        "reason": None if reason is None else {"name": reason.value, "words": reason.words},
        "now": None if live.now is None else asdict(live.now),
        "problem": live.problem,
        "targets": [
            {
                **_target_row(order, target, ref, problems),
                "used": [
                    {"reason": use.reason.value, "after": use.after, "words": use.reason.words}
                    for use in target.uses
                ],
                "now": None if now.state is None else {**_now(now), "state": now.state.value},
            }
            for order, (target, now) in enumerate(zip(found.targets, live.targets, strict=True), start=1)
        ],
    }


def _target_row(
    order: int, found: TargetExplanation, ref: TaskRef, problems: Mapping[str, str | None]
) -> dict[str, Any]:
    """
    :param problems: why the executor of a backend cannot be used, by its name; None: it can
    """
    blocked = None if found.blocked is None else str(found.blocked)
    problem = problems[found.target.backend]
    return {
        "order": order,
        "backend": found.target.backend,
        "queue": found.target.queue or ref.queue,
        "share": found.share,
        "blocked": blocked if problem is None else "unusable",
        "used": [str(use) for use in found.uses],
        "problem": problem,
    }
