# SPDX-License-Identifier: Apache-2.0
"""Airflow's executor interface over the dispatch loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.event_log import EventLogQueue
from airflow_dispatch_provider.bridge.guard import guarded
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.dispatch import adoption
from airflow_dispatch_provider.dispatch.api_probe import ApiProbe
from airflow_dispatch_provider.dispatch.clerk import AirflowDatabase, Clerk
from airflow_dispatch_provider.dispatch.desk import Desk
from airflow_dispatch_provider.dispatch.gauges import Gauges
from airflow_dispatch_provider.dispatch.loop import ClerkLike, Loop
from airflow_dispatch_provider.dispatch.report import Facts
from airflow_dispatch_provider.dispatch.worker import Worker
from airflow_dispatch_provider.executors.surface import AnsweredFor
from airflow_dispatch_provider.lifecycle.events import Limits
from airflow_dispatch_provider.routing.model import TaskRef

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

_API_TIMEOUT = 5.0
"""Seconds for an answer of the Execution API; questions to the database wait meanwhile, while it is away."""


def monotonic() -> float:
    """The clock of every executor."""
    return time.monotonic()


class Face(BaseExecutor):
    """Everything that Airflow calls, answered by one loop. A subclass makes the loop in ``start``, and runs it.

    Airflow makes an executor in every API server and for every command, so that the constructor reads nothing.
    """

    supports_multi_team = True
    supports_task_instance_uuid = AIRFLOW_V_3_4_PLUS

    cannot_run = "This executor cannot run {kind} workloads."
    """The reason with which a workload of a type fails that is not in ``_kinds``."""

    _is_alone = False
    """Whether it has one engine, and is no router."""

    _loop: Loop | None = None
    _desk: Desk | None = None
    _gauges: Gauges
    _kinds: Collection[str] = ()
    """Types of workloads that are accepted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task_event_logs = self._event_logs = EventLogQueue()

    def __repr__(self) -> str:
        state = self._loop.machine.in_short() if self._loop is not None else "not started"
        return f"{type(self).__name__}({state})"

    # What a subclass gives

    def _owners(self, tis: Sequence[Any]) -> Mapping[Any, str]:
        """The backends to which tasks of a dead scheduler were dispatched, by task instance id."""
        raise NotImplementedError

    def _candidates(self) -> Callable[[TaskRef], Iterable[str]]:
        """A function that gives the backends that could have a task that runs and has no owner, the surest first."""
        raise NotImplementedError

    def _executors(self) -> Mapping[str, str]:
        """The executor of each backend, as people know it."""
        raise NotImplementedError

    def _file(self) -> tuple[str | None, str | None]:
        """The path of ``config_file``, and why the file on disk is not in use."""
        return None, None

    def _before_heartbeat(self, loop: Loop, now: float) -> None:
        """Called before anything is decided."""

    # What a subclass uses

    @property
    def _seed(self) -> str:
        """Differs between schedulers; see ``Machine``."""
        return f"{airflow_api.hostname()} {self.job_id}"

    def _make_clerk(self, limits: Limits) -> ClerkLike:
        reach = partial(airflow_api.reach_execution_api, self.conf, _API_TIMEOUT)
        api = ApiProbe(reach, _API_TIMEOUT)
        return Clerk(AirflowDatabase(self.job_id, limits.silence), api)

    def _run(self, loop: Loop, clerk: ClerkLike) -> None:
        """Start the loop: from now on it answers. The orders of operators that are in force count from the first
        decision on; without a clerk that asks the database there are none."""
        self._loop = loop
        self._gauges = Gauges(loop.machine, loop.engines, getattr(self, "team_name", None), self._is_alone)
        loop.start(str(self.job_id), monotonic())
        if isinstance(clerk, Clerk):
            name, team = type(self).__name__, getattr(self, "team_name", None) or ""
            facts = Facts(airflow_api.hostname(), name, team, self._executors, self._file)
            scheduler_id = f"{self.job_id} {name} {team}".rstrip()
            worker = Worker("dispatch-desk", logging.getLogger(Desk.__module__))
            self._desk = Desk(loop.machine, worker, scheduler_id, facts, monotonic)
            if orders := self._desk.open():
                loop.tell(monotonic(), *orders)

    # What the base class keeps, and the loop keeps instead

    @property
    def running(self) -> Any:
        """Keys of all workloads that the loop answers for, as a live view. Airflow 3.4 forgets the
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

    @guarded(None)
    def heartbeat(self) -> None:
        """Decide, hand over, let the engines work, take their events. Called in every scheduler loop."""
        loop = self._loop
        if loop is None:
            return
        now = monotonic()
        self._event_logs.forget_taken()
        self._before_heartbeat(loop, now)
        if self._desk is not None and (orders := self._desk.beat(now)):
            loop.tell(now, *orders)
        loop.heartbeat(now, self.event_buffer)
        emit: Any = self._emit_metrics
        emit(self.slots_available, sum(loop.machine.slots_used.values()), loop.machine.held)
        self._measure(loop, now)

    def _measure(self, loop: Loop, since: float) -> None:
        """
        :param since: monotonic seconds at which this heartbeat has begun
        """
        try:
            self._gauges.beat(since, monotonic() - since)
        except Exception as error:
            loop.note_failure("The sending of metrics", error)

    @guarded(None)
    def end(self) -> None:
        """End the engines: the remote ones first, then the local ones, which wait for their tasks."""
        if self._loop is not None:
            self._loop.stop(inf, self.event_buffer)

    @guarded(None)
    def terminate(self) -> None:
        """End the engines at once."""
        if self._loop is not None:
            self._loop.terminate(self.event_buffer)

    # Workloads

    @guarded(None)
    def queue_workload(self, workload: Any, session: Session, executor: str | None = None) -> None:
        """Hold a workload. One that nothing here can run fails at once, instead of ending the scheduler.

        :param executor: name of the executor that it asks for, where that is one of ``by_name``
        """
        assert self._loop is not None, "queue_workload was called before start"
        key, kind = airflow_api.workload_key(self, workload), airflow_api.kind_of(workload)
        if kind in self._kinds:
            self._loop.queue(key, workload, task_ref(workload, executor), priority_of(workload), monotonic())
        else:
            info = self.cannot_run.format(kind=kind)
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
        return self._loop is None or self._loop.revoke(key, monotonic())

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
            self._loop.give_up(key, monotonic())

    @property
    def slots_available(self) -> int:
        """See ``Machine.free_slots``."""
        return self._loop.machine.free_slots() if self._loop is not None else 0

    @property
    def slots_occupied(self) -> int:
        """See ``Machine.slots_occupied``; held workloads occupy none yet."""
        return self._loop.machine.slots_occupied() if self._loop is not None else 0

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
        now, key_of = monotonic(), partial(airflow_api.task_key, self)
        for offered in adoption.offers(tis, key_of, self._owners, self._candidates()):
            loop.offer(offered, now)

    # Inspection

    def debug_dump(self) -> None:
        """Called in a signal handler, so it takes no lock."""
        log.info("%r", self)
        for engine in self._loop.engines.values() if self._loop is not None else ():
            log.info("%r", engine)
