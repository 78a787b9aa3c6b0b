# SPDX-License-Identifier: Apache-2.0
"""The tables ``dispatch_status`` and ``dispatch_order``, and the statements about them. For threads and commands: each
call has a session of its own.

Times are seconds since 1970 (UTC), so that they mean the same on every database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from airflow.configuration import conf
from airflow.utils.session import create_session
from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    inspect,
    or_,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.lifecycle.events import Command

MANAGER = "airflow_dispatch_provider.bridge.database.manager.DispatchDBManager"

ALL_TEAMS = ""
"""``team`` of what belongs to no team: a primary key has no NULL."""

LASTING = tuple(command.value for command in Command if command.lasts)
"""Commands that are in force until they are taken back; any other one is done once."""


def _name(length: int) -> Any:
    """Names that differ by case are different ones; MySQL compares them without, unless it is told."""
    return String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql")


def _text() -> Any:
    """As long as it needs to be: ``TEXT`` of MySQL ends at 64 kB."""
    return Text().with_variant(mysql.LONGTEXT(), "mysql")


METADATA = MetaData(schema=conf.get("database", "sql_alchemy_schema", fallback=None) or None)

STATUS = Table(
    "dispatch_status",
    METADATA,
    Column("scheduler_id", _name(250), primary_key=True),
    Column("team", _name(100), nullable=False),
    Column("written", Float(53), nullable=False),
    Column("document", _text(), nullable=False),
)
"""One row for each scheduler and executor of it. ``document`` is JSON: see ``dispatch.report``."""

ORDER = Table(
    "dispatch_order",
    METADATA,
    Column("number", Integer(), primary_key=True, autoincrement=True),
    Column("team", _name(100), nullable=False),
    Column("backend", _name(250), nullable=False),
    Column("command", _name(16), nullable=False),
    Column("given_by", _name(250), nullable=False),
    Column("reason", _text(), nullable=False),
    Column("since", Float(53), nullable=False),
    Column("until", Float(53), nullable=True),
)
"""Orders in force, one row for each backend, and besides those that are done once, until every scheduler has done them.
What was taken back is in Airflow's event log alone."""


class TablesMissing(DispatchError):
    """The migration has not been run."""

    def __init__(self) -> None:
        before = "" if AIRFLOW_V_3_2_PLUS else f"set [database] external_db_managers = {MANAGER} and "
        super().__init__(
            "The database has no tables of this package, so that no status is written and no order can be given:"
            f" {before}run airflow db migrate."
        )


class StatusRow(NamedTuple):
    """One row of ``dispatch_status``."""

    scheduler_id: str
    team: str
    written: float
    document: str


class OrderRow(NamedTuple):
    """One row of ``dispatch_order``."""

    number: int
    team: str
    backend: str
    command: str
    given_by: str
    reason: str
    since: float
    until: float | None


@contextmanager
def _session() -> Iterator[Session]:
    """
    :raises TablesMissing: that is why a statement has failed
    """
    try:
        with create_session(scoped=False) as session:
            yield session
    except DBAPIError:
        if not exist():
            raise TablesMissing from None
        raise


def exist() -> bool:
    """Whether the tables are there."""
    with create_session(scoped=False) as session:
        there = inspect(session.connection())
        return all(there.has_table(table.name, schema=METADATA.schema) for table in (STATUS, ORDER))


def write_status(row: StatusRow) -> None:
    """Replace the row of a scheduler, in one statement."""
    values = row._asdict()
    with _session() as session:
        session.execute(_upsert(session.get_bind().dialect.name)(values))


def _upsert(dialect: str) -> Callable[[dict[str, Any]], Any]:
    changing = ("team", "written", "document")
    if dialect == "mysql":

        def replace(values: dict[str, Any]) -> Any:
            statement = mysql.insert(STATUS).values(values)
            return statement.on_duplicate_key_update({key: values[key] for key in changing})

        return replace
    dialects: dict[str, Any] = {"postgresql": postgresql, "sqlite": sqlite}

    def upsert(values: dict[str, Any]) -> Any:
        statement = dialects[dialect].insert(STATUS).values(values)
        return statement.on_conflict_do_update(
            index_elements=[STATUS.c.scheduler_id], set_={key: values[key] for key in changing}
        )

    return upsert


def read_statuses(since: float) -> list[StatusRow]:
    """Those that were written since, by scheduler."""
    query = select(STATUS).where(STATUS.c.written >= since).order_by(STATUS.c.scheduler_id)
    with _session() as session:
        return [StatusRow(*row) for row in session.execute(query)]


def forget(before: float) -> None:
    """Delete the rows of schedulers that have not written since, and the orders that had run out by then."""
    with _session() as session:
        session.execute(delete(STATUS).where(STATUS.c.written < before))
        session.execute(delete(ORDER).where(ORDER.c.until < before))


def read_orders(now: float) -> list[OrderRow]:
    """Those in force, the oldest first."""
    in_force = or_(ORDER.c.until.is_(None), ORDER.c.until > now)
    with _session() as session:
        return [
            OrderRow(*row) for row in session.execute(select(ORDER).where(in_force).order_by(ORDER.c.number))
        ]


def replace_orders(team: str, backend: str, new: OrderRow | None, audit: Any) -> list[OrderRow]:
    """Take back what is in force about a backend, and enter another order, in one transaction.

    :param new: its number is not used
    :param audit: the row about it for Airflow's event log
    :returns: what was taken back
    """
    about = (ORDER.c.team == team, ORDER.c.backend == backend, ORDER.c.command.in_(LASTING))
    with _session() as session:
        session.add(audit)
        before = [OrderRow(*row) for row in session.execute(select(ORDER).where(*about))]
        session.execute(delete(ORDER).where(*about))
        if new is not None:
            session.execute(_entered(new))
    return before


def add_order(new: OrderRow, audit: Any) -> None:
    """Enter one beside those about the same backend.

    :param new: its number is not used
    :param audit: as for ``replace_orders``
    """
    with _session() as session:
        session.add(audit)
        session.execute(_entered(new))


def _entered(new: OrderRow) -> Any:
    values = new._asdict()
    del values["number"]
    return insert(ORDER).values(values)
