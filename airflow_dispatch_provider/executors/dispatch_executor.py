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
from airflow_dispatch_provider.bridge.backend_conf import RunOnce, settings_source, unread_options
from airflow_dispatch_provider.bridge.guard import guarded
from airflow_dispatch_provider.bridge.patience import limits
from airflow_dispatch_provider.bridge.users_code import error_of
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_4_PLUS,
    warn_if_untested,
)
from airflow_dispatch_provider.dispatch import adoption
from airflow_dispatch_provider.dispatch.backend import Backend, clashes, in_start_order, is_local, kinds_of
from airflow_dispatch_provider.dispatch.log_backends import LogBackends
from airflow_dispatch_provider.dispatch.loop import ClerkLike, Loop
from airflow_dispatch_provider.dispatch.option_check import OptionCheck
from airflow_dispatch_provider.dispatch.routing_file import RoutingFile
from airflow_dispatch_provider.dispatch.rules import machine_settings, route_table
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.executors.class_attributes import (
    FromBackends,
    any_backend,
    configured_classes,
    workload_types,
)
from airflow_dispatch_provider.executors.face import Face, monotonic
from airflow_dispatch_provider.executors.surface import RouterSurface
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.masking import describe
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, TaskRef
from airflow_dispatch_provider.settings.presets import Hybrid

log = logging.getLogger(__name__)


STARTED: WeakValueDictionary[str | None, DispatchExecutor] = WeakValueDictionary()
"""The routers that run in this process, by team: ``by_name`` hands over to them."""


class DispatchExecutor(Face):
    """Routes every workload to a backend, as ``[dispatch]`` says.

    Airflow makes it in every API server and for every command, so the constructor reads nothing; the
    settings are read, and the backends made, in ``start``, or one backend when its logs are asked for.
    """

    hybrid: ClassVar[Hybrid | None] = None
    """Settings that a subclass brings along where ``[dispatch]`` says nothing."""

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
        self._routing_file = RoutingFile(self._source)
        self._log_backends = LogBackends(self._source, self.conf, self.team_name)
        self._backends: dict[str, Backend] = {}

    # Life cycle

    def start(self) -> None:
        """Read the settings and start the backends; a backend that fails is tried again later.

        :raises DispatchConfigError: naming every mistake in the configuration; the scheduler does not start
        """
        warn_if_untested()
        settings = self._routing_file.start(monotonic())
        own_conf = RunOnce(self.conf)
        backends = {
            name: Backend(name, backend, own_conf, self.team_name)
            for name, backend in settings.backends.items()
        }
        self._options = OptionCheck(settings, self._source.place)
        if problems := [*self._options.mistakes(), *clashes(backends.values(), self._source.place)]:
            raise DispatchConfigError(problems)
        self._settings, self._backends = settings, backends
        self._kinds = kinds_of(backends.values())
        self._limits = limits(settings.limits.max_held)
        clerk = self._make_clerk(self._limits)
        self._run(self._make_loop(clerk), clerk)
        self._warn()
        STARTED[self.team_name] = self

    def _make_loop(self, clerk: ClerkLike) -> Loop:
        retry = self._settings.limits
        engines = {
            backend.name: backend.engine(retry, self._prepare, partial(self._check, backend), monotonic)
            for backend in in_start_order(self._backends.values())
        }
        machine = Machine(machine_settings(self._settings, self._limits), self._seed)
        surface = RouterSurface(self, self._backends)
        return Loop(machine, engines, clerk, surface, monotonic)

    def _check(self, backend: Backend) -> Sequence[Problem]:
        return self._options.values(backend.name, backend.conf) or backend.conf_problems()

    def _prepare(self, executor: BaseExecutor) -> None:
        """Give a backend's executor what the scheduler gave to this one."""
        executor.job_id = self.job_id
        executor.callback_sink = self.callback_sink
        executor._task_event_logs = self._task_event_logs

    def _warn(self) -> None:
        """Say at the start what would be hard to find out at 3 a.m."""
        slots = self._settings.slots_given
        parallelism = conf.getint("core", "parallelism")
        if slots > parallelism:
            message = "The backends have %d slots, but [core] parallelism lets only %d tasks run. Raise it."
            log.warning(message, slots, parallelism)
        for problem in unread_options(self._settings):
            log.warning("%s", problem)
        if AIRFLOW_V_3_2_PLUS and EXECUTE_CALLBACK not in self._kinds:
            log.warning("No backend can run callbacks (%s): each will fail.", EXECUTE_CALLBACK)

    def _before_heartbeat(self, loop: Loop, now: float) -> None:
        self._reload(loop, now)
        late = [name for name, backend in self._backends.items() if backend.take_late()]
        if late:
            self._kinds = kinds_of(self._backends.values())
            loop.tell(now, machine_settings(self._settings, self._limits))

    @guarded(None)
    def _reload(self, loop: Loop, now: float) -> None:
        settings = self._routing_file.changed(now)
        if settings is not None:
            self._settings = settings
            for name, backend in self._backends.items():
                backend.settings = settings.backends[name]
                loop.engines[name].slots = backend.settings.configured_slots
            loop.tell(now, machine_settings(settings, self._limits))

    # For operators

    def _executors(self) -> Mapping[str, str]:
        return {name: backend.settings.executor for name, backend in list(self._backends.items())}

    def _file(self) -> tuple[str | None, str | None]:
        path, refused = self._source.config_file, self._source.refused
        return str(path) if path else None, str(refused) if refused is not None else None

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

    def _started_backends(self) -> dict[str, Backend] | None:
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
