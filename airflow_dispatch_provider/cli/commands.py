# SPDX-License-Identifier: Apache-2.0
"""The commands of ``airflow dispatch ...``. Loaded when one of the commands is called."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import wraps
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf as airflow_conf
from airflow.exceptions import AirflowConfigException
from airflow.executors.base_executor import ExecutorConf
from airflow.utils.providers_configuration_loader import providers_configuration_loaded
from sqlalchemy.exc import SQLAlchemyError

from airflow_dispatch_provider.bridge.backend_conf import settings_source, several_teams
from airflow_dispatch_provider.bridge.users_code import import_users_object, imported_once
from airflow_dispatch_provider.cli import migrate as migrating
from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.inspection import by_precedence, inspect_backends
from airflow_dispatch_provider.cli.surroundings import executor_problem, is_missing, no_router, text_of
from airflow_dispatch_provider.exceptions import DispatchConfigError, DispatchError
from airflow_dispatch_provider.masking import describe
from airflow_dispatch_provider.operate.inspection import ConfiguredBackend
from airflow_dispatch_provider.routing.model import (
    DEFAULT_ROUTE,
    EXECUTE_CALLBACK,
    EXECUTE_TASK,
    TEST_CONNECTION,
    Route,
)
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES, Settings
from airflow_dispatch_provider.settings.source import SettingsSource

if TYPE_CHECKING:
    from airflow_dispatch_provider.cli.validation import Answer, Comparison

EXIT_WRONG_CONFIG = 1
EXIT_WRONG_USAGE = 2

Command = Callable[[Namespace], int]


def command(function: Command) -> Callable[[Namespace], None]:
    """Make a function an Airflow command: our options known to Airflow's configuration, and an exit code and a message
    instead of a traceback where the configuration is wrong."""

    @providers_configuration_loaded
    @wraps(function)
    def run(args: Namespace) -> None:
        try:
            with output.written(), imported_once():
                code = function(args)
        except SQLAlchemyError as error:
            code = EXIT_WRONG_CONFIG
            output.show_error(DispatchError(database_words(error)))
        except (DispatchError, AirflowConfigException) as error:
            code = EXIT_WRONG_USAGE if isinstance(error, UsageError) else EXIT_WRONG_CONFIG
            output.show_error(error)
            if code == EXIT_WRONG_USAGE:
                print(f"See airflow dispatch {function.__name__} --help.", file=sys.stderr)
        if code:
            sys.exit(code)

    return run


def database_words(error: SQLAlchemyError) -> str:
    """A sentence that says why nothing is known."""
    return f"The database cannot be asked: {describe(error)}"


_EVERYWHERE = "It has to reach every scheduler, and every API server, which reads the logs of running tasks."
_NO_ROUTER = "[dispatch] names no backends, and [core] executor no router"


class UsageError(DispatchError):
    """The arguments ask for what is not there."""


def _conf(args: Namespace) -> Any:
    """Airflow's configuration, or the view that a team has of it."""
    from airflow_dispatch_provider.executors.entries import entries

    team = getattr(args, "team", None)
    if not team:
        return airflow_conf
    if not several_teams():
        raise UsageError("--team needs [core] multi_team = True.")
    teams = dict.fromkeys(entry.team for entry in entries(text_of("core", "executor")) if entry.team)
    if team not in teams:
        known = f"Known: {', '.join(map(repr, teams))}." if teams else "It lists none of a team."
        raise UsageError(f"--team: [core] executor lists no executor of the team {team!r}. {known}")
    return ExecutorConf(team)


@output.only_answers()
def _source(args: Namespace) -> SettingsSource:
    # Not before the command runs: with executors come Airflow's models and alembic, which logs as it is imported.
    from airflow_dispatch_provider.executors.configured import router_classes
    from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
    from airflow_dispatch_provider.executors.entries import router_meant

    conf, team = _conf(args), getattr(args, "team", None)
    router = router_classes().get(team)
    if router is None:
        meant = router_meant(text_of("core", "executor"), team)
        router = import_users_object(meant) if meant else DispatchExecutor
    return settings_source(conf, router.hybrid)


@output.only_answers()
def settings_of(args: Namespace) -> Settings:
    """
    :raises DispatchConfigError: naming every mistake
    :raises UsageError: no router is in use
    """
    try:
        return _source(args).load()
    except DispatchConfigError as error:
        if all(map(is_missing, error.problems)) and no_router():
            raise UsageError(_why_no_router()) from None
        raise


def _why_no_router() -> str:
    """Airflow knows a router by its import path alone: its name is what people write first."""
    wrong = executor_problem()
    if wrong is None:
        return f"No router is in use: {_NO_ROUTER}."
    return (
        f"No router is in use: [dispatch] names no backends, and {wrong.where} {wrong.found} {wrong.remedy}"
    )


@command
def validate(args: Namespace) -> int:
    """``airflow dispatch validate``"""
    from airflow_dispatch_provider.cli import validation

    answer = validation.validate(_source(args), _conf(args), getattr(args, "team", None), args.file)
    findings = [asdict(finding) for finding in answer.findings]
    if args.file:
        _show_new_file(args, answer, _compared(args, answer), {})
    elif findings or args.output in output.STRUCTURED:
        output.show_findings(findings, args.output)
    if not args.file and not answer.mistakes and _says_all_right(args, findings):
        print(output.wrapped(_all_right(answer.settings, None, bool(findings))))
    return EXIT_WRONG_CONFIG if answer.mistakes or (findings and args.strict) else 0


def _says_all_right(args: Namespace, findings: Sequence[Any]) -> bool:
    return args.output == "table" or (args.output == "plain" and not findings)


def _compared(args: Namespace, answer: Answer) -> Comparison | None:
    """None where there are mistakes: a scheduler may refuse the file or end, whatever has changed."""
    from airflow_dispatch_provider.cli import validation

    if answer.settings is None or answer.mistakes:
        return None
    return validation.compare(_source(args), answer.settings, _conf(args))


def _show_new_file(
    args: Namespace, answer: Answer, comparison: Comparison | None, more: Mapping[str, Any]
) -> None:
    """Print the findings in a file that is not in use yet, and the changes that it would make.

    :param more: keys for programs
    """
    findings = [asdict(finding) for finding in answer.findings]
    if args.output in output.STRUCTURED:
        data = comparison.data if comparison else {"changes": None, "restart_for": []}
        output.show_object({"findings": findings, **data, **more}, args.output)
        return
    if findings:
        output.show_findings(findings, args.output)
    if not answer.mistakes and _says_all_right(args, findings):
        print(output.wrapped(_all_right(answer.settings, args.file, bool(findings))))
    if comparison:
        print()
        for change in comparison.changes or ():
            print(output.wrapped(str(change), "", " " * 4))
        print(output.wrapped(comparison.verdict))


@command
def apply(args: Namespace) -> int:
    """``airflow dispatch apply``"""
    from airflow_dispatch_provider.cli import applying, validation

    config_file = output.only_answers()(applying.config_file_of)(_source(args))
    if config_file is None:
        raise UsageError("[dispatch] config_file is not set: there is no file to replace.")
    applying.check_names(args.file, config_file)
    content = applying.content_of(args.file)
    answer = validation.validate(_source(args), _conf(args), getattr(args, "team", None), args.file)
    comparison, is_applied = _compared(args, answer), not (answer.mistakes or args.dry_run)
    trouble = applying.replaced(args.file, content, config_file) if is_applied else None
    is_applied = is_applied and trouble is None
    _show_new_file(args, answer, comparison, {"config_file": config_file, "applied": is_applied})
    if trouble is not None:
        raise trouble
    if is_applied and args.output not in output.STRUCTURED:
        print(output.wrapped(f"{config_file} on this machine is {args.file} now. {_EVERYWHERE}"))
    return EXIT_WRONG_CONFIG if answer.mistakes else 0


def _all_right(settings: Settings | None, file: str | None, is_doubted: bool) -> str:
    """The last sentence where there are no mistakes."""
    if settings is None:
        return f"No router is in use: {_NO_ROUTER}. There is nothing more to check."
    subject = file or "The [dispatch] configuration"
    return f"{subject} is {'otherwise ' if is_doubted else ''}right: {_size(settings)}."


def _size(settings: Settings) -> str:
    counts = {"backend": len(settings.backends), "route": len(settings.routes)}
    words = [f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items()]
    return f"{', '.join(words)} and a default"


@command
def backends(args: Namespace) -> int:
    """``airflow dispatch backends``"""
    statuses = inspect_backends(settings_of(args))
    if args.output == "table":
        output.show_rows([_backend_words(status) for status in statuses], args.output)
        show_missing(statuses)
    else:
        output.show_rows([_backend_row(status) for status in statuses], args.output)
    return judged(statuses)


def show_missing(statuses: Sequence[ConfiguredBackend]) -> None:
    """Say which executors cannot be imported, and what to do about it."""
    for status in statuses:
        if status.missing is not None:
            print(output.wrapped(f"{status.name}: {status.missing} {status.remedy}", "", "  "))


def judged(statuses: Sequence[ConfiguredBackend]) -> int:
    """The exit code."""
    return 0 if all(status.missing is None for status in statuses) else EXIT_WRONG_CONFIG


def _backend_row(status: ConfiguredBackend) -> dict[str, Any]:
    return {
        "name": status.name,
        "executor": status.settings.class_path,
        "slots": status.settings.slots,
        "cordoned": status.settings.cordoned,
        "workload_types": sorted(status.kinds),
        "options": list(status.options),
        "importable": status.missing is None,
        "problem": status.missing,
    }


_SHORT = {path: name for name, path in EXECUTOR_ALIASES.items()}
"""A class of the same name may be Airflow's."""


def _backend_words(status: ConfiguredBackend) -> dict[str, Any]:
    """Columns that fit a terminal."""
    words = {EXECUTE_TASK: "tasks", EXECUTE_CALLBACK: "callbacks", TEST_CONNECTION: "connection tests"}
    return {
        "name": status.name,
        "executor": _SHORT.get(status.settings.class_path, status.settings.class_path),
        "slots": [status.settings.slots, *(["cordoned"] if status.settings.cordoned else [])],
        "runs": [words[kind] for kind in words if kind in status.kinds],
        "options": list(status.options),
    }


@command
def routes(args: Namespace) -> int:
    """``airflow dispatch routes``"""
    settings = settings_of(args)
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


@command
def migrate(args: Namespace) -> int:
    """``airflow dispatch migrate``"""
    return migrating.run(args)
