# SPDX-License-Identifier: Apache-2.0
"""The clerk's reads from and writes to Airflow's metadata database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from airflow.jobs.job import Job
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, select, update

from airflow_dispatch_provider.bridge import task_instances
from airflow_dispatch_provider.bridge.airflow_api import hostname
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.dispatch.clerk import AirflowDatabase
from airflow_dispatch_provider.lifecycle.states import GONE, Row, RowState

from ..database import stored

MINE, OTHER = 41, 42
OURS = AirflowDatabase(MINE, silence=20.0)
LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
def ids(database: str) -> Iterator[dict[str, Any]]:
    """One task instance of each kind, by name; nothing has a foreign key to a scheduler's job here."""
    names = ("queued", "another's", "running", "runs for another", "runs elsewhere", "over", "again")
    with create_session() as session:
        found = {name: UUID(str(ti.id)) for name, ti in zip(names, stored(session), strict=False)}
        job = {"queued_by_job_id": MINE, "queued_dttm": LONG_AGO, "last_heartbeat_at": None}
        rows = {
            "queued": {**job, "state": "queued"},
            "another's": {**job, "state": "queued", "queued_by_job_id": OTHER},
            "running": {**job, "state": "running", "last_heartbeat_at": LONG_AGO},
            "runs for another": {
                **job,
                "state": "running",
                "last_heartbeat_at": LONG_AGO,
                "queued_by_job_id": OTHER,
                "hostname": hostname(),
            },
            "runs elsewhere": {
                **job,
                "state": "running",
                "last_heartbeat_at": LONG_AGO,
                "queued_by_job_id": OTHER,
                "hostname": "elsewhere",
            },
            "over": {**job, "state": "success"},
            "again": {**job, "state": "queued", "queued_dttm": datetime.now(UTC) + timedelta(seconds=60)},
        }
        for name, values in rows.items():
            session.execute(
                update(TaskInstance).where(TaskInstance.id == _id(session, found[name])).values(**values)
            )
    return found


def _id(session: Any, ti_id: UUID) -> Any:
    """As this version keeps it."""
    return next(ti.id for ti in stored(session) if str(ti.id) == str(ti_id))


def state_of(ti_id: UUID) -> tuple[Any, Any, Any]:
    with create_session() as session:
        columns = TaskInstance.state, TaskInstance.queued_by_job_id, TaskInstance.try_number
        return tuple(session.execute(select(*columns).where(TaskInstance.id == _id(session, ti_id))).one())


def test_look_up(ids):
    """State, owner, and since when its process is silent; what there is no row of is gone."""
    rows = OURS.look_up({**ids, "deleted": uuid4()})
    assert rows["deleted"] == GONE
    assert {name: row.state for name, row in rows.items()} == {
        "queued": RowState.QUEUED,
        "another's": RowState.QUEUED,
        "running": RowState.RUNNING,
        "runs for another": RowState.RUNNING,
        "runs elsewhere": RowState.RUNNING,
        "over": RowState.OVER,
        "again": RowState.QUEUED,
        "deleted": RowState.OVER,
    }
    assert [name for name, row in rows.items() if not row.mine] == [
        "another's",
        "runs for another",
        "runs elsewhere",
    ]
    assert [name for name, row in rows.items() if row.here] == ["runs for another"]
    assert 3600 <= rows["running"].silent < 2 * 3600


def test_put_back_in_place(ids):
    """To scheduled, with the same try; neither another's, nor what runs, nor what was queued again."""
    tries = {name: state_of(ti_id)[2] for name, ti_id in ids.items()}
    OURS.put_back(ids, time.time())
    states = {name: state_of(ti_id) for name, ti_id in ids.items()}
    assert {name: state for name, (state, _, _) in states.items()} == {
        "queued": "scheduled",
        "another's": "queued",
        "running": "running",
        "runs for another": "running",
        "runs elsewhere": "running",
        "over": "success",
        "again": "queued",
    }
    assert states["queued"][1] is None
    assert {name: number for name, (_, _, number) in states.items()} == tries


def test_restart_what_ran_for_us_and_is_silent(ids):
    """Airflow runs it anew, as a try of its own, once; whatever else there is stays as it is."""
    others = {name: state_of(ti_id) for name, ti_id in ids.items() if name != "running"}
    with create_session() as session:
        task = next(ti.task_id for ti in stored(session) if str(ti.id) == str(ids["running"]))
    OURS.restart(ids)
    OURS.restart(ids)
    with create_session() as session:
        rows = [ti for ti in stored(session) if ti.task_id == task]
        assert [(ti.state, ti.queued_by_job_id) for ti in rows if str(ti.id) != str(ids["running"])] == [
            (None, None)
        ]
        if AIRFLOW_V_3_4_PLUS:  # which keeps the try that was cut off in the same table
            table = TaskInstance.__table__
            session.execute(delete(table).where(table.c.id == ids["running"]))
    assert {name: state_of(ids[name]) for name in others} == others


def test_unstart_what_runs_and_is_silent(ids):
    """To scheduled, in the same try, if it runs for this scheduler, or on this host for whichever; whatever else there
    is stays as it is."""
    before = {name: state_of(ti_id) for name, ti_id in ids.items()}
    OURS.unstart(ids)
    after = {name: state_of(ti_id) for name, ti_id in ids.items()}
    for name in ("running", "runs for another"):
        assert after.pop(name) == ("scheduled", None, before.pop(name)[2])
    assert after == before


def test_what_has_a_heartbeat_is_not_set_back(ids):
    """Neither way."""
    with create_session() as session:
        beats = {"last_heartbeat_at": datetime.now(UTC) - timedelta(seconds=10)}
        mine = TaskInstance.id == _id(session, ids["running"])
        session.execute(update(TaskInstance).where(mine).values(**beats))
    before = state_of(ids["running"])
    OURS.unstart(ids)
    OURS.restart(ids)
    assert state_of(ids["running"]) == before


def test_refresh_touches_what_is_queued_and_ours(ids):
    """Another scheduler's rows are its own."""
    OURS.refresh(ids)
    with create_session() as session:
        late = {str(ti.id) for ti in stored(session) if ti.queued_dttm is None or ti.queued_dttm <= LONG_AGO}
    assert {name for name, ti_id in ids.items() if str(ti_id) not in late} == {"queued", "again"}


def test_row_of_another_scheduler(ids):
    """It is not ours, whatever its state."""
    assert OURS.look_up(ids)["another's"] == Row(RowState.QUEUED, mine=False, silent=float("inf"))


def test_a_locked_row_is_left_for_the_next_time(ids):
    """The refresh waits for no other transaction."""
    with create_session() as session:
        if session.get_bind().dialect.name == "sqlite":
            pytest.skip("SQLite has no row locks")
    with create_session(scoped=False) as other:
        other.execute(
            update(TaskInstance)
            .where(TaskInstance.id == _id(other, ids["queued"]))
            .values(priority_weight=7)
            .execution_options(synchronize_session=False)
        )
        OURS.refresh(ids)
        other.rollback()
    with create_session() as session:
        refreshed = {str(ti.id) for ti in stored(session) if ti.queued_dttm and ti.queued_dttm > LONG_AGO}
    assert {name for name, ti_id in ids.items() if str(ti_id) in refreshed} == {"again"}


@pytest.mark.usefixtures("database")
def test_schedulers_that_live():
    """Those that have sent a heartbeat lately, and in any case this one."""
    now = datetime.now(UTC)
    kinds = {
        "lives": ("SchedulerJob", "running", now),
        "silent": ("SchedulerJob", "running", LONG_AGO),
        "ended": ("SchedulerJob", "success", now),
        "no scheduler": ("TriggererJob", "running", now),
    }
    with create_session() as session:
        jobs = {name: Job() for name in kinds}
        for name, (job_type, state, beat) in kinds.items():
            jobs[name].job_type, jobs[name].state, jobs[name].latest_heartbeat = job_type, state, beat
        session.add_all(jobs.values())
        session.flush()
        ids = {name: str(job.id) for name, job in jobs.items()}
    found = OURS.living()
    assert {ids["lives"], str(MINE)} <= found
    assert not {ids["silent"], ids["ended"], ids["no scheduler"]} & found
    with create_session() as session:
        session.execute(delete(Job))


def test_a_copy_leads_to_its_dag_and_its_run_while_an_executor_is_asked_about_it(ids: dict[str, Any]) -> None:
    """Some make the task's workload anew to adopt it. What they change is not written."""
    with create_session() as session:
        copies = [task_instances.detached(ti) for ti in stored(session)[:2]]
    for _ in range(2):
        with task_instances.attached([*copies, copies[0], object()]):
            assert {ti.dag_model.dag_id for ti in copies} == {ti.dag_run.dag_id for ti in copies}
            copies[0].external_executor_id = "changed"
    with create_session() as session:
        assert {ti.external_executor_id for ti in stored(session)} == {None}
