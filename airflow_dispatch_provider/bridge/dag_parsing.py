# SPDX-License-Identifier: Apache-2.0
"""Parsing a Dag file ahead of its tasks, for processes that are forked afterwards."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from airflow_dispatch_provider.bridge.import_watch import Watch, signature, watch
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS

_LONGEST_REASON = 500
"""Characters: it is logged, and has to fit into a socket whose reader may be late."""


class NotShareableError(Exception):
    """The tasks of this file need a parse of their own; the text says why, and continues "because ..."."""


def dag_file(workload: Any) -> tuple[str, str] | None:
    """The file that a task's process parses: its bundle with the version, as JSON, and the path below that; None
    for callbacks and connection tests."""
    if getattr(workload, "ti", None) is None:
        return None
    return workload.bundle_info.model_dump_json(), os.fspath(workload.dag_rel_path)


def dag_file_of(message: str) -> tuple[str, str] | None:
    """The same of a workload as a worker is sent it, in JSON; None, too, for what is no workload."""
    try:
        workload = json.loads(message)
        if workload.get("ti") is None:
            return None
        return json.dumps(workload["bundle_info"]), str(workload["dag_rel_path"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


@dataclass
class ParsedAhead:
    """A Dag file that this process has parsed. Tasks whose processes are forked from it find its Dags."""

    bag: Any
    arguments: dict[str, Any]
    read: dict[str, Any]
    """Every file that the parse depended on, with what it was before it was read."""

    make_bag: Callable[..., Any]
    modules: dict[str, ModuleType]
    """Those that the parse has loaded, by name."""

    environment: dict[str, str | None] = field(default_factory=dict)
    """The variables that it has changed; None: removed."""

    path: list[str] = field(default_factory=list)
    """``sys.path`` afterwards."""

    exits: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def outdated(self) -> bool:
        """Whether a file has changed since."""
        return signature(self.read) != self.read

    def lend(self, **arguments: Any) -> Any:
        """In place of ``BundleDagBag``, in a task's process: the Dags, and what else the parse has done to its process.

        A bundle may have fetched new files by then: they are parsed.
        """
        if arguments != self.arguments or self.outdated():
            self._forget_modules(str(self.arguments["bundle_path"]))
            return self.make_bag(**arguments)
        for name, value in self.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        sys.path[:] = self.path
        for function, args, kwargs in self.exits:
            atexit.register(function, *args, **kwargs)
        if numpy := sys.modules.get("numpy.random"):  # random itself does this at every fork
            numpy.seed()
        return self.bag

    def _forget_modules(self, folder: str) -> None:
        for name, module in self.modules.items():
            if str(getattr(module, "__file__", None) or "").startswith(folder + os.sep):
                sys.modules.pop(name, None)


def parse_ahead(bundle: str, path: str) -> ParsedAhead:
    """
    Parse a Dag file as a task's process would, by the Task SDK's own function, and lend its Dags to processes that are
    forked from this one. To be called once in a process, which afterwards does nothing but fork.

    :param bundle: as of ``dag_file``

    :raises NotShareableError: they would not be what a parse in the task's process gives
    """
    from airflow.sdk.execution_time import supervisor, task_runner
    from structlog import get_logger

    runner, module = vars(task_runner), _dag_bag_module()
    vars(supervisor)["block_orm_access"]()
    with suppress(Exception):
        runner[
            "get_listener_manager"
        ]()  # with all plugins, as before a task's parse; it logs what is wrong with them
    parse = _Parse(module.BundleDagBag)
    module.BundleDagBag = parse.make_bag
    try:
        runner["parse"](_startup(bundle, path), get_logger("task"))
    except _ParsedError:
        pass
    except NotShareableError:
        raise
    except (Exception, SystemExit) as error:
        raise NotShareableError(
            f"its bundle cannot be used ahead: {type(error).__name__}: {error}"
        ) from error
    parsed = parse.result()
    module.BundleDagBag = parsed.lend
    return parsed


def _dag_bag_module() -> Any:
    """Where ``task_runner.parse`` imports ``BundleDagBag`` from."""
    if AIRFLOW_V_3_2_PLUS:
        from airflow.dag_processing import dagbag

        return dagbag
    from airflow.models import dagbag as former

    return former


def _startup(bundle: str, path: str) -> Any:
    """As much of a task's startup details as is read before its Dags are there."""
    from airflow.executors.workloads import BundleInfo

    info: Any = BundleInfo
    return SimpleNamespace(
        ti=SimpleNamespace(dag_id="", task_id=""),
        bundle_info=info.model_validate_json(bundle),
        dag_rel_path=path,
        ti_context=None,
    )


class _ParsedError(BaseException):
    """Leads out of ``task_runner.parse`` once the file is parsed."""


class _Parse:
    """Stands in place of ``BundleDagBag`` for one call of ``task_runner.parse``."""

    def __init__(self, bag: Callable[..., Any]) -> None:
        self._bag = bag
        self._parsed: ParsedAhead | None = None

    def result(self) -> ParsedAhead:
        if self._parsed is None:
            raise NotShareableError("the Task SDK does not parse it")
        return self._parsed

    def make_bag(self, **arguments: Any) -> Any:
        environment, path = dict(os.environ), list(sys.path)
        with watch() as watched, _without_supervisor(watched):
            watched.note(str(arguments["dag_folder"]))
            bag = self._bag(**arguments)
        errors = [f"it cannot be imported: {_last_line(error)}" for error in bag.import_errors.values()]
        if reasons := [*watched.reasons, *errors] or ([] if bag.dags else ["there is no Dag in it"]):
            raise NotShareableError(reasons[0])
        self._parsed = ParsedAhead(
            bag,
            arguments,
            watched.read,
            self._bag,
            watched.modules,
            _changes(environment, dict(os.environ)),
            list(sys.path),
            watched.exits,
        )
        # The supervisor's process has its own.
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        raise _ParsedError


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:_LONGEST_REASON]


def _changes(before: dict[str, str], after: dict[str, str]) -> dict[str, str | None]:
    names = before.keys() | after.keys()
    return {name: after.get(name) for name in names if after.get(name) != before.get(name)}


@contextmanager
def _without_supervisor(watched: Watch) -> Iterator[None]:
    """There is no task yet: what belongs to one, and secrets, which may be others when it runs, cannot be had."""
    from airflow.sdk.definitions import context
    from airflow.sdk.execution_time import supervisor, task_runner

    places: list[tuple[Any, str, Any]] = [
        (task_runner, "SUPERVISOR_COMMS", _Refusal(watched, "it asks the Execution API")),
        (
            supervisor,
            "ensure_secrets_backend_loaded",
            _Refusal(watched, "it reads a Variable or a Connection"),
        ),
        (context, "AirflowParsingContext", _Refusal(watched, "it asks which task it is parsed for")),
    ]
    absent = object()
    before = [(module, name, vars(module).get(name, absent)) for module, name, _ in places]
    for module, name, refusal in places:
        setattr(module, name, refusal)
    try:
        yield
    finally:
        for module, name, value in before:
            if value is absent:
                delattr(module, name)
            else:
                setattr(module, name, value)


class _Refusal:
    """Stands where there is nothing; whoever calls it, or anything of it, is told so."""

    def __init__(self, watched: Watch, reason: str) -> None:
        self._watched, self._reason = watched, reason

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._watched.refuse(self._reason)
        raise RuntimeError("The Dag file is parsed ahead of its tasks.")

    send = asend = __call__
