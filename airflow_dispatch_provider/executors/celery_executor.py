# SPDX-License-Identifier: Apache-2.0
"""Celery workers, with all traffic with the broker and the result backend off the scheduler's thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from airflow.executors.base_executor import BaseExecutor
from airflow.providers.celery.executors.celery_executor import CeleryExecutor as AirflowCeleryExecutor
from airflow.utils.state import TaskInstanceState
from celery import states

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import (
    open_among,
    reschedule_queued,
    state_of,
    update_queued,
)
from airflow_dispatch_provider.bridge.version_compat import warn_if_untested
from airflow_dispatch_provider.engines.celery.brokers import broker_for
from airflow_dispatch_provider.engines.celery.capacity import WorkerCensus
from airflow_dispatch_provider.engines.celery.checks import app_problems, celery_doubts, conf_problems
from airflow_dispatch_provider.engines.celery.lost_messages import LostMessages
from airflow_dispatch_provider.engines.celery.lost_results import LostResults
from airflow_dispatch_provider.engines.celery.message import Outgoing
from airflow_dispatch_provider.engines.celery.publisher import Publisher, Sent
from airflow_dispatch_provider.engines.celery.result_watcher import ResultWatcher
from airflow_dispatch_provider.engines.celery.results import Result
from airflow_dispatch_provider.engines.holding_back import HoldsBack, task_ids
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.masking import masked

WAITED = "waiting for broker"
"""``log.event`` of a task that was taken back because the broker could not be used."""

FLUSH = 10.0
"""Seconds that ``end`` lets the publisher send what was accepted."""

LEAST_TIMEOUT = 5.0
"""Seconds for a single network call, unless ``[celery] operation_timeout`` is longer. It no longer blocks the
scheduler, so it need not be as short as that option's default."""


@dataclass(slots=True)
class _Flight:
    """A workload that was given to the publisher, or adopted."""

    key: WorkloadKey
    workload: Workload | None
    """None for an adopted task."""

    ti_id: UUID | None
    """None for what is not a task."""


class CeleryExecutor(HoldsBack, AirflowCeleryExecutor):
    """
    Airflow's CeleryExecutor with the same app, options and workers. Two threads talk to the network, one to the
    broker and one to the result backend; the scheduler's thread only exchanges lists with them.

    An outage fails no task: what was not sent returns to the queue that it came from.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call, unused-ignore]
        self._publisher: Publisher | None = None
        self._watcher: ResultWatcher | None = None
        self._census: WorkerCensus | None = None
        self._flights: dict[str, _Flight] = {}
        self._id_of: dict[WorkloadKey, str] = {}

    def __repr__(self) -> str:
        unsent = self._publisher.unsent if self._publisher else 0
        return f"{type(self).__name__}(slots={self.parallelism}, with Celery={len(self._flights)}, unsent={unsent})"

    # Life of the executor

    def start(self) -> None:
        """Start the threads; a broker that cannot be reached is waited for.

        :raises DispatchConfigError: see ``config_problems``
        """
        warn_if_untested()
        if problems := self.config_problems():
            raise DispatchConfigError(problems)
        conf: Any = self.conf
        self._timeout = max(LEAST_TIMEOUT, float(conf.get("celery", "operation_timeout", fallback=1.0)))
        self._max_unsent = conf.getint("dispatch", "celery_max_unsent", fallback=250)
        self._lost = LostResults(open_among)
        self._lost_messages = LostMessages(reschedule_queued)
        self._watcher = watcher = ResultWatcher(self.celery_app)
        broker = broker_for(
            self.celery_app,
            self._timeout,
            reply_queue=lambda: watcher.reply_queue,
            queued_timeout=float(conf.get("scheduler", "task_queued_timeout")),
        )
        watcher.start()
        self._publisher = Publisher(broker, masked(self.celery_app.connection_for_write().as_uri()))
        self._publisher.start()

    def config_problems(self) -> list[Problem]:
        """See ``protocols.ChecksConfig``: broker, result backend, transport options, certificates, modules."""
        return self.conf_problems(self.conf) or app_problems(self.celery_app)

    @staticmethod
    def conf_problems(conf: Any) -> list[Problem]:
        """See ``protocols.ChecksConf``: its constructor already makes the Celery app."""
        return conf_problems(conf)

    def config_doubts(self) -> list[Problem]:
        """See ``protocols.DoubtsConfig``: transport options that look misspelt."""
        return list(celery_doubts(self.celery_app))

    def sync(self) -> None:
        """Take note of what was sent and of what has ended; called by every heartbeat."""
        publisher, watcher = self._publisher, self._watcher
        if publisher is None or watcher is None:
            return
        for report in publisher.drain():
            flight = self._flights.get(report.outgoing.celery_id)
            if flight is None:
                continue
            if isinstance(report, Sent):
                self._note_sent(report.outgoing.celery_id, flight)
                watcher.watch(report.outgoing.celery_id)
            else:
                self._finish(report.outgoing.celery_id, flight, success=False, info=report.reason)
        for result in watcher.drain():
            self._note_result(publisher, result)
        for celery_id in self._lost.find(time.monotonic(), self._task_ids_in_flight):
            self.log.info(
                "The Celery result of %s, which has ended, never came.", self._flights[celery_id].key
            )
            self._free_slot(self._flights[celery_id])
        for celery_id in self._lost_messages.find(publisher.kept_since, self._adopted_task_ids):
            self._free_slot(self._flights[celery_id])
        self._sync_held_back()

    def end(self, synchronous: bool = False) -> None:
        """Send what was accepted, for a bounded time, and give back the rest, so that the next scheduler need not
        wait for it. Tasks go on on their workers."""
        publisher, watcher = self._publisher, self._watcher
        if publisher is None or watcher is None:
            return
        unsent = [outgoing.workload for outgoing in publisher.stop(FLUSH)]
        self.sync()
        watcher.stop()
        if self._census:
            self._census.stop()
        self._publisher = self._watcher = self._census = None
        if given_back := _give_back([*unsent, *self._queued().values()]):
            message = "Ending with %d tasks that the broker did not get: they are given back."
            self.log.warning(message, given_back)

    def terminate(self) -> None:
        """Tasks run elsewhere: nothing to end."""

    # Handing over

    def _may_send(self) -> int:
        publisher = self._publisher
        if publisher is None or publisher.problem:
            return 0
        room: int = self._max_unsent - publisher.unsent
        return room

    def _process_workloads(self, workload_items: Sequence[Workload]) -> None:
        if self._publisher:
            self._publisher.submit([self._hand_over(workload) for workload in workload_items])

    def _hand_over(self, workload: Workload) -> Outgoing:
        key = airflow_api.workload_key(self, workload)
        workload = self._take_for_sending(key, workload)
        ti = workload.ti if airflow_api.is_task(workload) else None
        celery_id = getattr(ti, "external_executor_id", None) or str(uuid4())
        self._enter(celery_id, _Flight(key, workload, ti.id if ti else None))
        return Outgoing(celery_id, key, workload, self._queue_of(workload))

    def _queue_of(self, workload: Workload) -> str:
        if airflow_api.is_task(workload):
            return str(workload.ti.queue)
        data = workload.callback.data
        named = data.get("queue") if isinstance(data, dict) else None
        return str(named or self.conf.get_mandatory_value("operators", "default_queue"))

    def _enter(self, celery_id: str, flight: _Flight) -> None:
        self._abandon(flight.key)  # an earlier half of a task that was deferred
        self._flights[celery_id] = flight
        self._id_of[flight.key] = celery_id
        self.running.add(flight.key)

    def _leave(self, celery_id: str) -> None:
        flight = self._flights.pop(celery_id)
        if self._id_of.get(flight.key) == celery_id:
            del self._id_of[flight.key]
            self.running.discard(flight.key)

    # Taking back what could not be sent

    def health(self) -> str | None:
        """See ``protocols.ReportsHealth``. A result backend that is down delays news, and no task."""
        return self._publisher.problem if self._publisher else None

    def worker_slots(self) -> int | None:
        """See ``protocols.CountsWorkers``. The first call begins to count."""
        if self._census is None:
            self._census = WorkerCensus(self.celery_app, self._timeout)
            self._census.start()
        return self._census.slots

    def _withdraw_unsent(self) -> Iterator[Workload]:
        for outgoing in self._publisher.withdraw_all() if self._publisher else ():
            if outgoing.celery_id in self._flights:
                self._leave(outgoing.celery_id)
                yield outgoing.workload

    def _note_held_back(self, workloads: Sequence[Workload]) -> None:
        _give_back(workloads)

    def _waits_for(self) -> tuple[str, str]:
        name = self._publisher.name if self._publisher else ""
        return WAITED, f"The broker {name} cannot be used."

    # Taking note of what happened

    def _note_sent(self, celery_id: str, flight: _Flight) -> None:
        """Airflow keeps the id, to adopt by it."""
        if flight.ti_id is not None:
            self.event_buffer.setdefault(flight.key, (TaskInstanceState.QUEUED, celery_id))

    def _note_result(self, publisher: Publisher, result: Result) -> None:
        publisher.settled(result.celery_id)
        flight = self._flights.get(result.celery_id)
        if flight is None:
            return
        if result.state == states.STARTED:
            self._report_running(flight)
        elif result.state == states.SUCCESS:
            self._finish(result.celery_id, flight, success=True)
        elif self._runs_elsewhere(flight, result.info):
            # Its own result may be overwritten by now: what is left of it, LostResults finds.
            self.log.info("A second copy of %s was refused by the Execution API and is ignored.", flight.key)
        else:
            self._finish(result.celery_id, flight, success=False, info=result.info)

    def _report_running(self, flight: _Flight) -> None:
        running = airflow_api.workload_states(flight.workload)[0] if flight.workload else None
        if running is not None and flight.key not in self.event_buffer:
            super().change_state(flight.key, running, remove_running=False)

    def _finish(self, celery_id: str, flight: _Flight, *, success: bool, info: Any = None) -> None:
        if flight.workload is None:
            outcome: Any = TaskInstanceState.SUCCESS if success else TaskInstanceState.FAILED
        else:
            outcome = airflow_api.workload_states(flight.workload)[1 if success else 2]
        self._leave(celery_id)
        super().change_state(flight.key, outcome, info, remove_running=False)

    def _free_slot(self, flight: _Flight) -> None:
        """Of a task whose own state is in the database, as ended or as scheduled again: the event does nothing else."""
        self._abandon(flight.key)
        super().change_state(flight.key, TaskInstanceState.SUCCESS, remove_running=False)

    def _task_ids_in_flight(self) -> dict[str, UUID]:
        return {celery_id: flight.ti_id for celery_id, flight in self._flights.items() if flight.ti_id}

    def _adopted_task_ids(self) -> dict[str, UUID]:
        adopted = (item for item in self._flights.items() if item[1].workload is None)
        return {celery_id: flight.ti_id for celery_id, flight in adopted if flight.ti_id}

    def _runs_elsewhere(self, flight: _Flight, info: Any) -> bool:
        """A message that was delivered twice: the Execution API lets one copy start and refuses the other, which
        Airflow's workers up to 3.1.8 report as a failure of the task."""
        if flight.ti_id is None or not _is_refusal(info):
            return False
        return state_of(flight.ti_id) == TaskInstanceState.RUNNING

    # Taking back what was handed over

    def change_state(
        self, key: WorkloadKey, state: Any, info: Any = None, remove_running: bool = True
    ) -> None:
        """From outside, a final state means that nothing is waited for any more under the key."""
        if remove_running:
            self._abandon(key)
        super().change_state(key, state, info, remove_running)

    def revoke_task(self, *, ti: Any) -> None:
        """Drop the task, and have the workers told so. Raises nothing and reports nothing."""
        try:
            key = airflow_api.task_key(self, ti)
            airflow_api.forget_queued_key(self, key)
            self._abandon(key, revoke=True)
            self.running.discard(key)
        except Exception:
            self.log.exception("Could not revoke %s", ti)

    def _abandon(self, key: WorkloadKey, revoke: bool = False) -> None:
        celery_id = self._id_of.get(key)
        if celery_id is None:
            return
        self._leave(celery_id)
        if self._watcher:
            self._watcher.forget(celery_id)
        if self._publisher and not self._publisher.withdraw(celery_id):
            if revoke:
                self._publisher.revoke(celery_id)
            else:
                self._publisher.settled(celery_id)

    # Adoption

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Wait for the results of a dead scheduler's tasks; those without a Celery id are returned. This executor's
        own stay as they are: a scheduler that was only slow is offered its own tasks."""
        if self._watcher is None:
            return tis
        foreign = [ti for ti in tis if not airflow_api.has_key(self, airflow_api.task_key(self, ti))]
        rejected = [ti for ti in foreign if ti.external_executor_id is None]
        for ti in foreign:
            if ti.external_executor_id is not None:
                celery_id = str(ti.external_executor_id)
                self._enter(celery_id, _Flight(airflow_api.task_key(self, ti), None, UUID(str(ti.id))))
                self._watcher.watch(celery_id)
        self._lost_messages.look_again()
        self.log.info("Adopted %d Celery tasks, and left %d.", len(foreign) - len(rejected), len(rejected))
        return rejected

    # For people

    def debug_dump(self) -> None:
        """Log queues, and what is with Celery; called from a signal handler."""
        BaseExecutor.debug_dump(self)  # type: ignore[no-untyped-call, unused-ignore]
        ids = {str(flight.key): celery_id for celery_id, flight in self._flights.items()}
        publisher, watcher = self._publisher, self._watcher
        problems = [part.problem for part in (publisher, watcher) if part and part.problem]
        self.log.info("%r\n\ttasks: %s\n\tproblems: %s", self, ids, problems or "none")


def _give_back(workloads: Iterable[Workload]) -> int:
    """Have the database forget the Celery ids that Airflow 3.2 and later assign to tasks before they are sent: a
    scheduler that adopts a task by its id waits for a worker, and here no worker will come. Those without one
    are scheduled again. Returns how many tasks these are."""
    ids = task_ids(workloads)
    if ids:
        update_queued(ids, external_executor_id=None)
    return len(ids)


def _is_refusal(info: Any) -> bool:
    text = f"{type(info).__name__} {info}"
    return "ServerResponseError" in text or "TaskAlreadyRunningError" in text
