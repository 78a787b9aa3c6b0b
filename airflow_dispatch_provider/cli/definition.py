# SPDX-License-Identifier: Apache-2.0
"""Names, arguments and help of the commands. Every ``airflow`` command imports this, so what the commands do
stands elsewhere and is loaded when one of them is called."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from textwrap import fill
from typing import Any

from airflow.cli.cli_config import (
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    GroupCommand,
)

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.cli import argument_types

_EXIT_CODES = (
    "Exit codes: 0 all is well, 1 routes or backends have mistakes (only validate looks at the options of backends,"
    " too; explain imports the executors of the targets alone, and routes none), 2 wrong usage, or no router is in use."
)

_COLUMNS, _OPTION_COLUMNS = 80, 56
"""Widths of a terminal, and of what argparse leaves of it for the help of an option: Airflow's formatter does not wrap
texts."""


def _fill(text: str, columns: int) -> str:
    return fill(text, columns, break_on_hyphens=False)


def _arg(*flags: str, help_: str, **options: Any) -> Arg:
    return Arg(flags, help=_fill(help_, _OPTION_COLUMNS), **options)  # type: ignore[no-untyped-call]


_ARG_OUTPUT = _arg(
    "-o",
    "--output",
    help_="Output format: table, plain, json or yaml (default: table)",
    metavar="FORMAT",
    choices=("table", "plain", "json", "yaml"),
    default="table",
)
_ARG_FILE = _arg(
    "file",
    help_="A routing file that is not in use yet: checked in place of config_file, and compared with what is in use",
    metavar="FILE",
    nargs="?",
    type=argument_types.some,
)
_ARG_NEW_FILE = _arg(
    "file", help_="The routing file that is to be used", metavar="FILE", type=argument_types.some
)
_ARG_DRY_RUN = _arg("--dry-run", help_="Only say what would happen; change nothing", action="store_true")
_ARG_TEAM = _arg("--team", help_="Read the configuration of this team", type=argument_types.some)
_ARG_STRICT = _arg("--strict", help_="Exit with 1 if there are warnings, too", action="store_true")
_ARG_QUEUE = _arg("-q", "--queue", help_="The queue of the task", required=True, type=argument_types.some)
_ARG_DAG_ID = _arg("-d", "--dag-id", help_="The id of its Dag; routes may ask for it", default="")
_ARG_EXECUTOR = _arg(
    "-e", "--executor", help_="The name that the task gives in executor=", type=argument_types.some
)
_ARG_TASK_ID = _arg(
    "-t", "--task-id", help_="The id of the task; with Dag and run, picks among weighted targets"
)
_ARG_RUN_ID = _arg("-r", "--run-id", help_="The id of the Dag run; with Dag and task, picks likewise")
_ARG_MAP_INDEX = _arg(
    "--map-index",
    help_="The map index of a mapped task, with its Dag, task and run (default: not mapped)",
    type=argument_types.whole(-1),
)
_ARG_CONFIG = _arg(
    "--config",
    help_="An airflow.cfg of Airflow 2 or 3 to read instead of the one in use",
    metavar="FILE",
    type=argument_types.some,
)
_ARG_IGNORE_ENVIRONMENT = _arg(
    "--ignore-environment",
    help_="Leave out what AIRFLOW__SECTION__OPTION variables say; they count otherwise, with --config, too",
    action="store_true",
)
_ARG_CORE_EXECUTOR = _arg(
    "--executor", help_="Plan for this instead of the configured core executor", type=argument_types.some
)
_ARG_DAGS = _arg(
    "--dags",
    help_="Also look for queue= and executor= in the Python files of these folders, without importing them; without a"
    " folder, in the serialized Dags of the metadata database",
    metavar="FOLDER",
    nargs="*",
    type=argument_types.some,
)

_ARG_BACKEND = _arg("backend", help_="The name of the backend", metavar="BACKEND", type=argument_types.some)
_ARG_REASON = _arg(
    "--reason",
    help_="Why: for those who see it in status, and for the event log",
    default="",
    type=argument_types.valid_text,
)
_ARG_FOR = _arg(
    "--for",
    dest="seconds",
    help_="It runs out by itself after this time, such as 90s, 30m, 2h or 1d; a bare number is in seconds"
    " (default: never)",
    metavar="TIME",
    type=argument_types.seconds,
)
_ARG_WAIT = _arg(
    "--wait",
    help_="Return when nothing runs there any more, and what was recalled is set back",
    action="store_true",
)
_ARG_WAIT_BACK = _arg(
    "--wait",
    help_="Return when everything has come back that has not begun first, in every scheduler",
    action="store_true",
)
_ARG_TIMEOUT = _arg(
    "--timeout",
    help_="With --wait: give up after this time, such as 30m",
    metavar="TIME",
    type=argument_types.seconds,
)
_ARG_WATCH = _arg("--watch", help_="Show it anew every two seconds, until interrupted", action="store_true")
_ARG_OF_BACKEND = _arg(
    "-b", "--backend", help_="Only what has this backend as first target", type=argument_types.some
)
_ARG_WAIT_REASON = _arg(
    "--reason", help_="Only what waits for this, such as waits_full", type=argument_types.some
)
_ARG_OF_DAG = _arg("-d", "--dag-id", help_="List only tasks of this Dag", type=argument_types.some)
_ARG_LIMIT = _arg(
    "--limit", help_="How many tasks to list at most (default: 50)", type=argument_types.whole(1), default=50
)
_ARG_AT_BACKEND = _arg("-b", "--backend", help_="Only tasks that this backend has", type=argument_types.some)
_ARG_SINCE = _arg(
    "--since",
    dest="seconds",
    help_="How far to look back, such as 45m, 12h or 7d (default: 1d)",
    metavar="TIME",
    type=argument_types.seconds,
    default=86_400.0,
)
_ARG_NO_ORDER = _arg(
    "--dry-run", help_="Only say what would become of its tasks; order nothing", action="store_true"
)
_ARG_NO_RECALL = _arg(
    "--dry-run", help_="Only say how many would come back; order nothing", action="store_true"
)
_ARG_STORY_DAG = _arg("dag_id", help_="The id of the Dag", metavar="DAG", type=argument_types.some)
_ARG_STORY_RUN = _arg("run_id", help_="The id of the Dag run", metavar="RUN", type=argument_types.some)
_ARG_STORY_TASK = _arg("task_id", help_="The id of the task", metavar="TASK", type=argument_types.some)
_ARG_STORY_INDEX = _arg(
    "--map-index",
    help_="The map index of a mapped task (default: not mapped)",
    type=argument_types.whole(-1),
    default=-1,
)
_ARG_TRY = _arg(
    "--try",
    dest="try_number",
    help_="Which try (default: the last one)",
    metavar="NUMBER",
    type=argument_types.whole(0),
)

_TEAM: tuple[Arg, ...] = (_ARG_TEAM,) if AIRFLOW_V_3_2_PLUS else ()


def _load_when_called(name: str, module: str) -> Callable[[Namespace], None]:
    """The function of that name in a module of ``cli``, with logs kept off stdout from its import on: Airflow 3.2 logs
    there, and modules that a command imports may log, which would stand before the JSON."""

    def load_and_run(args: Namespace) -> None:
        getattr(import_module(f"airflow_dispatch_provider.cli.{module}"), name)(args)

    def run(args: Namespace) -> None:
        from airflow.utils.cli import suppress_logs_and_warning

        suppress_logs_and_warning(load_and_run)(args)

    run.__name__ = name
    return run


def _command(
    name: str,
    help_: str,
    description: str,
    *args: Arg,
    exit_codes: str = _EXIT_CODES,
    module: str = "commands",
) -> ActionCommand:
    return ActionCommand(
        name=name,
        help=help_,
        description=f"{_fill(description, _COLUMNS)}\n\n{_fill(exit_codes, _COLUMNS)}",
        func=_load_when_called(name, module),
        args=(*args, _ARG_OUTPUT, ARG_VERBOSE),
    )


_ORDER_CODES = (
    "Exit codes: 0 the order is in force, 1 the database has no tables for it, 2 wrong usage, or no scheduler has such"
    " a backend."
)

_DRAIN_CODES = (
    "Exit codes: 0 the order is in force, with --wait the backend is empty, 1 the database has no tables for it,"
    " --timeout is over, or --wait finds that the order is over, 2 wrong usage, or no scheduler has such a backend, 130"
    " the wait was interrupted: the order stays in force."
)

_OPERATING = (
    _command(
        "status",
        "Show how each backend is, in all schedulers",
        "Show each backend over all schedulers that live: its state and since when, slots used (and given ahead), how"
        " many of these tasks have not begun and since when, free slots, how many tasks are held for it, the longest"
        " wait, tasks given to it and ended there a minute, its trouble, the next try, the order about it and what is"
        " left to do of a recall; then each scheduler with its last heartbeat and its file. Schedulers"
        " write this every five seconds into the database.",
        _ARG_WATCH,
        *_TEAM,
        exit_codes="Exit codes: 0 all is well, 1 a backend fails, a file is refused, the execution API answers nobody,"
        " no scheduler lives, or nothing is known, 2 wrong usage.",
        module="operating",
    ),
    _command(
        "waiting",
        "Show what waits, and why",
        "Show what is held, by first target and reason, and the first tasks of each backend in the order in which they"
        " go: place, run, since when, why, how long that task usually waits, by the last 20 runs of its Dag, and about"
        " when each is expected to start, by the pace at which tasks ended at its backend in the last ten minutes,"
        " where that is one. Besides, how many more have been given to a backend and have not begun.",
        _ARG_OF_BACKEND,
        _ARG_WAIT_REASON,
        _ARG_OF_DAG,
        _ARG_LIMIT,
        *_TEAM,
        exit_codes="Exit codes: 0 it was shown, 1 nothing is known, 2 wrong usage.",
        module="operating",
    ),
    _command(
        "running",
        "Show who uses the slots",
        "Show the tasks that backends have, those that they have had for longest first: of each backend and scheduler"
        " the first 50. One that has not begun is a pod that is pending, say, or a message that no worker has taken; of"
        " one that is being taken over from a scheduler that has died, its backend has not said yet whether it has it.",
        _ARG_AT_BACKEND,
        _ARG_OF_DAG,
        _ARG_LIMIT,
        *_TEAM,
        exit_codes="Exit codes: 0 it was shown, 1 nothing is known, 2 wrong usage.",
        module="looking",
    ),
    _command(
        "changes",
        "Show what people have changed",
        "Show the orders that were given, which of them replaced another and when they have run out, and what each new"
        " version of the routing file has changed or why it was refused, the last ones first, at most 200: from"
        " Airflow's event log, in which every scheduler writes what it has read. What was changed while no scheduler"
        " ran is not in it.",
        _ARG_SINCE,
        *_TEAM,
        exit_codes="Exit codes: 0 it was shown, 1 the database cannot be asked, 2 wrong usage.",
        module="looking",
    ),
    _command(
        "story",
        "Tell what was decided about a task, in order",
        "Tell what happened to one try of a task and why, in order: when it was scheduled, where it was dispatched and"
        " for which reason, what it waited for, when it began and ended; and, while it waits, its place and what for.",
        _ARG_STORY_DAG,
        _ARG_STORY_RUN,
        _ARG_STORY_TASK,
        _ARG_STORY_INDEX,
        _ARG_TRY,
        exit_codes="Exit codes: 0 it was told, 1 the database cannot be asked, 2 wrong usage, or there is no such"
        " task.",
        module="telling",
    ),
    _command(
        "cordon",
        "Give a backend no new work",
        "Give a backend no new work, in every scheduler, within seconds. What it has been given goes on; waiting tasks"
        " take their next target, or wait. The order survives restarts, and is entered in Airflow's event log. A"
        " backend has one order at a time: a new one replaces it, its end too, and the answer names it.",
        _ARG_BACKEND,
        _ARG_REASON,
        _ARG_FOR,
        _ARG_NO_ORDER,
        *_TEAM,
        exit_codes=_ORDER_CODES,
        module="ordering",
    ),
    _command(
        "drain",
        "Give a backend no new work, and take back what it has not sent",
        "As cordon; besides, what the backend has been given and has not sent yet comes back. A backend has one order"
        " at a time: a new one replaces it, its end too. With --wait it returns when nothing runs there any more, and"
        " what was recalled from there is set back to scheduled.",
        _ARG_BACKEND,
        _ARG_REASON,
        _ARG_FOR,
        _ARG_NO_ORDER,
        _ARG_WAIT,
        _ARG_TIMEOUT,
        *_TEAM,
        exit_codes=_DRAIN_CODES,
        module="ordering",
    ),
    _command(
        "recall",
        "Take back what a backend has been given and has not begun",
        "Take back the tasks that a backend has been given and has not begun: pods that are pending, messages that no"
        " worker has taken. Each is set back to scheduled, in the same try, unless it begins first; what runs goes on."
        " Every scheduler that runs does it once, within seconds, or as soon as it can read the database again: status"
        " says which has not yet. Cordon or drain the backend before, lest it get them again. Not taken back are"
        " callbacks, connection tests, and tasks of a scheduler that has died which no other has taken over yet.",
        _ARG_BACKEND,
        _ARG_REASON,
        _ARG_NO_RECALL,
        _ARG_WAIT_BACK,
        _ARG_TIMEOUT,
        *_TEAM,
        exit_codes="Exit codes: 0 the order is given, with --wait done, 1 the database has no tables for it, --timeout"
        " is over, or --wait finds that a scheduler has died which may not have done it, 2 wrong usage, or no scheduler"
        " has such a backend, 130 the wait was interrupted.",
        module="ordering",
    ),
    _command(
        "resume",
        "Take back cordon or drain",
        "Take back the order about a backend, if there is one. One that is cordoned in the configuration stays so.",
        _ARG_BACKEND,
        _ARG_REASON,
        *_TEAM,
        exit_codes=_ORDER_CODES,
        module="ordering",
    ),
)

DISPATCH_COMMANDS = (
    *_OPERATING,
    _command(
        "validate",
        "Check the configuration and name its mistakes",
        "Check the dispatch section of the configuration, and the file that it may name. Reports every mistake that"
        " can be seen so far (one may hide others), each with its place, what was found there and what to do about"
        " it; whether the executor of each backend can be imported and finds its own options usable; and warnings"
        " about what is allowed but probably a mistake. With a FILE also what would change against the configuration"
        " in use, and whether a running scheduler would take it over. Needs no database, and asks no server. Your"
        " own code that it imports may take as long as dagbag_import_timeout in the core section allows, and a"
        " command that gives an option 10 s. With --output json it prints a list of findings (severity, where, found,"
        " remedy); with a FILE an object of findings, changes and restart_for.",
        _ARG_FILE,
        _ARG_STRICT,
        *_TEAM,
        exit_codes="Exit codes: 0 all is well (there may be warnings), 1 the configuration has mistakes (with --strict:"
        " or warnings), 2 wrong usage.",
    ),
    _command(
        "apply",
        "Check a routing file, and use it",
        "Check a routing file as validate does, say what a running scheduler will do (which backends it starts, drains"
        " or replaces when they are empty), and put the file in the place of config_file, in one step and with its mode"
        " and owner; with --dry-run everything but that. A file with a mistake is not used. The file has to reach every"
        " scheduler and API server; where that is done by other means, such as a ConfigMap, use --dry-run alone. Needs"
        " no database, and asks no server. With --output json it prints an object of findings, changes, restart_for,"
        " config_file and applied.",
        _ARG_NEW_FILE,
        _ARG_DRY_RUN,
        *_TEAM,
        exit_codes="Exit codes: 0 the file is in its place (with --dry-run: would be), 1 it has mistakes, or cannot be"
        " put there, 2 wrong usage, or config_file is not set.",
    ),
    _command(
        "backends",
        "List the backends",
        "List the configured backends: executor, slots, whether cordoned, workload types, the names (never"
        " the values) of the options overlaid, and why an executor cannot be imported, which is a mistake. This"
        " says nothing of the health of a backend in a running scheduler. Needs no database.",
        *_TEAM,
    ),
    _command(
        "routes",
        "List the routes in the order in which they win",
        "List the routes in the order in which they win: exact queue names before globs, of each kind"
        " those with a dag_id first, otherwise as written, the default last. Needs no database.",
        *_TEAM,
    ),
    _command(
        "explain",
        "Say where a task of a queue goes, and why",
        "Say which route a task of this queue takes and when each of its targets is used, in the words that"
        " the task's event log uses, and how each is now: state, slots, held tasks, trouble, and the order about it."
        " With --dag-id, --task-id and --run-id, also in which order this very task tries weighted targets. A target"
        " whose executor cannot be imported is unusable, which is a mistake. Without a database, or a scheduler that"
        " writes its status there, it answers by the configuration alone.",
        _ARG_QUEUE,
        _ARG_DAG_ID,
        _ARG_EXECUTOR,
        _ARG_TASK_ID,
        _ARG_RUN_ID,
        _ARG_MAP_INDEX,
        *_TEAM,
        module="explaining",
    ),
    _command(
        "migrate",
        "Write the configuration that does what the current one does",
        "Read a configuration without the router (that in use, or a file of Airflow 2 or 3; the environment counts on"
        " top) and print the lines for airflow.cfg that do the same, what changes in behaviour, what cannot be known,"
        " and which options about executors have another name. Changes nothing. Needs no database, unless --dags"
        " without a folder asks for it.",
        _ARG_CONFIG,
        _ARG_IGNORE_ENVIRONMENT,
        _ARG_CORE_EXECUTOR,
        _ARG_DAGS,
        exit_codes="Exit codes: 0 it was printed, 1 something that it was given cannot be read, or a Dag has a queue"
        " that is not known, such as a computed one, 2 wrong usage.",
    ),
)


def get_dispatch_cli_commands() -> list[GroupCommand]:
    """The group ``airflow dispatch``; named in the provider metadata (Airflow 3.2 and later)."""
    return [
        GroupCommand(
            name="dispatch",
            help="Backends and routes of the DispatchExecutor",
            description="Status of backends and waiting tasks, orders about backends, and the configuration of the"
            " DispatchExecutor.",
            subcommands=DISPATCH_COMMANDS,
        )
    ]
