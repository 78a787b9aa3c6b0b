# SPDX-License-Identifier: Apache-2.0
"""The tables of status and orders, in the databases that Airflow supports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import func, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError
from unit.operate.documents import backend, document

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.manager import DispatchDBManager
from airflow_dispatch_provider.bridge.database.tables import MANAGER, OrderRow, StatusRow, TablesMissing
from airflow_dispatch_provider.bridge.event_log import order_row
from airflow_dispatch_provider.bridge.histories import find_try, missing
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.operate.changes import read_changes
from airflow_dispatch_provider.operate.documents import read
from airflow_dispatch_provider.operate.status import read_status
from airflow_dispatch_provider.operate.waiting import read_waiting
from tests.integration.database import DAG_ID, databases, run

pytestmark = pytest.mark.parametrize(
    "database", databases("sqlite", "postgres", "mysql"), indirect=True, scope="session"
)
BASE = "base"


@pytest.fixture
def migrated(database: str) -> Iterator[None]:
    """As ``airflow db migrate`` leaves it; without what the executors of other tests have written."""
    if not tables.exist():
        with create_session() as session:
            DispatchDBManager(session).upgradedb()
    tables.forget(time.time() + 1e9)
    yield
    tables.forget(time.time() + 1e9)


def test_airflows_own_migration_makes_them(database):
    """From Airflow 3.2 on it finds them by itself; before, one option names them."""
    if not AIRFLOW_V_3_2_PLUS:
        run(database, "db migrate", AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS=MANAGER)
    assert tables.exist()


def test_a_status_is_replaced(migrated):
    """One row for each scheduler, whatever is in it; the old ones go."""
    tables.write_status(StatusRow("1 DispatchExecutor", "", 100.0, "{}"))
    tables.write_status(StatusRow("1 DispatchExecutor", "", 200.0, "\N{SNOWMAN}" * 100_000))
    tables.write_status(StatusRow("2 DispatchExecutor", "blue", 150.0, "{}"))
    assert [(row.scheduler_id, row.team) for row in tables.read_statuses(0)] == [
        ("1 DispatchExecutor", ""),
        ("2 DispatchExecutor", "blue"),
    ]
    assert len(tables.read_statuses(0)[0].document) == 100_000
    assert [row.written for row in tables.read_statuses(151)] == [200.0]
    tables.forget(151)
    assert [row.written for row in tables.read_statuses(0)] == [200.0]


def test_what_is_written_is_read(migrated):
    """By the questions of operators, with the order about it."""
    tables.write_status(document("7", written=time.time(), backends=[backend("a", used=3)]))
    given(order("a", "drain"))
    status = read_status()
    assert [(each.id, each.lives) for each in status.schedulers] == [("7", False)]
    assert status.problem.startswith("No scheduler lives")
    assert [each.backend for each in read().orders] == ["a"]
    assert read_waiting().tasks == []


def order(backend: str, command: str = "cordon", until: float | None = None) -> OrderRow:
    return OrderRow("", backend, command, "ann", "it's \N{SNOWMAN} <b>", 1.5, until)


def audit() -> Any:
    return order_row("cordon", "ann", {"backend": "a"})


def given(row: OrderRow) -> None:
    tables.enter_order(row, audit())


def found(now: float = 0) -> dict[str, str]:
    """The command in force by backend."""
    return {row.backend: row.command for row in tables.read_orders(now)}


def test_orders_are_replaced_and_run_out(migrated):
    """Names that differ by case are two; what is over is not in force."""
    long = "x" * 250
    for row in (order("a"), order("A", "drain"), order("b", until=50.0), order(long)):
        given(row)
    given(order("a", "drain"))
    assert {row.reason for row in tables.read_orders(0)} == {"it's \N{SNOWMAN} <b>"}
    assert found(49) == {"a": "drain", "A": "drain", "b": "cordon", long: "cordon"}
    assert "b" not in found(51)
    tables.forget(51)
    assert "b" not in found(49)
    for name in ("a", "A", "b", long):
        tables.take_back("", name, 1.0, audit())
    assert found() == {}


def test_of_orders_at_the_same_time_one_is_in_force(migrated):
    """Whoever gives them; each is in the event log."""
    people, rounds = 4, 5
    barrier = Barrier(people)

    def give(person: int) -> None:
        for _ in range(rounds):
            barrier.wait(60)
            given(order("a", "drain" if person % 2 else "cordon")._replace(given_by=str(person)))

    before = audited()
    with ThreadPoolExecutor(people) as pool:
        for done in [pool.submit(give, person) for person in range(people)]:
            done.result()
    (row,) = tables.read_orders(0)
    assert row.command == ("drain" if int(row.given_by) % 2 else "cordon")
    assert audited() - before == people * rounds


def test_no_statement_enters_a_second_order(migrated):
    """The database itself keeps it out."""
    given(order("a"))
    with pytest.raises(IntegrityError), create_session() as session:
        session.execute(insert(tables.ORDER).values({**order("a", "drain")._asdict(), "lasts": True}))
    assert found() == {"a": "cordon"}


def test_what_is_done_once_stands_beside_what_lasts(migrated):
    """Another of its kind takes its place, and neither takes back the other."""
    for row in (order("a", "drain"), order("a", "recall", 60.0), order("a", "recall", 70.0)):
        given(row)
    assert sorted((row.command, row.until) for row in tables.read_orders(0)) == [
        ("drain", None),
        ("recall", 70.0),
    ]
    tables.take_back("", "a", 1.0, audit())
    assert found() == {"a": "recall"}


def test_changes_of_a_team_are_not_hidden_by_those_of_others(migrated):
    """The event log is read page by page, also where many rows have one time, until an answer is full or it is out of
    rows; none is told twice."""
    at = datetime.now(UTC) + timedelta(days=1)
    teams = ["red"] * 3 + ["blue"] * 450 + ["red"] * 2
    with create_session() as session:
        for index, team in enumerate(teams):
            row = order_row("drain", "ann", {"backend": f"b{index}", "team": team})
            row.dttm = at + timedelta(seconds=index // 250)
            session.add(row)
            session.flush()
    found = read_changes(at, lambda team: team == "red")
    assert [change.backend for change in found] == ["b454", "b453", "b2", "b1", "b0"]
    blue = read_changes(at, lambda team: team == "blue")
    assert [change.backend for change in blue] == [f"b{index}" for index in range(452, 252, -1)]
    assert read_changes(at + timedelta(days=1), lambda team: True) == []


def audited() -> int:
    from airflow.models.log import Log

    with create_session() as session:
        return session.scalar(select(func.count()).select_from(Log).where(Log.event == "dispatch_cordon"))


def by_airflow(manager: DispatchDBManager) -> None:
    """Which makes them as they are declared, where there are none."""
    manager.upgradedb()


def step_by_step(manager: DispatchDBManager) -> None:
    from alembic import command

    command.upgrade(manager.get_alembic_config(), "heads")


@pytest.mark.parametrize("upgrade", [by_airflow, step_by_step])
def test_down_and_up_again(migrated, upgrade):
    """Without them each call says what to run; a migration brings them back, as they are declared."""
    with create_session() as session:
        DispatchDBManager(session).downgrade(BASE)
    for call in (lambda: tables.read_orders(0), lambda: tables.read_statuses(0)):
        with pytest.raises(TablesMissing, match="airflow db migrate"):
            call()
    with create_session() as session:
        manager = DispatchDBManager(session)
        upgrade(manager)
        assert manager.check_migration()
        assert differences(session) == []
        key = inspect(session.connection()).get_pk_constraint("dispatch_order")
        assert key["constrained_columns"] == ["team", "backend", "lasts"]


def differences(session):
    """Between the migrations and the declared tables."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    ours = {table.name for table in tables.METADATA.tables.values()}
    options = {
        "include_object": lambda thing, name, kind, *_: kind != "table" or name in ours,
        "compare_type": True,
    }
    context = MigrationContext.configure(session.connection(), opts=options)
    return compare_metadata(context, tables.METADATA)


def test_a_try_with_its_rows(migrated):
    """Found by its names, on every version; another try and another task are none of its."""
    with create_session() as session:
        ti = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == DAG_ID)).first()
        dag_id, run_id, task_id, try_number = ti.dag_id, ti.run_id, ti.task_id, ti.try_number
        from airflow.models.log import Log

        session.add(Log(event="of_this_test", task_instance=ti, extra="{}"))
    found = find_try(dag_id, run_id, task_id)
    assert found is not None
    assert (found.try_number, found.queue) == (try_number, "b" if int(task_id[1:]) % 2 == 0 else "a")
    assert [event.event for event in found.events].count("of_this_test") == 1
    assert find_try(dag_id, run_id, task_id, try_number=try_number + 7) is None
    assert find_try(dag_id, run_id, "no such") is None
    assert missing("no such", run_id, task_id, -1, None) == "There is no Dag 'no such'."
    assert missing(dag_id, "none", task_id, -1, None) == f"Dag {dag_id!r} has no run 'none'."
    assert f"has no task {'no such'!r}" in missing(dag_id, run_id, "no such", -1, None)
    assert f"has had no try {try_number + 7} " in missing(dag_id, run_id, task_id, -1, try_number + 7)
    assert "is not mapped" in missing(dag_id, run_id, task_id, 3, None)
    _map(task_id, 2)
    assert "give a map index, from 2 to 2" in missing(dag_id, run_id, task_id, -1, None)
    _map(task_id, -1)


def _map(task_id: str, index: int) -> None:
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.task_id == task_id).values(map_index=index))


def test_an_order_in_the_event_log(migrated):
    """With who gave it; it belongs to no task."""
    from airflow.models.log import Log

    tables.take_back("", "a", 1.0, audit())
    with create_session() as session:
        row = session.scalars(
            select(Log).where(Log.event == "dispatch_cordon").order_by(Log.id.desc())
        ).first()
        assert (row.owner, row.extra, row.dag_id) == ("ann", '{"backend": "a"}', None)


def test_what_is_done_once_does_not_run_out(migrated):
    """No clock of a reader counts. It is forgotten in the end; its moment, by which it is known, is kept to the bit."""
    since = 1_700_000_000.123_456_7
    given(order("a", "recall", 60.0)._replace(since=since))
    (row,) = tables.read_orders(1e12)
    assert (row.command, row.since) == ("recall", since)
    tables.forget(61)
    assert found() == {}
