# SPDX-License-Identifier: Apache-2.0
"""Airflow: rows in a real database, the Execution API in this process, and the scheduler's own methods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.trigger import handle_event_submit
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from sqlalchemy import delete, select, update
from svcs import Registry

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_dispatch_provider.dispatch.clerk import AirflowDatabase

from ..database import RETRIED
from .sides import GO, REFUSED, Seen

if AIRFLOW_V_3_4_PLUS:
    from airflow.api_fastapi.execution_api.in_process import InProcessExecutionAPI
    from httpx2 import Client
else:
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
    from httpx import Client

LONG = timedelta(hours=1)
"""Longer than any limit."""

TASK = "t0"


def make_client() -> Any:
    api = InProcessExecutionAPI()
    if not AIRFLOW_V_3_3_PLUS:  # which waits for its lifespan, where this is set
        api.app.state.svcs_registry = Registry()
    return Client(transport=api.transport, base_url="http://in-process.invalid")


class Executor(BaseExecutor):
    """It runs nothing, and knows what its side says."""

    supports_task_instance_uuid = AIRFLOW_V_3_4_PLUS

    def __init__(self, side: AirflowSide) -> None:
        super().__init__(parallelism=8)
        self.side, self.offered, self.revoked = side, list[str](), list[str]()

    def try_adopt_task_instances(self, tis: Any) -> Any:
        self.offered += [ti.task_id for ti in tis]
        return [] if self.side.takes else list(tis)

    def revoke_task(self, *, ti: Any) -> None:
        self.revoked.append(ti.task_id)
        if not self.side.revokes:
            raise NotImplementedError

    def send_callback(self, request: Any) -> None:
        """No Dag processor is there."""

    def has_task(self, task_instance: Any) -> bool:
        return self.side.holds


class Scheduler:
    """Of Airflow, with a row for its job."""

    def __init__(self, side: AirflowSide) -> None:
        self.executor, self.job = Executor(side), Job()
        with create_session() as session:
            self.job.job_type, self.job.state, self.job.latest_heartbeat = "SchedulerJob", "running", _now()
            session.add(self.job)
            session.flush()
            session.expunge(self.job)
        options: Any = {}
        if AIRFLOW_V_3_2_PLUS:
            options["executors"] = [self.executor]
        else:
            self.job.executors = [self.executor]
        self.runner = SchedulerJobRunner(job=self.job, **options)
        self.runner.job.job_type = "SchedulerJob"

    @property
    def clerk(self) -> AirflowDatabase:
        return AirflowDatabase(self.job.id, silence=20.0)

    def set_job(self, **values: Any) -> None:
        with create_session() as session:
            session.execute(update(Job).where(Job.id == self.job.id).values(**values))

    def take_events(self) -> None:
        with create_session() as session:
            self.runner._process_executor_events(executor=self.executor, session=session)


class AirflowSide:
    """See ``sides.Side``."""

    is_model = False
    one_id_per_try = AIRFLOW_V_3_4_PLUS

    def __init__(self, client: Any) -> None:
        self.takes, self.revokes, self.holds = True, True, False
        self._client, self._began = client, dict[int, Any]()
        self._keys: dict[int, Any] = {}
        self._clean()
        self._schedulers = {name: Scheduler(self) for name in "ab"}
        self._ids: list[Any] = []
        self.see()

    def _clean(self) -> None:
        """Nothing else is there for a scheduler to adopt."""
        with create_session() as session:
            session.execute(delete(Job))
            session.execute(delete(Log).where(Log.dag_id == RETRIED))
            if AIRFLOW_V_3_4_PLUS:  # which keeps tries that are over in the same table
                table = TaskInstance.__table__
                session.execute(delete(table).where(table.c.working_set.is_(None)))
            blank = {"state": None, "queued_by_job_id": None, "try_number": 0, "max_tries": 9}
            session.execute(update(TaskInstance).values(**blank, next_method=None, next_kwargs=None))
            session.execute(update(DagRun).values(state="running", start_date=_now()))

    def close(self) -> None:
        """Leave nothing for the next test."""
        self._clean()

    def _row(self, session: Any) -> Any:
        query = select(TaskInstance).where(TaskInstance.dag_id == RETRIED, TaskInstance.task_id == TASK)
        if AIRFLOW_V_3_4_PLUS:
            query = query.where(TaskInstance.working_set.is_(True))
        return session.scalars(query).one()

    def _change(self, **values: Any) -> None:
        with create_session() as session:
            for name, value in values.items():
                setattr(self._row(session), name, value)

    def see(self) -> Seen:
        with create_session() as session:
            ti = self._row(session)
            if ti.state in (None, "up_for_retry"):
                self._schedule(ti, session)
        with create_session() as session:
            ti = self._row(session)
            if str(ti.id) not in self._ids:
                self._ids.append(str(ti.id))
            owner = next((n for n, s in self._schedulers.items() if s.job.id == ti.queued_by_job_id), None)
            scheduler = self._schedulers["a"]
            self._keys[ti.try_number] = airflow_api.task_key(scheduler.executor, ti)
            return Seen(str(ti.state), owner, ti.try_number, self._ids.index(str(ti.id)))

    def _schedule(self, ti: Any, session: Any) -> None:
        bag = self._schedulers["a"].runner.scheduler_dag_bag
        ti.task = bag.get_dag_for_run(dag_run=ti.dag_run, session=session).get_task(TASK)
        ti.dag_run.schedule_tis([ti], session=session)

    # Schedulers

    def queue(self, scheduler: str = "a") -> None:
        assert self.see().state == "scheduled"
        job = self._schedulers[scheduler].job.id
        self._change(state="queued", queued_by_job_id=job, queued_dttm=_now())

    def event(self, scheduler: str, state: str, attempt: int = 1) -> None:
        self._schedulers[scheduler].executor.event_buffer[self._keys[attempt]] = state, None
        self._schedulers[scheduler].take_events()

    def fall_silent(self, scheduler: str) -> None:
        one = self._schedulers[scheduler]
        one.job.latest_heartbeat = _now() - LONG
        one.set_job(latest_heartbeat=one.job.latest_heartbeat)

    def end(self, scheduler: str) -> None:
        self._schedulers[scheduler].set_job(state="success", end_date=_now())

    def beat(self, scheduler: str) -> None:
        job = self._schedulers[scheduler].job
        # It would wait for the rest of the time between two otherwise.
        job.latest_heartbeat -= timedelta(seconds=job.heartrate)
        job.heartbeat(lambda *_, **__: None)

    def adopt(self, scheduler: str) -> bool:
        one = self._schedulers[scheduler]
        one.executor.offered.clear()
        one.runner.adopt_or_reset_orphaned_tasks()
        return TASK in one.executor.offered

    def wait_queued(self, scheduler: str) -> bool:
        one = self._schedulers[scheduler]
        one.executor.revoked.clear()
        self._change(queued_dttm=_now() - LONG)
        one.runner._handle_tasks_stuck_in_queued()
        return TASK in one.executor.revoked

    def lose_heartbeat(self, scheduler: str) -> None:
        self._change(last_heartbeat_at=_now() - LONG)
        one = self._schedulers[scheduler]
        one.runner._find_and_purge_task_instances_without_heartbeats()
        one.take_events()

    # Processes

    def start(self, process: int, id: int | None = None) -> str:
        number = self.see().id if id is None else id
        body = {"state": "running", "unixname": "user", "start_date": _now().isoformat(), **_process(process)}
        self._began.setdefault(process, self._ids[number])
        answer = self._client.patch(f"/task-instances/{self._ids[number]}/run", json=body)
        return GO if _is_done(answer) else REFUSED

    def heartbeat(self, process: int) -> bool:
        path = f"/task-instances/{self._began[process]}/heartbeat"
        return _is_done(self._client.put(path, json=_process(process)))

    def succeed(self, process: int) -> bool:
        return self._say(process, state="success", end_date=_now().isoformat())

    def defer(self, process: int) -> bool:
        waits_for = {"classpath": "it.Trigger", "trigger_kwargs": {}, "trigger_timeout": None}
        return self._say(process, state="deferred", **waits_for, next_method="resume", next_kwargs={})

    def _say(self, process: int, **body: Any) -> bool:
        return _is_done(self._client.patch(f"/task-instances/{self._began[process]}/state", json=body))

    # Others

    def trigger(self) -> None:
        with create_session() as session:
            handle_event_submit(TriggerEvent("now"), task_instance=self._row(session), session=session)

    def clear(self) -> None:
        with create_session() as session:
            clear_task_instances([self._row(session)], session, dag_run_state=False)

    def _id(self) -> dict[Any, UUID]:
        return {TASK: UUID(self._ids[self.see().id])}

    def put_back(self, scheduler: str) -> None:
        self._schedulers[scheduler].clerk.put_back(self._id(), (_now() + LONG).timestamp())

    def unstart(self, scheduler: str) -> None:
        self._change(last_heartbeat_at=_now() - LONG)
        self._schedulers[scheduler].clerk.unstart(self._id())

    def restart(self, scheduler: str) -> None:
        self._change(last_heartbeat_at=_now() - LONG)
        self._schedulers[scheduler].clerk.restart(self._id())


def _is_done(answer: Any) -> bool:
    """False: it was refused, since the row says something else, or there is none of this id any more."""
    assert answer.status_code in (200, 204, 404, 409, 410), (answer.status_code, answer.text)
    return answer.status_code in (200, 204)


def _process(number: int) -> dict[str, Any]:
    return {"hostname": "worker", "pid": number}


def _now() -> datetime:
    return datetime.now(UTC)
