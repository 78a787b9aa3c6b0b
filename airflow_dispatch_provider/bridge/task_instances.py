# SPDX-License-Identifier: Apache-2.0
"""Task instances in Airflow's database, as far as executors change or ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from math import inf
from typing import Any, NamedTuple
from uuid import UUID

from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import inspect, or_, select, update
from sqlalchemy.orm import Session, lazyload, make_transient, make_transient_to_detached, object_session
from sqlalchemy.orm.attributes import set_committed_value

from airflow_dispatch_provider.bridge.airflow_api import hostname
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_4_PLUS

_BATCH = 900
"""Ids in one statement: older SQLite takes no more than 999 variables."""


def _update_free(session: Session, conditions: Iterable[Any], values: dict[str, Any]) -> None:
    """Change those rows that no other transaction has locked."""
    free = select(TaskInstance.id).where(*conditions).with_for_update(skip_locked=True)
    session.execute(
        update(TaskInstance)
        .where(TaskInstance.id.in_(list(session.scalars(free))))
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def reschedule_queued(ids: Iterable[UUID], before: float, queued_by: int) -> None:
    """Have Airflow schedule those again that are queued since before this time (POSIX seconds), as it does itself
    with tasks that are stuck in queued. Rows that another transaction has locked are left alone.

    :param queued_by: only those of this scheduler's job
    """
    for batch in _batches(ids):
        among = TaskInstance.id.in_(batch)
        queued = TaskInstance.state == TaskInstanceState.QUEUED
        late = TaskInstance.queued_dttm < datetime.fromtimestamp(before, UTC)
        owned = TaskInstance.queued_by_job_id == queued_by
        with create_session() as session:
            _update_free(session, (among, queued, late, owned), _scheduled())


def _scheduled() -> dict[str, Any]:
    """The row of a task that Airflow may queue again in the same try."""
    return {
        "state": TaskInstanceState.SCHEDULED,
        "scheduled_dttm": datetime.now(UTC),
        "queued_dttm": None,
        "queued_by_job_id": None,
        "external_executor_id": None,
    }


_here = cache(hostname)
"""Of this process; to find it out may take a question to a name server."""


class RowFacts(NamedTuple):
    """A row, as far as the life cycle asks for it."""

    state: str | None
    queued_by_job_id: int | None
    silent: float
    """Seconds since its process's last heartbeat, by the clock of this host; infinite if there was none."""

    is_here: bool = False
    """Its process runs, or ran last, on this host."""


def row_facts(ids: Iterable[UUID]) -> dict[UUID, RowFacts]:
    """Rows by id; those that are not there are left out. For threads: in a session of its own."""
    columns = (
        TaskInstance.id,
        TaskInstance.state,
        TaskInstance.queued_by_job_id,
        TaskInstance.last_heartbeat_at,
        TaskInstance.hostname,
    )
    here = _here()
    found: dict[UUID, RowFacts] = {}
    for batch in _batches(ids):
        with create_session(scoped=False) as session:
            rows = session.execute(select(*columns).where(TaskInstance.id.in_(batch))).all()
        now = datetime.now(UTC)
        for ti_id, state, job_id, beat, host in rows:
            silent = (now - beat).total_seconds() if beat is not None else inf
            found[UUID(str(ti_id))] = RowFacts(state, job_id, silent, host == here)
    return found


def refresh_queued(ids: Iterable[UUID], queued_by: int) -> None:
    """Move ``queued_dttm`` of those forward that are queued by this scheduler. Rows that another transaction has locked
    are left for the next time. For threads: in a session of its own."""
    for batch in _batches(ids):
        mine = (
            TaskInstance.id.in_(batch),
            TaskInstance.state == TaskInstanceState.QUEUED,
            TaskInstance.queued_by_job_id == queued_by,
        )
        with create_session(scoped=False) as session:
            _update_free(session, mine, {"queued_dttm": datetime.now(UTC)})


def is_running(ti: Any) -> bool:
    return ti.state in (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)


def load(tis: Sequence[Any]) -> None:
    """Load all columns of all of them in one SELECT, in the session that they come from: the scheduler defers most, and
    each would be one query later."""
    session = object_session(tis[0])
    if session is None:
        return
    ids = [ti.id for ti in tis]
    query = select(TaskInstance).options(lazyload(TaskInstance.dag_run)).where(TaskInstance.id.in_(ids))
    session.scalars(query.execution_options(populate_existing=True)).all()


def detached(ti: Any) -> Any:
    """A copy with all columns of a loaded task instance, which no session knows: to be read after that one's end."""
    mapper = inspect(TaskInstance)
    copy = mapper.class_manager.new_instance()
    for column in mapper.column_attrs:
        set_committed_value(copy, column.key, getattr(ti, column.key))
    return copy


@contextmanager
def attached(tis: Iterable[Any]) -> Iterator[None]:
    """Within it, what belongs to a copy that ``detached`` has made (its Dag, its run) is loaded where it is read, as in
    the scheduler's session. Nothing of it is written."""
    copies = {ti.id: ti for ti in tis if isinstance(ti, TaskInstance) and inspect(ti).transient}
    if not copies:
        yield
        return
    with create_session(scoped=False) as session:
        for copy in copies.values():
            make_transient_to_detached(copy)
        session.add_all(copies.values())
        try:
            with session.no_autoflush:
                yield
        finally:
            for copy in copies.values():
                make_transient(copy)


def restart_silent(ids: Iterable[UUID], queued_by: int, silence: float) -> None:
    """Have Airflow run those anew that run for this scheduler and whose processes have sent no heartbeat for so many
    seconds: a new try, as where no executor adopts a running task. For threads: in a session of its own."""
    for batch in _batches(ids):
        ours = (*_silent(batch, silence), TaskInstance.queued_by_job_id == queued_by)
        query = select(TaskInstance).options(lazyload(TaskInstance.dag_run)).where(*ours)
        with create_session(scoped=False) as session:
            for ti in session.scalars(query.with_for_update(skip_locked=True, of=TaskInstance)):
                _restart(ti, session)


def unstart_silent(ids: Iterable[UUID], queued_by: int, silence: float) -> None:
    """Have Airflow queue those again in the same try that run for this scheduler, or on this host for whichever, and
    whose processes have sent no heartbeat for so many seconds. Rows that another transaction has locked are left alone.
    For threads: in a session of its own."""
    ours = or_(TaskInstance.queued_by_job_id == queued_by, TaskInstance.hostname == _here())
    for batch in _batches(ids):
        with create_session(scoped=False) as session:
            _update_free(session, (*_silent(batch, silence), ours), _scheduled())


def _silent(batch: list[Any], silence: float) -> tuple[Any, ...]:
    return (
        TaskInstance.id.in_(batch),
        TaskInstance.state.in_((TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)),
        TaskInstance.last_heartbeat_at < datetime.now(UTC) - timedelta(seconds=silence),
    )


def _restart(ti: Any, session: Session) -> None:
    """``SchedulerJobRunner.adopt_or_reset_orphaned_tasks``, for one that is reset."""
    successor = ti.prepare_db_for_next_try(session=session)
    ti = successor if AIRFLOW_V_3_4_PLUS else ti
    ti.state = ti.queued_by_job_id = ti.external_executor_id = None
    ti.clear_next_method_args()


def _batches(ids: Iterable[UUID]) -> Iterator[list[Any]]:
    """As many as one statement takes, as the database keeps them."""
    remaining = map(_stored_id, ids)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _stored_id(ti_id: UUID) -> Any:
    """Airflow 3.1 keeps ids as text."""
    return ti_id if AIRFLOW_V_3_2_PLUS else str(ti_id)
