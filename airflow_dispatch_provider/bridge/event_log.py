# SPDX-License-Identifier: Apache-2.0
"""The router's rows in Airflow's event log: written for the user, read after a crash."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import and_, or_, select, tuple_
from sqlalchemy.orm import object_session

from airflow_dispatch_provider.bridge.airflow_api import hostname
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.routing.model import Target
from airflow_dispatch_provider.routing.reasons import Reason

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

DISPATCHED = "dispatched"
"""``log.event`` of the row that says where a task went and why."""

REFUSED_FILE = "config_file_refused"
"""``log.event`` of the row, of no task, that says why a changed ``config_file`` is not in use."""

CHANGED_FILE = "config_file_changed"
"""``log.event`` of the row, of no task, that says what a changed ``config_file`` has changed."""

ORDERED = "dispatch_"
"""With a command: ``log.event`` of the row, of no task, that says who has ordered it."""

_LONGEST = 5_000
"""Characters of a detail: ``TEXT`` of MySQL ends at 64 kB, and a character takes up to 12 bytes of JSON. Airflow saves
all rows of a heartbeat or none."""

_PAGE = 200
"""Rows that are read at a time."""

_BATCH = 300
"""Keys in one query; SQLite takes no more than 32,766 variables, older ones 999."""


@lru_cache(maxsize=1024)
def dispatched_extra(target: Target, route: str, reason: Reason, ahead: bool = False) -> str:
    """``log.extra`` of a dispatch: a JSON object with ``backend``, ``route``, ``reason`` and ``detail``, and
    ``queue`` where the backend was told another one.

    :param ahead: see ``Decision``
    """
    queue = {"queue": target.queue} if target.queue else {}
    extra = {"backend": target.backend, **queue, "route": route, "reason": reason.value}
    return json.dumps({**extra, "detail": _detail(reason) if ahead else reason.words})


def _detail(reason: Reason) -> str:
    """Of what is given ahead: its first choice has no free slot."""
    passed = "" if reason is Reason.FIRST_CHOICE else f"{reason.words}; "
    return f"{passed}given ahead: it starts there in the next slot that becomes free, unless it is taken back"


def file_row(event: str, path: str, detail: str, team: str | None) -> Log:
    """A row for the event log; ``log.extra`` is JSON with ``file``, ``scheduler`` (its host), ``detail`` and the
    ``team`` of the executor, if it has one.

    :param event: ``REFUSED_FILE`` or ``CHANGED_FILE``
    """
    if len(detail) > _LONGEST:
        detail = f"{detail[:_LONGEST]} ..."
    extra = {"file": path, "scheduler": hostname(), "detail": detail, **({"team": team} if team else {})}
    return Log(event=event, extra=json.dumps(extra))


class EventLogQueue(deque[Any]):
    """The deque that the scheduler empties after every heartbeat.

    Airflow 3.2 to 3.4 feed it to SQLAlchemy through a generator, which lets the rows be garbage-collected
    before they are inserted; so what is taken out stays referenced here until ``forget_taken``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken: list[Any] = []

    def popleft(self) -> Any:
        row = super().popleft()
        self._taken.append(row)
        return row

    def forget_taken(self) -> None:
        """The scheduler has saved what it took; called at the next heartbeat."""
        self._taken.clear()


def owners(session: Session, tis: Sequence[Any]) -> dict[Any, str]:
    """The backend to which each task instance was last given, by TI id; those never dispatched are absent.

    :param tis: ORM task instances, or history rows of them, with their columns loaded
    """
    by_identity = {_identity(ti): _id(ti) for ti in tis}
    found: dict[Any, str] = {}
    for batch in _batches(by_identity):
        query = (
            select(*_identity_columns(), Log.extra)
            .where(Log.event == DISPATCHED, tuple_(*_identity_columns()).in_(batch))
            .order_by(Log.id)
        )
        for *identity, extra in session.execute(query):
            backend = _backend(extra)
            if backend is not None:
                found[by_identity[tuple(identity)]] = backend
    return found


def owners_of(tis: Sequence[Any]) -> dict[Any, str]:
    """``owners`` in the session that the task instances come from."""
    session = object_session(tis[0])
    return owners(session, tis) if session is not None else {}


def owner_of(ti: Any) -> str | None:
    """The backend to which one task instance, or history row of one, was last given; None if unknown."""
    with create_session() as session:
        return next(iter(owners(session, [ti]).values()), None)


def was_given(model: Any, backend: str | None = None) -> Any:
    """The condition that there is a row of a dispatch of a task instance; of one to this backend, if it is named, maybe
    not the last one.

    :param model: of task instances
    """
    where = [
        Log.event == DISPATCHED,
        *(a == b for a, b in zip(_identity_columns(), _identity(model), strict=True)),
    ]
    if backend is not None:
        where.append(Log.extra.contains(f'"backend": {json.dumps(backend)}', autoescape=True))
    return select(Log.id).where(*where).exists()


def rows_of(session: Session, ti: Any) -> Sequence[Log]:
    """All rows about one try, whoever has written them.

    :param ti: ORM task instance, or history row of one
    """
    own = zip(_identity_columns(), _identity(ti), strict=True)
    return session.scalars(
        select(Log).where(*(column == value for column, value in own)).order_by(Log.id)
    ).all()


def order_row(command: str, owner: str, extra: dict[str, Any]) -> Log:
    """A row about what a person has ordered, which belongs to no task."""
    return Log(event=f"{ORDERED}{command}", owner=owner, extra=json.dumps(extra))


def rows_since(events: Sequence[str], since: datetime) -> Iterator[tuple[datetime, str, str, str]]:
    """Rows of no task: when, the event, who and what, the last ones first. As much is read as is gone through, page by
    page."""
    query = (
        select(Log.dttm, Log.id, Log.event, Log.owner, Log.extra)
        .where(Log.event.in_(events), Log.dttm >= since)
        .order_by(Log.dttm.desc(), Log.id.desc())
        .limit(_PAGE)
    )
    page = query
    while True:
        with create_session(scoped=False) as session:
            rows: Any = session.execute(page).all()
        yield from ((at, event, owner or "", extra or "") for at, _, event, owner, extra in rows)
        if len(rows) < _PAGE:
            return
        at, last = rows[-1][:2]
        page = query.where(or_(Log.dttm < at, and_(Log.dttm == at, Log.id < last)))


def _id(ti: Any) -> Any:
    """A history row up to Airflow 3.3 has its id under another name."""
    if AIRFLOW_V_3_4_PLUS:
        return ti.id
    return getattr(ti, "id", None) or ti.task_instance_id


def _identity_columns() -> tuple[Any, ...]:
    """The columns that name one try in the log. From Airflow 3.4 on its ``map_index`` is not the stored one."""
    if AIRFLOW_V_3_4_PLUS:
        return (Log.task_instance_id,)
    return (Log.dag_id, Log.task_id, Log.run_id, Log.map_index, Log.try_number)


def _identity(ti: Any) -> tuple[Hashable, ...]:
    if AIRFLOW_V_3_4_PLUS:
        return (_id(ti),)
    return (ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number)


def _batches(identities: Iterable[Any]) -> Iterable[list[Any]]:
    iterator = iter(identities)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def object_in(text: str | None) -> dict[str, Any] | None:
    """A JSON object, as ``log.extra`` of this package's rows is; None: it is something else."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return _as_text(found) if text is not None and _has_no_text(text) else found


def json_of(facts: dict[str, Any]) -> str:
    """JSON that every database reads, PostgreSQL among them: of what a server has answered, say."""
    text = json.dumps(facts)
    return json.dumps(_as_text(facts)) if _has_no_text(text) else text


def _has_no_text(text: str) -> bool:
    """Whether there may be a NUL, or half of a character, in JSON."""
    return "\\u0000" in text or "\\ud" in text.lower()


def _as_text(value: Any) -> Any:
    """The same without them."""
    if isinstance(value, str):
        halves = value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-16", "surrogatepass")
        return halves.decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_as_text(key): _as_text(each) for key, each in value.items()}
    return [_as_text(each) for each in value] if isinstance(value, list | tuple) else value


def _backend(extra: str | None) -> str | None:
    backend = (object_in(extra) or {}).get("backend")
    return backend if isinstance(backend, str) else None
