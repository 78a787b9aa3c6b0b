# SPDX-License-Identifier: Apache-2.0
"""The executor that gives every task to one of several executors, chosen by the task's queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.backend_conf import RunOnce, settings_source, unread_options
from airflow_dispatch_provider.bridge.event_log import EventLogQueue
from airflow_dispatch_provider.bridge.guard import guarded
from airflow_dispatch_provider.bridge.patience import limits
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_4_PLUS,
    warn_if_untested,
)
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.dispatch import adoption
from airflow_dispatch_provider.dispatch.backend import Backend, clashes, in_start_order, is_local, kinds_of
from airflow_dispatch_provider.dispatch.clerk import AirflowDatabase, Clerk
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
from airflow_dispatch_provider.executors.surface import AnsweredFor, ExecutorSurface
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK
from airflow_dispatch_provider.settings.presets import Hybrid

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)


def _now() -> float:
    return time.monotonic()


STARTED: WeakValueDictionary[str | None, DispatchExecutor] = WeakValueDictionary()
"""The routers that run in this process, by team: ``by_name`` hands over to them."""


class DispatchExecutor(BaseExecutor):
    """Routes every workload to a backend, as ``[dispatch]`` says.

    Airflow makes it in every API server and for every command, so the constructor reads nothing; the
    settings are read, and the backends made, in ``start``, or one backend when its logs are asked for.
    """

    hybrid: ClassVar[Hybrid | None] = None
    """Settings that a subclass brings along where ``[dispatch]`` says nothing."""

    supports_multi_team = True
    supports_task_instance_uuid = AIRFLOW_V_3_4_PLUS
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

    _loop: Loop | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source = settings_source(self.conf, self.hybrid)
        self._task_event_logs = self._event_logs = EventLogQueue()
        self._routing_file = RoutingFile(self._source)
        self._log_backends = LogBackends(self._source, self.conf, self.team_name)
        self._backends: dict[str, Backend] = {}

    def __repr__(self) -> str:
        state = self._loop.machine.in_short() if self._loop is not None else "not started"
        return f"{type(self).__name__}({state})"

    # What the base class keeps, and the router keeps instead

    @property
    def running(self) -> Any:
        """Keys of all workloads that the router answers for, as a live view. Airflow 3.4 forgets the
        coordinates of a task whose key is not here, and adds each adopted one, which is here already."""
        return AnsweredFor(self._loop.machine if self._loop is not None else ())

    @running.setter
    def running(self, value: Any) -> None:
        """The base class's own set is not used."""

    def get_event_buffer(self, dag_ids: Any = None) -> Any:
        """Airflow 3.4 walks over all running tasks here, also where there is nothing to return."""
        return super().get_event_buffer(dag_ids) if self.event_buffer else {}

    if AIRFLOW_V_3_4_PLUS:

        def _drain_events_with_task_ids(self, dag_ids: Any = None) -> Any:
            base: Any = super()
            return base._drain_events_with_task_ids(dag_ids) if self.event_buffer else ({}, {})

    # Life cycle

    def start(self) -> None:
        """Read the settings and start the backends; a backend that fails is tried again later.

        :raises DispatchConfigError: naming every mistake in the configuration; the scheduler does not start
        """
        warn_if_untested()
        settings = self._routing_file.start(_now())
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
        self._loop = self._make_loop()
        self._loop.start(str(self.job_id), _now())
        self._warn(self._loop)
        STARTED[self.team_name] = self

    def _make_loop(self) -> Loop:
        retry = self._settings.limits
        engines = {
            backend.name: backend.engine(retry, self._prepare, partial(self._check, backend), _now)
            for backend in in_start_order(self._backends.values())
        }
        seed = f"{airflow_api.hostname()} {self.job_id}"
        machine = Machine(machine_settings(self._settings, self._limits), seed)
        return Loop(machine, engines, self._make_clerk(), ExecutorSurface(self, self._backends), _now)

    def _make_clerk(self) -> ClerkLike:
        return Clerk(AirflowDatabase(self.job_id, self._limits.silence))

    def _check(self, backend: Backend) -> Sequence[Problem]:
        return self._options.values(backend.name, backend.conf) or backend.conf_problems()

    def _prepare(self, executor: BaseExecutor) -> None:
        """Give a backend's executor what the scheduler gave to this one."""
        executor.job_id = self.job_id
        executor.callback_sink = self.callback_sink
        executor._task_event_logs = self._task_event_logs

    def _warn(self, loop: Loop) -> None:
        """Say at the start what would be hard to find out at 3 a.m."""
        given = loop.engines.keys() - self._settings.share_parallelism
        slots = sum(self._settings.backends[name].configured_slots for name in given)
        parallelism = conf.getint("core", "parallelism")
        if slots > parallelism:
            message = "The backends have %d slots, but [core] parallelism lets only %d tasks run. Raise it."
            log.warning(message, slots, parallelism)
        for problem in unread_options(self._settings):
            log.warning("%s", problem)
        if AIRFLOW_V_3_2_PLUS and EXECUTE_CALLBACK not in self._kinds:
            log.warning("No backend can run callbacks (%s): each will fail.", EXECUTE_CALLBACK)

    @guarded(None)
    def heartbeat(self) -> None:
        """Decide, hand over, let the backends work, take their events. Called in every scheduler loop."""
        loop = self._loop
        if loop is None:
            return
        now = _now()
        self._event_logs.forget_taken()
        self._reload(loop, now)
        loop.heartbeat(now, self.event_buffer)
        loop.emit_metrics()
        emit: Any = self._emit_metrics
        emit(self.slots_available, self.slots_occupied, loop.machine.held)

    @guarded(None)
    def _reload(self, loop: Loop, now: float) -> None:
        settings = self._routing_file.changed(now)
        if settings is not None:
            self._settings = settings
            for name, backend in self._backends.items():
                backend.settings = settings.backends[name]
                loop.engines[name].slots = backend.settings.configured_slots
            loop.tell(now, machine_settings(settings, self._limits))

    @guarded(None)
    def end(self) -> None:
        """End the backends: the remote ones first, then the local ones, which wait for their tasks."""
        if self._loop is not None:
            self._loop.stop(inf, _now(), self.event_buffer)

    @guarded(None)
    def terminate(self) -> None:
        """End the backends at once."""
        if self._loop is not None:
            self._loop.stop(0.0, _now(), self.event_buffer)

    # Workloads

    @guarded(None)
    def queue_workload(self, workload: Any, session: Session, executor: str | None = None) -> None:
        """Hold a workload. One that no backend can run fails at once, instead of ending the scheduler.

        :param executor: name of the executor that it asks for, where that is one of ``by_name``
        """
        assert self._loop is not None, "queue_workload was called before start"
        key, kind = airflow_api.workload_key(self, workload), airflow_api.kind_of(workload)
        if kind in self._kinds:
            self._loop.queue(key, workload, task_ref(workload, executor), priority_of(workload), _now())
        else:
            info = f"No backend under [dispatch] can run {kind} workloads."
            self.event_buffer[key] = airflow_api.event_state(kind, "failed"), info

    @guarded(False)
    def has_task(self, task_instance: Any) -> bool:
        return self._loop is not None and airflow_api.task_key(self, task_instance) in self._loop.machine

    def revoke_task(self, *, ti: Any) -> None:
        """Called by the scheduler for a task that is queued for too long.

        :raises NotImplementedError: where its backend cannot take it back: the scheduler then leaves it waiting
        """
        if not self._revoke(airflow_api.task_key(self, ti)):
            raise NotImplementedError

    @guarded(True)
    def _revoke(self, key: Any) -> bool:
        return self._loop is None or self._loop.revoke(key, _now())

    @guarded(None)
    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Called by the scheduler for a task that lost its heartbeat or is stuck: the backend that has it stops it."""
        self._give_up(key)
        self.event_buffer[key] = state, info

    @guarded(None)
    def fail_connection_test(self, key: Any) -> None:
        """Called by the scheduler for a connection test that took too long."""
        self._give_up(key)

    def _give_up(self, key: Any) -> None:
        if self._loop is not None:
            self._loop.give_up(key, _now())

    @property
    def slots_available(self) -> int:
        """See ``Machine.free_slots``."""
        return self._loop.machine.free_slots() if self._loop is not None else 0

    @property
    def slots_occupied(self) -> int:
        """Slots that the backends have taken; held workloads occupy none yet."""
        return sum(self._loop.machine.slots_used.values()) if self._loop is not None else 0

    # Adoption

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Take over all of them: their backends are asked at the next heartbeats, and what had not begun is set back to
        scheduled in place, in the same try."""
        if self._loop is None or not tis:
            return tis
        try:
            self._offer(self._loop, tis)
        except Exception:
            log.exception("Adoption failed: what is queued is scheduled again, what runs is left alone.")
        return [ti for ti in tis if ti.state == TaskInstanceState.QUEUED and not self.has_task(ti)]

    def _offer(self, loop: Loop, tis: Sequence[Any]) -> None:
        now, table = _now(), route_table(self._settings)
        local = {name: is_local(backend) for name, backend in self._backends.items()}
        keys = partial(airflow_api.task_key, self)
        for offered in adoption.offers(tis, keys, partial(adoption.candidates, table, local)):
            loop.offer(offered, now)

    # Logs and inspection

    def get_task_log(self, ti: Any, try_number: int) -> tuple[Any, Any]:
        """Logs of a running task from the backend that has it; called in the API server, without ``start``."""
        backend = self._log_backends.of(ti, self._started_backends())
        return backend.executor.get_task_log(ti, try_number) if backend is not None else ([], [])

    def _started_backends(self) -> dict[str, Backend] | None:
        return self._backends if self._loop is not None else None

    def get_streaming_task_log(self, ti: Any, try_number: int) -> Any:
        """The same from Airflow 3.4 on, which falls back to ``get_task_log`` on NotImplementedError."""
        backend = self._log_backends.of(ti, self._started_backends())
        if backend is None:
            raise NotImplementedError
        executor: Any = backend.executor
        return executor.get_streaming_task_log(ti, try_number)

    def debug_dump(self) -> None:
        """Called in a signal handler, so it takes no lock."""
        log.info("%r", self)
        for backend in self._backends.values():
            log.info("%r", backend)
            executor: Any = backend.made
            if executor is not None:
                executor.debug_dump()

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
