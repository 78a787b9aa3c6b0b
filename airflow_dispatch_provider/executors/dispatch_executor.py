# SPDX-License-Identifier: Apache-2.0
"""The executor that gives every task to one of several executors, chosen by the task's queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.backend_conf import RunOnce, settings_source, unread_options
from airflow_dispatch_provider.bridge.event_log import EventLogQueue
from airflow_dispatch_provider.bridge.guard import guarded
from airflow_dispatch_provider.bridge.keepalive import Keepalive
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_4_PLUS,
    warn_if_untested,
)
from airflow_dispatch_provider.bridge.workload import kind_of
from airflow_dispatch_provider.dispatch import adoption
from airflow_dispatch_provider.dispatch.backend import Backend, clashes, in_start_order
from airflow_dispatch_provider.dispatch.log_backends import LogBackends
from airflow_dispatch_provider.dispatch.observers import DispatchEvents, DispatchLog, DispatchMetrics
from airflow_dispatch_provider.dispatch.option_check import OptionCheck
from airflow_dispatch_provider.dispatch.router import AnsweredFor, Router
from airflow_dispatch_provider.dispatch.routing_file import RoutingFile
from airflow_dispatch_provider.engines.protocols import AdoptsIfFound
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.executors.class_attributes import (
    FromBackends,
    any_backend,
    configured_classes,
    workload_types,
)
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK
from airflow_dispatch_provider.settings.options import SECTION
from airflow_dispatch_provider.settings.presets import Hybrid

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

ASK_AGAIN = 5.0
"""Seconds after which a backend is asked again about tasks that it may have."""

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

    _router: Router | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source = settings_source(self.conf, self.hybrid)
        self._task_event_logs = self._event_logs = EventLogQueue()
        self._routing_file = RoutingFile(self._source)
        self._log_backends = LogBackends(self._source, self.conf, self.team_name)
        self._unasked: dict[str, dict[Any, Any]] = {}
        self._ask_due: dict[str, float] = {}

    def __repr__(self) -> str:
        router = self._router
        if router is None:
            return f"{type(self).__name__}(not started)"
        now = time.monotonic()
        loads = ", ".join(
            f"{name} {router.ledger.load(name)}/{backend.slots(now)}"
            for name, backend in router.backends.items()
        )
        return f"{type(self).__name__}({loads}, held {router.held})"

    # What the base class keeps, and the router keeps instead

    @property
    def running(self) -> Any:
        """Keys of all workloads that the router answers for, as a live view. Airflow 3.4 forgets the
        coordinates of a task whose key is not here, and adds each adopted one, which is here already."""
        return AnsweredFor(self._router if self._router is not None else ())

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
        settings = self._routing_file.start(time.monotonic())
        own_conf = RunOnce(self.conf)
        backends = {
            name: Backend(name, backend, settings.limits, own_conf, self.team_name)
            for name, backend in settings.backends.items()
        }
        self._options = OptionCheck(settings, self._place())
        if problems := [*self._options.mistakes(), *clashes(backends.values(), self._place())]:
            raise DispatchConfigError(problems)
        observers = (DispatchLog(), DispatchMetrics(), DispatchEvents(self.log_task_event))
        self._keepalive = Keepalive()
        self._router = Router(settings, backends, observers, lambda: self.jwt_generator)
        now = time.monotonic()
        for backend in in_start_order(backends.values()):
            self._start(backend, now)
        self._warn(self._router, now)
        STARTED[self.team_name] = self

    def _place(self) -> str:
        config_file = self.conf.get(SECTION, "config_file", fallback=None)
        return f"{config_file}: " if config_file else f"[{SECTION}] "

    def _start(self, backend: Backend, now: float) -> bool:
        def check() -> Sequence[Problem]:
            return self._options.values(backend.name, backend.conf) or backend.conf_problems()

        return backend.start(now, self._prepare, check)

    def _prepare(self, executor: BaseExecutor) -> None:
        """Give a backend's executor what the scheduler gave to this one."""
        executor.job_id = self.job_id
        executor.callback_sink = self.callback_sink
        executor._task_event_logs = self._task_event_logs

    def _warn(self, router: Router, now: float) -> None:
        """Say at the start what would be hard to find out at 3 a.m."""
        given = router.backends.keys() - router.settings.share_parallelism
        slots = sum(router.backends[name].slots(now) for name in given)
        parallelism = conf.getint("core", "parallelism")
        if slots > parallelism:
            message = "The backends have %d slots, but [core] parallelism lets only %d tasks run. Raise it."
            log.warning(message, slots, parallelism)
        for problem in unread_options(router.settings):
            log.warning("%s", problem)
        if AIRFLOW_V_3_2_PLUS and not router.runs(EXECUTE_CALLBACK):
            log.warning("No backend can run callbacks (%s): each will fail.", EXECUTE_CALLBACK)

    @guarded(None)
    def heartbeat(self) -> None:
        """Decide, hand over, let the backends work, take their events. Called in every scheduler loop."""
        router = self._router
        if router is None:
            return
        now = time.monotonic()
        self._event_logs.forget_taken()
        self._reload(router, now)
        self._keep_alive(router, now)
        router.dispatch(now)
        for backend in router.backends.values():
            if backend.may_start(now) and self._start(backend, now):
                log.info("Backend %r has started.", backend.name)
            if backend.usable(now):
                router.beat(backend, now)
                self._ask_again(backend, now)
            if backend.started:
                router.collect(backend, now, self.event_buffer)
        router.emit_metrics(now)
        emit: Any = self._emit_metrics
        emit(self.slots_available, self.slots_occupied, router.held)

    @guarded(None)
    def _reload(self, router: Router, now: float) -> None:
        settings = self._routing_file.changed(now)
        if settings is not None:
            router.use(settings)

    @guarded(None)
    def _keep_alive(self, router: Router, now: float) -> None:
        self._keepalive.refresh(now, router.held_before)

    def end(self) -> None:
        """End the backends: the remote ones first, then the local ones, which wait for their tasks."""
        if self._router is None:
            return
        now = time.monotonic()
        for backend in reversed(in_start_order(self._router.backends.values())):
            if backend.started:
                backend.call("end", now, backend.executor.end, None)
                self._router.collect(backend, now, self.event_buffer)

    @guarded(None)
    def terminate(self) -> None:
        """End the backends at once."""
        for backend in self._router.backends.values() if self._router is not None else ():
            if backend.started:
                backend.call("terminate", time.monotonic(), backend.executor.terminate, None)

    # Workloads

    @guarded(None)
    def queue_workload(self, workload: Any, session: Session, executor: str | None = None) -> None:
        """Hold a workload. One that no backend can run fails at once, instead of ending the scheduler.

        :param executor: name of the executor that it asks for, where that is one of ``by_name``
        """
        assert self._router is not None, "queue_workload was called before start"
        key, kind = airflow_api.workload_key(self, workload), kind_of(workload)
        if self._router.runs(kind):
            self._router.hold(key, workload, time.monotonic(), executor)
        else:
            _, _, failure = airflow_api.workload_states(workload)
            self.event_buffer[key] = failure, f"No backend under [dispatch] can run {kind} workloads."

    @guarded(False)
    def has_task(self, task_instance: Any) -> bool:
        return self._router is not None and airflow_api.task_key(self, task_instance) in self._router

    @guarded(None)
    def revoke_task(self, *, ti: Any) -> None:
        if self._router is not None:
            self._router.revoke(airflow_api.task_key(self, ti), ti, time.monotonic())

    @guarded(None)
    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Called by the scheduler for a task that lost its heartbeat or is stuck: the backend that has it is
        told, so that it frees its slot; its event comes back with the next heartbeat."""
        router, now = self._router, time.monotonic()
        if router is None or not router.change_state(key, state, info, remove_running, now):
            self.event_buffer[key] = state, info

    @guarded(None)
    def fail_connection_test(self, key: Any) -> None:
        """Called by the scheduler for a connection test that took too long."""
        if self._router is not None:
            self._router.fail_connection_test(key, time.monotonic())

    @property
    def slots_available(self) -> int:
        """See ``Router.free_slots``."""
        return self._router.free_slots(time.monotonic()) if self._router is not None else 0

    @property
    def slots_occupied(self) -> int:
        """Slots that the backends have taken; held workloads occupy none yet."""
        return len(self._router.ledger) if self._router is not None else 0

    # Adoption

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Let each backend adopt what the event log says it had; see ``adoption.adopt``."""
        if self._router is None or not tis:
            return tis
        try:
            return self._adopt(self._router, tis)
        except Exception:
            log.exception("Adoption failed: what is queued is scheduled again, what runs is left alone.")
            return [ti for ti in tis if ti.state == TaskInstanceState.QUEUED and not self.has_task(ti)]

    def _adopt(self, router: Router, tis: Sequence[Any]) -> Sequence[Any]:
        now = time.monotonic()
        outcome = adoption.adopt(
            tis,
            self.has_task,
            lambda ti: router.candidates(ti.queue, ti.dag_id),
            lambda backend, group, proven: self._ask(router, backend, group, now, proven),
        )
        for name, adopted in outcome.by_backend.items():
            self._enter(router, name, adopted)
        for name, waiting in outcome.unasked.items():
            if name in router.backends:
                self._enter(router, name, waiting)
                ids = self._unasked.setdefault(name, {})
                ids.update({ti.id: airflow_api.task_key(self, ti) for ti in waiting})
        return outcome.rejected

    def _ask(
        self, router: Router, name: str, tis: Sequence[Any], now: float, proven: bool
    ) -> Sequence[Any] | None:
        """
        :param proven: a row in the event log says that the backend was given these
        """
        backend = router.backends.get(name)
        if backend is None or not backend.may_adopt(now):
            return None
        executor: Any = backend.executor
        asks = not proven and isinstance(executor, AdoptsIfFound)
        adopt: Callable[[Sequence[Any]], Sequence[Any] | None]
        adopt = executor.adopt_if_found if asks else executor.try_adopt_task_instances
        return backend.call("adoption", now, lambda: adopt(tis), None)

    def _enter(self, router: Router, name: str, tis: Iterable[Any]) -> None:
        """Write adopted task instances into the ledger."""
        executor = router.backends[name].made or self
        for ti in tis:
            router.ledger.add(airflow_api.task_key(self, ti), name, airflow_api.task_key(executor, ti))

    @guarded(None)
    def _ask_again(self, backend: Backend, now: float) -> None:
        """Offer a backend, now that it can be asked, the running tasks that it could not be asked about. What it does
        not take over it does not have: the slot is free, and Airflow misses the task's heartbeats."""
        waiting = self._unasked.get(backend.name)
        router = self._router
        if not waiting or router is None or now < self._ask_due.get(backend.name, 0.0):
            return
        self._ask_due[backend.name] = now + ASK_AGAIN
        taken = adoption.offer_again(
            list(waiting), lambda tis: self._ask(router, backend.name, tis, now, proven=False)
        )
        if taken is None:
            return
        del self._unasked[backend.name]
        for ti_id in waiting.keys() - taken:
            router.ledger.drop(waiting[ti_id])

    # Logs and inspection

    def get_task_log(self, ti: Any, try_number: int) -> tuple[Any, Any]:
        """Logs of a running task from the backend that has it; called in the API server, without ``start``."""
        backend = self._log_backends.of(ti, self._router)
        return backend.executor.get_task_log(ti, try_number) if backend is not None else ([], [])

    def get_streaming_task_log(self, ti: Any, try_number: int) -> Any:
        """The same from Airflow 3.4 on, which falls back to ``get_task_log`` on NotImplementedError."""
        backend = self._log_backends.of(ti, self._router)
        if backend is None:
            raise NotImplementedError
        executor: Any = backend.executor
        return executor.get_streaming_task_log(ti, try_number)

    def debug_dump(self) -> None:
        """Called in a signal handler, so it takes no lock."""
        log.info("%r", self)
        for backend in self._router.backends.values() if self._router is not None else ():
            log.info("%r %s", backend, backend.circuit)
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
