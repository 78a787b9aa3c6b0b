# SPDX-License-Identifier: Apache-2.0
"""The executor that gives every task to one of several executors, chosen by the task's queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge import event_log
from airflow_dispatch_provider.bridge.backend_conf import settings_source, unread_options
from airflow_dispatch_provider.bridge.guard import guarded
from airflow_dispatch_provider.bridge.patience import limits
from airflow_dispatch_provider.bridge.users_code import error_of
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_4_PLUS,
    warn_if_untested,
)
from airflow_dispatch_provider.dispatch import adoption
from airflow_dispatch_provider.dispatch.backend import Backend, classes_of, is_local, kinds_of
from airflow_dispatch_provider.dispatch.backends import Backends
from airflow_dispatch_provider.dispatch.log_backends import LogBackends
from airflow_dispatch_provider.dispatch.loop import ClerkLike, Loop
from airflow_dispatch_provider.dispatch.preparing import Prepared, Preparing
from airflow_dispatch_provider.dispatch.routing_file import RoutingFile
from airflow_dispatch_provider.dispatch.rules import machine_settings, route_table
from airflow_dispatch_provider.engines.engine import Engine
from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.executors.class_attributes import (
    FromBackends,
    any_backend,
    configured_classes,
    workload_types,
)
from airflow_dispatch_provider.executors.face import Face, monotonic
from airflow_dispatch_provider.executors.surface import RouterSurface
from airflow_dispatch_provider.lifecycle import events
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.masking import describe
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, TaskRef
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.presets import Hybrid

log = logging.getLogger(__name__)

_LAST_STOPS = 5.0
"""Seconds, at the end of the scheduler, for each engine that is being stopped by then."""

STARTED: WeakValueDictionary[str | None, DispatchExecutor] = WeakValueDictionary()
"""The routers that run in this process, by team: ``by_name`` hands over to them."""


class DispatchExecutor(Face):
    """Routes every workload to a backend, as ``[dispatch]`` says.

    Airflow makes it in every API server and for every command, so the constructor reads nothing; the
    settings are read, and the backends made, in ``start``, or one backend when its logs are asked for.
    """

    hybrid: ClassVar[Hybrid | None] = None
    """Settings that a subclass brings along where ``[dispatch]`` says nothing."""

    _told: set[str] | None = None
    """The backends in use of which the machine knows; None: it has to be told."""

    live_classes: Sequence[type[Any]] | None = None
    """The executor classes of the backends that there are; None before the start."""

    cannot_run = "No backend under [dispatch] can run {kind} workloads."
    is_local: Any = any_backend("is_local")
    serve_logs: Any = any_backend("serve_logs")
    supports_ad_hoc_ti_run: Any = any_backend("supports_ad_hoc_ti_run")
    if not AIRFLOW_V_3_2_PLUS:
        supports_sentry: Any = any_backend("supports_sentry")
    pre_assigns_external_executor_id: Any = any_backend("pre_assigns_external_executor_id")  # type: ignore[misc]
    if AIRFLOW_V_3_4_PLUS:
        supported_workload_types: Any = FromBackends(workload_types)
    else:
        supports_callbacks: Any = any_backend("supports_callbacks")
        supports_connection_test: Any = any_backend("supports_connection_test")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source = settings_source(self.conf, self.hybrid)
        self._routing_file = RoutingFile(self._source, self._note_file)
        self._log_backends = LogBackends(self._source, self.conf, self.team_name)
        self._backends = Backends(self._make_engine)
        self._preparing = Preparing(self.conf, self.team_name, lambda: self._source.place, self._of_names)

    # Life cycle

    def start(self) -> None:
        """Read the settings and start the backends; a backend that fails is tried again later.

        :raises DispatchConfigError: naming every mistake in the configuration; the scheduler does not start
        """
        warn_if_untested()
        prepared: list[Prepared] = []

        def check(settings: Settings) -> Sequence[Problem]:
            prepared[:] = [self._preparing.now(settings, {})]
            return prepared[0].problems

        self._settings = settings = self._routing_file.start(monotonic(), check)
        self._limits = limits(settings.limits.max_held)
        clerk = self._make_clerk(self._limits)
        loop = self._make_loop(prepared[0], clerk)
        self._note_classes()
        self._told = self._backends.in_use
        self._run(loop, clerk)
        self._say_what_runs()
        self._warn()
        STARTED[self.team_name] = self

    def _make_loop(self, prepared: Prepared, clerk: ClerkLike) -> Loop:
        engines = self._backends.make(prepared)
        machine = Machine(self._machine_settings(), self._seed)
        surface = RouterSurface(self, self._backends)
        return Loop(machine, engines, clerk, surface, monotonic)

    def _make_engine(self, backend: Backend, prepared: Prepared) -> Engine:
        def check() -> Sequence[Problem]:
            return prepared.wrong_values(backend) or backend.conf_problems()

        return backend.engine(prepared.settings.limits, self._prepare, check, monotonic)

    def _of_names(self, settings: Settings) -> Sequence[Problem]:
        """Mistakes of executors that are names of this router."""
        from airflow_dispatch_provider.executors.by_name import entry_problems

        return list(entry_problems(self.team_name, settings))

    def _machine_settings(self) -> events.Settings:
        """Backends that are drained, or cannot be started yet, are none of the machine's."""
        return machine_settings(self._settings, self._limits, self._backends.in_use)

    def _prepare(self, executor: BaseExecutor) -> None:
        """Give a backend's executor what the scheduler gave to this one."""
        executor.job_id = self.job_id
        executor.callback_sink = self.callback_sink
        executor._task_event_logs = self._task_event_logs

    def _say_what_runs(self) -> None:
        backends = ", ".join(
            f"{name} ({each.executor}, slots {each.slots})" for name, each in self._settings.backends.items()
        )
        routes, place = len(self._settings.routes), self._routing_file.path or "[dispatch]"
        log.info("Tasks go to %s. There are %d routes and a default, as %s says.", backends, routes, place)

    def _warn(self) -> None:
        """Say at the start what would be hard to find out at 3 a.m."""
        self._warn_of_slots()
        for problem in unread_options(self._settings):
            log.warning("%s", problem)
        if AIRFLOW_V_3_2_PLUS and EXECUTE_CALLBACK not in self._kinds:
            log.warning("No backend can run callbacks (%s): each will fail.", EXECUTE_CALLBACK)

    def _warn_of_slots(self) -> None:
        slots, parallelism = self._settings.slots_given, conf.getint("core", "parallelism")
        if slots > parallelism:
            message = "The backends have %d slots, but [core] parallelism lets only %d tasks run. Raise it."
            log.warning(message, slots, parallelism)

    def _note_file(self, event: str, detail: str) -> None:
        row = event_log.file_row(event, str(self._routing_file.path), detail, self.team_name)
        self._event_logs.append(row)

    def _before_heartbeat(self, loop: Loop, now: float) -> None:
        self._reload(loop, now)
        self._turn_over(loop, now)
        late = [each for each in self._backends.values() if each.take_late()]
        if late or self._backends.in_use != self._told:
            self._told = None
            self._tell_settings(loop, now)

    @guarded(None)
    def _reload(self, loop: Loop, now: float) -> None:
        """The file is read here, and its backends are prepared on a thread, where there are new ones."""
        if not self._preparing.is_busy:
            settings = self._routing_file.changed(now)
            if settings is not None:
                self._preparing.begin(settings, self._backends.there_for(settings), now)
        result = self._preparing.result(now)
        if isinstance(result, Prepared) and not result.problems:
            self._use(loop, result, now)
        elif result is not None:
            problems = result.problems if isinstance(result, Prepared) else result
            self._routing_file.refuse(problems, now)

    def _use(self, loop: Loop, prepared: Prepared, now: float) -> None:
        slots = self._settings.slots_given
        self._routing_file.accept(prepared.settings)
        self._settings, self._told = prepared.settings, None
        self._backends.use(prepared, loop)
        self._tell_settings(loop, now)
        if self._settings.slots_given > slots:
            self._warn_of_slots()

    @guarded(None)
    def _turn_over(self, loop: Loop, now: float) -> None:
        """Stop the backends that are drained, and start those that wait for that; not while others are prepared, which
        may be the same."""
        if not self._preparing.is_busy:
            if self._backends.stop_what_is_empty(loop, now):
                self._told = None
            self._backends.start_what_can(loop, now)

    def _note_classes(self) -> None:
        self._kinds = kinds_of(self._backends.values())
        self.live_classes = classes_of(self._backends.values())

    def _tell_settings(self, loop: Loop, now: float) -> None:
        self._note_classes()
        orders = self._desk.again() if self._desk is not None else ()
        loop.tell(now, self._machine_settings(), *orders)
        self._told = self._backends.in_use

    @guarded(None)
    def end(self) -> None:
        """End the engines: the remote ones first, then the local ones, which wait for their tasks."""
        super().end()
        self._backends.wait(_LAST_STOPS)

    # For operators

    def _executors(self) -> Mapping[str, str]:
        """Called on another thread, while backends come and go."""
        known = {name: self._backends.get(name) for name in list(self._backends)}
        return {name: backend.settings.executor for name, backend in known.items() if backend is not None}

    def _file(self) -> tuple[str | None, str | None]:
        return self._routing_file.path, self._routing_file.refusal

    # Adoption

    def _owners(self, tis: Sequence[Any]) -> Mapping[Any, str]:
        return event_log.owners_of(tis)

    def _candidates(self) -> Callable[[TaskRef], Iterable[str]]:
        local = {name: is_local(backend) for name, backend in self._backends.items()}
        return partial(adoption.candidates, route_table(self._settings), local)

    # Logs and inspection

    def get_task_log(self, ti: Any, try_number: int) -> tuple[Any, Any]:
        """Logs of a running task from the backend that has it; called in the API server, without ``start``."""
        backend = self._log_backends.of(ti, self._started_backends())
        if backend is None:
            return [], []
        try:
            executor = backend.executor
        except Exception as error:
            # Not made in this process, which may lack its provider: the log of the task is shown all the same.
            return [f"Backend {backend.name!r} cannot be asked for a log here: {describe(error)}"], []
        try:
            return executor.get_task_log(ti, try_number)
        except Exception as error:
            return [f"Backend {backend.name!r} cannot give the log: {describe(error)}"], []

    def _started_backends(self) -> Mapping[str, Backend] | None:
        return self._backends if self._loop is not None else None

    def get_streaming_task_log(self, ti: Any, try_number: int) -> Any:
        """The same from Airflow 3.4 on, which falls back to ``get_task_log`` on NotImplementedError."""
        backend = self._log_backends.of(ti, self._started_backends())
        if backend is None:
            raise NotImplementedError
        try:
            executor: Any = backend.executor
        except Exception:
            raise NotImplementedError from None
        return executor.get_streaming_task_log(ti, try_number)

    def debug_dump(self) -> None:
        """Called in a signal handler, so it takes no lock."""
        super().debug_dump()
        for backend in self._backends.values():
            log.info("%r", backend)
            executor: Any = backend.made
            if executor is not None and not backend.has_engine:
                error = error_of(executor.debug_dump)
                if error is not None:
                    log.info("Backend %r cannot be dumped: %s", backend.name, describe(error))

    @classmethod
    def get_cli_commands(cls) -> list[Any]:
        """Up to Airflow 3.1 the only way for a provider to add commands: ours, and those of the backends."""
        if AIRFLOW_V_3_2_PLUS:
            return []
        from airflow_dispatch_provider.cli.definition import get_dispatch_cli_commands

        commands = {command.name: command for command in get_dispatch_cli_commands()}
        for backend in configured_classes(cls.hybrid):
            for command in backend.get_cli_commands():
                commands.setdefault(command.name, command)
        return list(commands.values())
