# SPDX-License-Identifier: Apache-2.0
"""The router's reads from and writes to Airflow's metadata database."""

from __future__ import annotations

import json
import threading
import time
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

from airflow_dispatch_provider.bridge.event_log import REFUSED_FILE, owners
from airflow_dispatch_provider.bridge.task_instances import reschedule_queued
from airflow_dispatch_provider.dispatch.api_probe import ApiProbe
from airflow_dispatch_provider.dispatch.clerk import AirflowDatabase, Clerk
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY
from tests.support import wait_until

from ..database import TASKS, as_the_scheduler_offers_them, save_event_log, stored, workload_of

ROUTES = [{"queue": "a", "to": ["a"]}, {"queue": "b", "to": ["b"]}]


@pytest.fixture
def clean(database: str) -> Iterator[None]:
    """All task instances QUEUED an hour ago, no event log."""
    with create_session() as session:
        session.execute(delete(Log))
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(
            update(TaskInstance).values(
                state="queued", queued_dttm=hour_ago, queued_by_job_id=1, try_number=1
            )
        )
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
    return router._backends[name].executor


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
def test_the_scheduler_saves_the_row_about_a_refused_file(make_router, tmp_path):
    """It belongs to no task, which the scheduler's own method takes on each Airflow version."""
    file = tmp_path / "dispatch.yaml"
    file.write_text(f"backends: {{a: {{executor: {IN_MEMORY}, slots: 1}}}}")
    router = make_router(None, config_file=str(file))
    file.write_text("backends: 7")
    beat(router)
    save_event_log(router)
    beat(router)
    save_event_log(router)
    with create_session() as session:
        ((dag_id, extra),) = session.execute(
            select(Log.dag_id, Log.extra).where(Log.event == REFUSED_FILE)
        ).all()
    assert (dag_id, json.loads(extra)["file"]) == (None, str(file))


@pytest.mark.usefixtures("clean")
def test_tasks_of_a_backend_that_the_adopter_does_not_know(router, make_router):
    """Its file has one backend less: what had not begun there is scheduled again in the same try, what runs is left to
    Airflow, and what the others have is adopted as ever."""
    dispatch_all(router)
    set_running("t1", "t2")
    child(router, "b").calls.clear()
    knows_less = make_router({"b": 8}, routes=[])
    child(knows_less, "b").adoptable |= ids()
    offer(knows_less)
    beat(knows_less)
    of_a = {f"t{number}" for number in range(TASKS) if number % 2}
    found = rows()
    assert {task for task, row in found.items() if row == ("scheduled", 1)} == of_a - {"t1"}
    assert (found["t1"], found["t2"]) == (("running", 1), ("running", 1))
    assert slots_used(knows_less) == {"b": TASKS - len(of_a)}


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


def slots_used(router: Any) -> dict[str, int]:
    return dict(router._loop.machine.slots_used)


def offer(router: Any, *tasks: str) -> None:
    """As the scheduler does it; the router takes over all that it is offered."""
    with create_session() as session:
        tis = [ti for ti in as_the_scheduler_offers_them(session) if not tasks or ti.task_id in tasks]
        assert list(router.try_adopt_task_instances(tis)) == []


def beat(router: Any, times: int = 6) -> None:
    for _ in range(times):
        router.heartbeat()


def rows() -> dict[str, tuple[Any, int]]:
    """State and try by task."""
    with create_session() as session:
        return {ti.task_id: (ti.state, ti.try_number) for ti in stored(session)}


def ids() -> set[Any]:
    with create_session() as session:
        return {ti.id for ti in stored(session)}


def set_running(*tasks: str) -> None:
    with create_session() as session:
        chosen = (
            update(TaskInstance).where(TaskInstance.task_id.in_(tasks)) if tasks else update(TaskInstance)
        )
        session.execute(chosen.values(state="running"))


@pytest.mark.usefixtures("clean")
def test_a_new_scheduler_asks_the_backend_that_had_the_task(router, make_router):
    """Adoption goes by the event log: also after the routes were changed. What nobody has is scheduled again in
    place: the same try, the same id."""
    dispatch_all(router)
    successor = make_router({"a": 8, "b": 8}, routes=[{"queue": "*", "to": ["a"]}])
    before = ids()
    child(successor, "b").adoptable = before
    offer(successor)
    beat(successor)
    assert slots_used(successor) == {"a": 0, "b": TASKS // 2}
    assert rows() == {f"t{n}": ("scheduled" if n % 2 else "queued", 1) for n in range(TASKS)}
    assert ids() == before


@pytest.mark.usefixtures("clean")
def test_a_scheduler_is_offered_its_own_tasks(make_router):
    """Its heartbeat was late, and it is taken for dead: what it has dispatched and what it holds stay as they are."""
    router = make_router({"a": 1, "b": 8}, routes=ROUTES)
    dispatch_all(router)
    held = router._loop.machine.held
    offer(router)
    beat(router)
    assert (held, router._loop.machine.held) == (TASKS // 2 - 1,) * 2
    assert slots_used(router) == {"a": 1, "b": TASKS // 2}
    assert {state for state, _ in rows().values()} == {"queued"}


@pytest.mark.usefixtures("clean")
def test_a_queued_task_without_a_row_was_only_held(router):
    """Nobody is asked, and it is scheduled again in place."""
    child(router, "a").adoptable = child(router, "b").adoptable = ids()
    offer(router)
    beat(router)
    assert set(rows().values()) == {("scheduled", 1)}
    assert "try_adopt_task_instances" not in child(router, "a").calls


@pytest.mark.usefixtures("clean")
def test_a_running_task_without_a_row_is_offered_to_all(router):
    """It was certainly sent, so every backend is asked before it is left to Airflow, which watches it."""
    set_running()
    with create_session() as session:
        wanted = next(ti.id for ti in stored(session) if ti.queue == "b")
    child(router, "a").adoptable = {wanted}
    offer(router)
    beat(router)
    assert slots_used(router) == {"a": 1, "b": 0}
    assert set(rows().values()) == {("running", 1)}
    assert "try_adopt_task_instances" in child(router, "b").calls


@pytest.mark.usefixtures("clean")
def test_a_backend_whose_server_is_away_keeps_what_runs(router, make_router):
    """Running ones keep their slot until it can be asked about them; queued ones are scheduled again in place."""
    dispatch_all(router)
    successor = make_router({"a": 8, "b": 8}, routes=ROUTES, retry_min_delay="0.001", retry_max_delay="0.001")
    child(successor, "b").failing["heartbeat"] = ConnectionError("the broker refuses connections")
    successor.heartbeat()
    child(successor, "a").adoptable = child(successor, "b").adoptable = ids()
    set_running("t0")
    offer(successor)
    beat(successor)
    assert slots_used(successor) == {"a": TASKS // 2, "b": 1}
    assert [task for task, (state, _) in rows().items() if state == "scheduled"] == [
        "t10",
        "t2",
        "t4",
        "t6",
        "t8",
    ]
    child(successor, "b").failing.clear()
    beat(successor)
    assert slots_used(successor) == {"a": TASKS // 2, "b": 1}
    assert child(successor, "b").calls.count("try_adopt_task_instances") == 1


@pytest.mark.usefixtures("clean")
def test_a_backend_that_raises_when_asked_is_asked_again(router, make_router):
    """When it works again; what it does not have after all frees its slot."""
    dispatch_all(router)
    successor = make_router({"a": 8, "b": 8}, routes=ROUTES, retry_min_delay="0.001", retry_max_delay="0.001")
    child(successor, "b").failing["try_adopt_task_instances"] = ConnectionError("no broker")
    set_running("t0", "t2")
    offer(successor)
    beat(successor)
    assert slots_used(successor)["b"] == TASKS // 2
    child(successor, "b").failing.clear()
    with create_session() as session:
        child(successor, "b").adoptable = {ti.id for ti in stored(session) if ti.task_id == "t0"}
    while slots_used(successor)["b"] > 1:
        successor.heartbeat()
    assert {task: rows()[task][0] for task in ("t0", "t2")} == {"t0": "running", "t2": "running"}


@pytest.mark.usefixtures("clean")
def test_adoption_costs_two_reads_however_many_tasks(router):
    """Columns that the scheduler did not load come in one SELECT, the owners in another: neither waits for a lock."""
    with create_session() as session:
        tis = as_the_scheduler_offers_them(session)
        statements: list[str] = []
        engine = session.get_bind()
        listen = lambda conn, cursor, statement, *rest: statements.append(statement)  # noqa: E731
        event.listen(engine, "before_cursor_execute", listen)
        router.try_adopt_task_instances(tis)
        event.remove(engine, "before_cursor_execute", listen)
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]
    assert not any("FOR UPDATE" in statement for statement in statements)


@pytest.mark.usefixtures("clean")
def test_no_statement_is_on_the_schedulers_thread(make_router):
    """From the queue to the end it would keep that from its heartbeat. They are all the clerk's and the desk's."""
    router = make_router(
        {"a": 2, "b": 8}, routes=ROUTES, clerk=Clerk(AirflowDatabase(1, 20.0), ApiProbe(lambda: None, 5.0))
    )
    with create_session() as session:
        tis = as_the_scheduler_offers_them(session)
        workloads = [workload_of(ti) for ti in stored(session)]
        statements: dict[str, list[str]] = {}

        def listen(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            statements.setdefault(threading.current_thread().name, []).append(statement.split()[0])

        event.listen(session.get_bind(), "before_cursor_execute", listen)
        try:
            for workload in workloads[:-1]:
                router.queue_workload(workload, session)
            router.heartbeat()
            child(router, "a").finish(workloads[1], success=False)
            router._loop.heartbeat(time.monotonic() + router._limits.refresh_every, {})
            wait_until(lambda: router.heartbeat() or "UPDATE" in statements.get("dispatch-clerk", ()))
            router.revoke_task(ti=tis[2])
            router.get_event_buffer()
            router.end()
        finally:
            event.remove(session.get_bind(), "before_cursor_execute", listen)
    assert set(statements) <= {"dispatch-clerk", "dispatch-desk"}


@pytest.mark.usefixtures("clean")
def test_held_tasks_are_kept_from_looking_stuck(make_router):
    """queued_dttm of what is held moves with the time; that of what was dispatched does not, nor that of what another
    scheduler has, or that is not queued any more."""
    router = make_router({"a": 1, "b": 8}, routes=ROUTES)
    with create_session() as session:
        for ti in stored(session):
            router.queue_workload(workload_of(ti, priority=9 if ti.task_id == "t1" else 1), session)
    beat(router)
    with create_session() as session:
        changed = update(TaskInstance)
        session.execute(changed.where(TaskInstance.task_id == "t3").values(queued_by_job_id=2))
        session.execute(changed.where(TaskInstance.task_id == "t5").values(state=TaskInstanceState.SUCCESS))
    router._loop.heartbeat(time.monotonic() + router._limits.refresh_every, {})
    with create_session() as session:
        recent = datetime.now(UTC) - timedelta(minutes=1)
        assert {ti.task_id for ti in stored(session) if ti.queued_dttm > recent} == {"t7", "t9", "t11"}


@pytest.mark.usefixtures("clean")
def test_lost_tasks_are_scheduled_again():
    """Those that are still queued, since before that time; what a worker has, or another scheduler, is left alone."""
    now = datetime.now(UTC)
    with create_session() as session:
        tis = stored(session)
        ids = [UUID(str(ti.id)) for ti in tis]
        session.execute(update(TaskInstance).values(queued_by_job_id=5, external_executor_id="x"))
        for ti, values in zip(
            tis, ({"state": "running"}, {"queued_by_job_id": 6}, {"queued_dttm": now}), strict=False
        ):
            session.execute(update(TaskInstance).where(TaskInstance.id == ti.id).values(**values))
    reschedule_queued([*ids, UUID(int=1)], now.timestamp() - 60, 5)
    with create_session() as session:
        found = {
            UUID(str(ti.id)): (ti.state, ti.queued_dttm, ti.external_executor_id) for ti in stored(session)
        }
    assert {found[ti_id] for ti_id in ids[3:]} == {("scheduled", None, None)}
    assert [found[ti_id][0] for ti_id in ids[:3]] == ["running", "queued", "queued"]
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
