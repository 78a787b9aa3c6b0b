# SPDX-License-Identifier: Apache-2.0
"""The router's reads from and writes to Airflow's metadata database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import delete, event, select, update

from airflow_dispatch_provider.bridge.event_log import owners
from airflow_dispatch_provider.bridge.task_instances import open_among, reschedule_queued

from ..database import TASKS, as_the_scheduler_offers_them, save_event_log, stored, workload_of

ROUTES = [{"queue": "a", "to": ["a"]}, {"queue": "b", "to": ["b"]}]


@pytest.fixture
def clean(database: str) -> Iterator[None]:
    """All task instances QUEUED an hour ago, no event log."""
    with create_session() as session:
        session.execute(delete(Log))
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(TaskInstance).values(state="queued", queued_dttm=hour_ago, try_number=1))
    return


@pytest.fixture
def router(make_router: Callable[..., Any]) -> Any:
    return make_router({"a": 8, "b": 8}, routes=ROUTES)


def dispatch_all(router: Any) -> None:
    """Queue and dispatch every stored task instance, and let the real scheduler code save the event log."""
    with create_session() as session:
        for ti in stored(session):
            router.queue_workload(workload_of(ti), session)
    router.heartbeat()
    save_event_log(router)


def child(router: Any, name: str) -> Any:
    return router._router.backends[name].executor


@pytest.mark.usefixtures("clean")
def test_the_scheduler_saves_every_row_of_the_event_log(router):
    """On each Airflow version the scheduler's own method writes what the router recorded."""
    dispatch_all(router)
    with create_session() as session:
        rows = session.execute(select(Log.task_id, Log.extra).where(Log.event == "dispatched")).all()
    assert len(rows) == TASKS
    assert {(task_id, json.loads(extra)["backend"]) for task_id, extra in rows} == {
        (f"t{number}", "a" if number % 2 else "b") for number in range(TASKS)
    }


@pytest.mark.usefixtures("clean")
def test_the_owner_is_the_backend_of_the_last_dispatch(router):
    """The newest row of a try counts; tries without a row have no owner."""
    dispatch_all(router)
    dispatch_all(router)
    with create_session() as session:
        tis = stored(session)
        found = owners(session, tis)
        assert {ti.task_id: found[ti.id] for ti in tis} == {
            f"t{number}": "a" if number % 2 else "b" for number in range(TASKS)
        }


@pytest.mark.usefixtures("clean")
def test_a_new_scheduler_asks_the_backend_that_had_the_task(router, make_router):
    """Adoption goes by the event log: also after the routes were changed."""
    dispatch_all(router)
    successor = make_router({"a": 8, "b": 8}, routes=[{"queue": "*", "to": ["a"]}])
    with create_session() as session:
        tis = as_the_scheduler_offers_them(session)
        child(successor, "b").adoptable = {ti.id for ti in tis}
        rejected = successor.try_adopt_task_instances(tis)
        assert {ti.queue for ti in rejected} == {"a"}
        assert all(any(ti is offered for offered in tis) for ti in rejected)
    assert (successor._router.ledger.load("a"), successor._router.ledger.load("b")) == (0, TASKS // 2)


@pytest.mark.usefixtures("clean")
def test_a_scheduler_is_offered_its_own_tasks(make_router):
    """Its heartbeat was late, and it is taken for dead: what it has dispatched and what it holds stay as they are."""
    router = make_router({"a": 1, "b": 8}, routes=ROUTES)
    dispatch_all(router)
    held = router._router.held
    with create_session() as session:
        assert list(router.try_adopt_task_instances(as_the_scheduler_offers_them(session))) == []
    assert (held, router._router.held) == (TASKS // 2 - 1,) * 2
    assert (router._router.ledger.load("a"), router._router.ledger.load("b")) == (1, TASKS // 2)


@pytest.mark.usefixtures("clean")
def test_a_queued_task_without_a_row_was_only_held(router):
    """Nobody is asked, and it is scheduled again at once."""
    with create_session() as session:
        tis = as_the_scheduler_offers_them(session)
        child(router, "a").adoptable = child(router, "b").adoptable = {ti.id for ti in tis}
        assert len(router.try_adopt_task_instances(tis)) == TASKS
    assert "try_adopt_task_instances" not in child(router, "a").calls


@pytest.mark.usefixtures("clean")
def test_a_running_task_without_a_row_is_offered_to_all(router):
    """It was certainly sent, so every backend is asked before it is given up."""
    with create_session() as session:
        session.execute(update(TaskInstance).values(state="running"))
        tis = as_the_scheduler_offers_them(session)
        wanted = next(ti for ti in tis if ti.queue == "b")
        child(router, "a").adoptable = {wanted.id}
        rejected = router.try_adopt_task_instances(tis)
        assert wanted not in rejected
        assert len(rejected) == TASKS - 1
    assert child(router, "b").calls.count("try_adopt_task_instances") == TASKS


@pytest.mark.usefixtures("clean")
def test_a_backend_whose_server_is_away_adopts_what_it_can(router, make_router):
    """Its circuit is open for what it says of itself: nothing is scheduled again that it can wait for."""
    dispatch_all(router)
    successor = make_router({"a": 8, "b": 8}, routes=ROUTES)
    child(successor, "b").problem = "the broker refuses connections"
    successor.heartbeat()
    with create_session() as session:
        tis = as_the_scheduler_offers_them(session)
        child(successor, "a").adoptable = child(successor, "b").adoptable = {ti.id for ti in tis}
        assert list(successor.try_adopt_task_instances(tis)) == []
    assert successor._router.ledger.load("b") == TASKS // 2


@pytest.mark.usefixtures("clean")
def test_a_backend_that_cannot_be_asked_keeps_what_runs(router, make_router, monkeypatch):
    """Running ones are kept, queued ones scheduled again; when it is back, it is asked about the former."""
    dispatch_all(router)
    successor = make_router({"a": 8, "b": 8}, routes=ROUTES, retry_min_delay="0.001", retry_max_delay="0.001")
    child(successor, "b").failing["try_adopt_task_instances"] = ConnectionError("no broker")
    with create_session() as session:
        running = session.scalar(select(TaskInstance.id).where(TaskInstance.task_id == "t0"))
        session.execute(update(TaskInstance).where(TaskInstance.id == running).values(state="running"))
        tis = as_the_scheduler_offers_them(session)
        rejected = successor.try_adopt_task_instances(tis)
        assert running not in {ti.id for ti in rejected}
        assert len(rejected) == TASKS - 1
    assert successor._router.ledger.load("b") == 1
    child(successor, "b").failing.clear()
    child(successor, "b").adoptable = {running}
    while "heartbeat" not in child(successor, "b").calls:
        successor.heartbeat()
    assert child(successor, "b").calls.count("try_adopt_task_instances") == 2
    assert successor._unasked == {}


@pytest.mark.usefixtures("clean")
def test_adoption_costs_two_queries_however_many_tasks(router):
    """Columns that the scheduler did not load come in one SELECT, the owners in another."""
    with create_session() as session:
        tis = as_the_scheduler_offers_them(session)
        statements: list[str] = []
        engine = session.get_bind()
        listen = lambda conn, cursor, statement, *rest: statements.append(statement)  # noqa: E731
        event.listen(engine, "before_cursor_execute", listen)
        router.try_adopt_task_instances(tis)
        event.remove(engine, "before_cursor_execute", listen)
    assert len(statements) == 2, statements


@pytest.mark.usefixtures("clean")
def test_held_tasks_are_kept_from_looking_stuck(make_router, monkeypatch):
    """queued_dttm of what is held moves with the time; that of what was dispatched does not."""
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "4")
    router = make_router({"a": 1, "b": 8}, routes=ROUTES)
    with create_session() as session:
        for ti in stored(session):
            router.queue_workload(workload_of(ti), session)
    router.heartbeat()
    for held in router._router.holding.held:
        held.since -= 10
    router._keepalive._due = 0.0
    router.heartbeat()
    with create_session() as session:
        recent = datetime.now(UTC) - timedelta(minutes=1)
        refreshed = {ti.task_id for ti in stored(session) if ti.queued_dttm > recent}
    held_ids = {held.workload.ti.task_id for held in router._router.holding.held}
    assert len(held_ids) == TASKS // 2 - 1
    assert refreshed == held_ids


@pytest.mark.usefixtures("clean")
def test_a_finished_task_that_was_held_is_left_alone(make_router):
    """Only task instances that are still QUEUED are refreshed."""
    router = make_router({"a": 1, "b": 1}, routes=ROUTES)
    with create_session() as session:
        session.execute(update(TaskInstance).values(state=TaskInstanceState.SUCCESS))
        router._keepalive.refresh(1e9, lambda time: [ti.id for ti in stored(session)])
        assert {ti.queued_dttm for ti in stored(session)} == {stored(session)[0].queued_dttm}


@pytest.mark.usefixtures("clean")
def test_which_tasks_a_worker_has_or_may_get():
    """Ended and unknown ones are not among them, whatever type of id the version stores."""
    with create_session() as session:
        tis = stored(session)
        for ti, state in zip(tis, ("success", "running", "deferred", None), strict=False):
            session.execute(update(TaskInstance).where(TaskInstance.id == ti.id).values(state=state))
        ids = [UUID(str(ti.id)) for ti in tis]
    assert open_among([*ids, UUID(int=1)]) == {ids[1], *ids[4:]}


@pytest.mark.usefixtures("clean")
def test_lost_tasks_are_scheduled_again():
    """Those that are still queued, since before that time; what a worker has, or another scheduler, is left alone."""
    now = datetime.now(UTC)
    with create_session() as session:
        tis = stored(session)
        ids = [UUID(str(ti.id)) for ti in tis]
        session.execute(update(TaskInstance).values(queued_by_job_id=None, external_executor_id="x"))
        for ti, values in zip(
            tis, ({"state": "running"}, {"state": "success"}, {"queued_dttm": now}), strict=False
        ):
            session.execute(update(TaskInstance).where(TaskInstance.id == ti.id).values(**values))
    assert reschedule_queued([*ids, UUID(int=1)], now.timestamp() - 60) == set(ids[3:])
    with create_session() as session:
        found = {
            UUID(str(ti.id)): (ti.state, ti.queued_dttm, ti.external_executor_id) for ti in stored(session)
        }
    assert {found[ti_id] for ti_id in ids[3:]} == {("scheduled", None, None)}
    assert [found[ti_id][0] for ti_id in ids[:3]] == ["running", "success", "queued"]
    assert {found[ti_id][2] for ti_id in ids[:3]} == {"x"}


@pytest.mark.usefixtures("clean")
def test_logs_come_from_the_owner_without_start(router, dispatch_config):
    """In the API server the executor is never started; the event log names the backend all the same."""
    from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor

    dispatch_all(router)
    unstarted = DispatchExecutor()
    with create_session() as session:
        ti = next(ti for ti in stored(session) if ti.queue == "b")
        backend = unstarted._log_backends.of(ti, None)
        assert backend.name == "b"
        assert unstarted.get_task_log(ti, 1) == ([], [])
    assert list(unstarted._log_backends._made) == ["b"]
