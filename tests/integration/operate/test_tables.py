# SPDX-License-Identifier: Apache-2.0
"""The tables of status and orders, in the databases that Airflow supports."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.manager import DispatchDBManager
from airflow_dispatch_provider.bridge.database.tables import MANAGER, OrderRow, StatusRow, TablesMissing
from airflow_dispatch_provider.bridge.event_log import audit_row
from airflow_dispatch_provider.bridge.histories import find_try
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from tests.integration.database import DAG_ID

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
        env = {**os.environ, "AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS": MANAGER}
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=env, check=True)
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


def order(backend: str, command: str = "cordon", until: float | None = None) -> OrderRow:
    return OrderRow(0, "", backend, command, "ann", "it's \N{SNOWMAN} <b>", 1.5, until)


def audit() -> Any:
    return audit_row("dispatch_cordon", "ann", {"backend": "a"})


def test_orders_are_replaced_and_run_out(migrated):
    """Names that differ by case are two; what is over is not in force."""
    for row in (order("a"), order("A", "drain"), order("b", until=50.0), order("x" * 250)):
        assert tables.replace_orders("", row.backend, row, audit()) == []
    (before,) = tables.replace_orders("", "a", order("a", "drain"), audit())
    assert (before.command, before.reason) == ("cordon", "it's \N{SNOWMAN} <b>")
    assert [(row.backend, row.command) for row in tables.read_orders(49)] == [
        ("A", "drain"),
        ("b", "cordon"),
        ("x" * 250, "cordon"),
        ("a", "drain"),
    ]
    assert "b" not in [row.backend for row in tables.read_orders(51)]
    tables.forget(51)
    assert "b" not in [row.backend for row in tables.read_orders(49)]
    for name in ("a", "A", "b", "x" * 250):
        tables.replace_orders("", name, None, audit())
    assert tables.read_orders(0) == []


def test_down_and_up_again(migrated):
    """Without them each call says what to run; a migration brings them back, as they are declared."""
    with create_session() as session:
        DispatchDBManager(session).downgrade(BASE)
    for call in (lambda: tables.read_orders(0), lambda: tables.read_statuses(0)):
        with pytest.raises(TablesMissing, match="airflow db migrate"):
            call()
    with create_session() as session:
        manager = DispatchDBManager(session)
        manager.upgradedb()
        assert manager.check_migration()
        assert differences(session) == []


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


def test_an_order_in_the_event_log(migrated):
    """With who gave it; it belongs to no task."""
    from airflow.models.log import Log

    tables.replace_orders("", "a", None, audit())
    with create_session() as session:
        row = session.scalars(
            select(Log).where(Log.event == "dispatch_cordon").order_by(Log.id.desc())
        ).first()
        assert (row.owner, row.extra, row.dag_id) == ("ann", '{"backend": "a"}', None)
