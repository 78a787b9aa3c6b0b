# SPDX-License-Identifier: Apache-2.0
"""What ``airflow dispatch ...`` does. Loaded when one of the commands is called."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import wraps
from typing import Any

from airflow.configuration import conf as airflow_conf
from airflow.exceptions import AirflowConfigException
from airflow.executors.base_executor import ExecutorConf
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_dispatch_provider.cli import migrate as migrating
from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.explanation import Explanation, TargetExplanation
from airflow_dispatch_provider.cli.explanation import explain as explain_task
from airflow_dispatch_provider.cli.inspection import (
    by_precedence,
    import_problems,
    inspect_backends,
    option_problems,
    warnings,
)
from airflow_dispatch_provider.exceptions import DispatchConfigError, DispatchError, Problem
from airflow_dispatch_provider.executors.backend_conf import settings_source
from airflow_dispatch_provider.routing.model import DEFAULT_ROUTE, Route, TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable, task_seed
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.options import SECTION

EXIT_WRONG_CONFIG = 1
EXIT_WRONG_USAGE = 2

Command = Callable[[Namespace], int]


def _command(function: Command) -> Callable[[Namespace], None]:
    """Make a function an Airflow command: logs kept off stdout, our options known to Airflow's configuration,
    and an exit code and a message instead of a traceback where the configuration is wrong."""

    @suppress_logs_and_warning
    @providers_configuration_loaded
    @wraps(function)
    def run(args: Namespace) -> None:
        try:
            code = function(args)
        except (DispatchError, AirflowConfigException) as error:
            print(f"error: {error}", file=sys.stderr)
            code = EXIT_WRONG_CONFIG
        if code:
            sys.exit(code)

    return run


def _conf(args: Namespace) -> Any:
    """Airflow's configuration, or the view that a team has of it."""
    team = getattr(args, "team", None)
    if not team:
        return airflow_conf
    if not airflow_conf.getboolean("core", "multi_team", fallback=False):
        print("error: --team needs [core] multi_team = True", file=sys.stderr)
        sys.exit(EXIT_WRONG_USAGE)
    return ExecutorConf(team)


def _settings(args: Namespace) -> Settings:
    # Not before the command runs: with executors come Airflow's models and alembic, which logs as it is imported.
    from airflow_dispatch_provider.executors.configured import router_classes
    from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor

    conf = _conf(args)
    router = router_classes().get(getattr(args, "team", None), DispatchExecutor)
    return settings_source(conf, router.hybrid).load()


@_command
def validate(args: Namespace) -> int:
    """``airflow dispatch validate``"""
    from airflow_dispatch_provider.executors.by_name import entry_problems

    try:
        settings = _settings(args)
    except DispatchConfigError as error:
        output.show_rows(_findings("mistake", error.problems), args.output)
        return EXIT_WRONG_CONFIG
    conf = _conf(args)
    config_file = conf.get(SECTION, "config_file", fallback=None)
    place = f"{config_file}: " if config_file else f"[{SECTION}] "
    statuses = inspect_backends(settings)
    entries = entry_problems(getattr(args, "team", None), settings)
    wrong = [*entries, *import_problems(statuses, place), *option_problems(settings, conf, place)]
    mistakes = _findings("mistake", wrong)
    doubts = _findings("warning", warnings(settings, statuses, conf, place))
    if mistakes or doubts or args.output in output.STRUCTURED:
        output.show_rows([*mistakes, *doubts], args.output)
    else:
        print(f"The [dispatch] configuration is right: {_size(settings)}.")
    return EXIT_WRONG_CONFIG if mistakes or (doubts and args.strict) else 0


def _findings(severity: str, problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [{"severity": severity, **asdict(problem)} for problem in problems]


def _size(settings: Settings) -> str:
    counts = {"backend": len(settings.backends), "route": len(settings.routes)}
    words = [f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items()]
    return f"{', '.join(words)} and a default"


@_command
def backends(args: Namespace) -> int:
    """``airflow dispatch backends``"""
    rows = [
        {
            "name": status.name,
            "executor": status.settings.class_path,
            "slots": status.settings.slots,
            "cordoned": status.settings.cordoned,
            "workload_types": sorted(status.kinds),
            "options": list(status.options),
            "status": status.missing or "ok",
        }
        for status in inspect_backends(_settings(args))
    ]
    output.show_rows(rows, args.output)
    return 0


@_command
def routes(args: Namespace) -> int:
    """``airflow dispatch routes``"""
    settings = _settings(args)
    ordered = by_precedence(settings.routes)
    rows = [_route_row(order, route.name, route) for order, route in enumerate(ordered, start=1)]
    default = _route_row(len(rows) + 1, DEFAULT_ROUTE, settings.default)
    rows.append({**default, "queue": None})
    if args.output not in output.STRUCTURED:
        rows = [output.route_words(row) for row in rows]
    output.show_rows(rows, args.output)
    return 0


def _route_row(order: int, name: str, route: Route) -> dict[str, Any]:
    return {
        "order": order,
        "route": name,
        "queue": route.queue,
        "dag_id": route.dag_id,
        "targets": [asdict(target) for target in route.to],
        "overflow_after": route.overflow_after,
    }


@_command
def explain(args: Namespace) -> int:
    """``airflow dispatch explain``"""
    settings = _settings(args)
    known = bool(args.dag_id and args.task_id and args.run_id)
    seed = task_seed(args.dag_id, args.run_id, args.task_id, args.map_index) if known else ""
    ref = TaskRef(queue=args.queue, dag_id=args.dag_id, seed=seed, executor=args.executor)
    views = {status.name: status.view for status in inspect_backends(settings)}
    table = RouteTable(settings.routes, settings.default, settings.executors)
    found = explain_task(table, ref, views)
    if args.output in output.STRUCTURED:
        output.show_object(_explanation_object(found, ref), args.output)
        return 0
    if args.output == "table":
        print(_explanation_sentence(found))
    rows = [_target_row(order, target, ref) for order, target in enumerate(found.targets, start=1)]
    for row in rows:
        row["share"] = None if row["share"] is None else f"{row['share']:.0%}"
        row["used"] = row["used"] or ["never"]
    output.show_rows(rows, args.output)
    return 0


def _explanation_sentence(found: Explanation) -> str:
    route = f"Route {found.match.name!r}: {found.why}."
    if found.reason is None:
        return f"{route}\nWhich target a task has first depends on its Dag, run, task and map index.\n"
    if found.choice is None:
        return f"{route}\nIt waits ({found.reason}: {found.reason.words}).\n"
    return f"{route}\nAs configured it goes to {found.choice} ({found.reason}: {found.reason.words}).\n"


def _explanation_object(found: Explanation, ref: TaskRef) -> dict[str, Any]:
    choice, reason = found.choice, found.reason
    return {
        "queue": ref.queue,
        "dag_id": ref.dag_id or None,
        "route": found.match.name,
        "why": found.why,
        "overflow_after": found.match.route.overflow_after,
        "choice": None if choice is None else {"backend": choice.backend, "queue": choice.queue or ref.queue},
        "reason": None if reason is None else {"name": reason.value, "words": reason.words},
        "targets": [
            {
                **_target_row(order, target, ref),
                "used": [
                    {"reason": use.reason.value, "after": use.after, "words": use.reason.words}
                    for use in target.uses
                ],
            }
            for order, target in enumerate(found.targets, start=1)
        ],
    }


def _target_row(order: int, found: TargetExplanation, ref: TaskRef) -> dict[str, Any]:
    return {
        "order": order,
        "backend": found.target.backend,
        "queue": found.target.queue or ref.queue,
        "share": found.share,
        "blocked": None if found.blocked is None else str(found.blocked),
        "used": [str(use) for use in found.uses],
    }


@_command
def migrate(args: Namespace) -> int:
    """``airflow dispatch migrate``"""
    return migrating.run(args)
