# SPDX-License-Identifier: Apache-2.0
"""The tables ``dispatch_status`` and ``dispatch_order``, and the statements about them. For threads and commands: each
call has a session of its own.

Times are seconds since 1970 (UTC), so that they mean the same on every database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from airflow.configuration import conf
from airflow.utils.session import create_session
from sqlalchemy import (
    Boolean,
    Column,
    Float,
    MetaData,
    String,
    Table,
    Text,
    delete,
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


MOST_IN_A_COLUMN = 2**31 - 1
"""Of an integer in any table of Airflow."""

LONGEST_NAME = 250
"""Characters of a name in the tables."""


def _name(length: int) -> Any:
    """Names that differ by case are different ones; MySQL compares them without, unless it is told."""
    return String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql")


def _text() -> Any:
    """As long as it needs to be: ``TEXT`` of MySQL ends at 64 kB."""
    return Text().with_variant(mysql.LONGTEXT(), "mysql")


def _seconds() -> Any:
    """With twice the precision of ``FLOAT``, under the name that each database gives back."""
    return Float(53).with_variant(mysql.DOUBLE(asdecimal=False), "mysql")


METADATA = MetaData(schema=conf.get("database", "sql_alchemy_schema", fallback=None) or None)

STATUS = Table(
    "dispatch_status",
    METADATA,
    Column("scheduler_id", _name(LONGEST_NAME), primary_key=True),
    Column("team", _name(100), nullable=False),
    Column("written", _seconds(), nullable=False),
    Column("document", _text(), nullable=False),
)
"""One row for each scheduler and executor of it. ``document`` is JSON: see ``dispatch.report``."""

ORDER = Table(
    "dispatch_order",
    METADATA,
    Column("team", _name(100), primary_key=True),
    Column("backend", _name(LONGEST_NAME), primary_key=True),
    Column("lasts", Boolean(), primary_key=True),
    Column("command", _name(16), nullable=False),
    Column("given_by", _name(LONGEST_NAME), nullable=False),
    Column("reason", _text(), nullable=False),
    Column("since", _seconds(), nullable=False),
    Column("until", _seconds(), nullable=True),
)
"""At most one order in force for each backend, whoever orders at the same time, and beside it the last one that is done
once: there is time enough for every scheduler to do it. What was replaced or taken back is in Airflow's event log
alone."""


class TablesMissing(DispatchError):
    """The migration has not been run."""

    def __init__(self) -> None:
        before = "" if AIRFLOW_V_3_2_PLUS else f"set [database] external_db_managers = {MANAGER} and "
        super().__init__(
            "The database has no tables of this package, so that no status is written and no order can be given:"
            f" {before}run airflow db migrate."
        )


class ReadOnly(DispatchError):
    """The database can only be read, as a replica."""

    def __init__(self) -> None:
        super().__init__(
            "The database can only be read here, so that no order can be given: it may be a replica. Give it where"
            " Airflow's schedulers write."
        )


class StatusRow(NamedTuple):
    """One row of ``dispatch_status``."""

    scheduler_id: str
    team: str
    written: float
    document: str


class OrderRow(NamedTuple):
    """One row of ``dispatch_order``."""

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
    :raises ReadOnly: or that
    """
    try:
        with create_session(scoped=False) as session:
            yield session
    except DBAPIError as error:
        if _is_read_only(error):
            raise ReadOnly from None
        if not exist():
            raise TablesMissing from None
        raise


_READ_ONLY_MYSQL = frozenset({1290, 1792, 1836})
"""``ER_OPTION_PREVENTS_STATEMENT``, ``ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION``, ``ER_READ_ONLY_MODE``."""


def _is_read_only(error: DBAPIError) -> bool:
    """As the drivers of each database say it."""
    cause: Any = error.orig
    state = getattr(cause, "pgcode", None) or getattr(cause, "sqlstate", None)
    if state is not None:
        return bool(state == "25006")  # read_only_sql_transaction
    first = cause.args[0] if cause is not None and cause.args else None
    return first in _READ_ONLY_MYSQL or "readonly database" in str(first)


def exist() -> bool:
    """Whether the tables are there."""
    with create_session(scoped=False) as session:
        there = inspect(session.connection())
        return all(there.has_table(table.name, schema=METADATA.schema) for table in (STATUS, ORDER))


def write_status(row: StatusRow) -> None:
    """Replace the row of a scheduler, in one statement."""
    with _session() as session:
        session.execute(_upsert(session, STATUS, row._asdict()))


def _upsert(session: Session, table: Table, values: dict[str, Any]) -> Any:
    """The statement that enters a row, or replaces the one with its key: never two, also where several do it at the
    same time."""
    keys = [column.name for column in table.primary_key]
    changing = {name: value for name, value in values.items() if name not in keys}
    dialect = session.get_bind().dialect.name
    if dialect == "mysql":
        return mysql.insert(table).values(values).on_duplicate_key_update(changing)
    dialects: dict[str, Any] = {"postgresql": postgresql, "sqlite": sqlite}
    statement = dialects[dialect].insert(table).values(values)
    return statement.on_conflict_do_update(index_elements=keys, set_=changing)


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
    """Those in force, the oldest first. One that is done once does not run out: no two clocks need agree about it, and
    whoever reads it knows whether it is done."""
    with _session() as session:
        return [OrderRow(*row) for row in session.execute(_in_force(now).order_by(ORDER.c.since))]


def enter_order(new: OrderRow, audit: Any) -> None:
    """In place of the one about the same backend: one that lasts of one that lasts, and else of one that is done once.

    :param audit: the row about it for Airflow's event log, entered in the same transaction
    :raises ReadOnly: nothing can be written here
    """
    with _session() as session:
        session.add(audit)
        session.execute(_upsert(session, ORDER, {**new._asdict(), "lasts": new.command in LASTING}))


def take_back(team: str, backend: str, now: float, audit: Any) -> OrderRow | None:
    """Take back what is in force about a backend; returns it, None: there was nothing, and nothing is audited.

    :param now: seconds since 1970
    :param audit: as for ``enter_order``
    :raises ReadOnly: nothing can be written here
    """
    about = (ORDER.c.team == team, ORDER.c.backend == backend, ORDER.c.lasts)
    with _session() as session:
        before = session.execute(_in_force(now).where(*about)).first()
        if before is not None:
            session.add(audit)
        session.execute(delete(ORDER).where(*about))
    return None if before is None else OrderRow(*before)


def _in_force(now: float) -> Any:
    columns = [ORDER.c[name] for name in OrderRow._fields]
    return select(*columns).where(or_(ORDER.c.until.is_(None), ORDER.c.until > now, ~ORDER.c.lasts))
