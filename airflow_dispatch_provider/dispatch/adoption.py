# SPDX-License-Identifier: Apache-2.0
"""Who takes over which task instance of a scheduler that died."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session, lazyload, object_session

from airflow_dispatch_provider.bridge import event_log

Ask = Callable[[str, Sequence[Any], bool], "Sequence[Any] | None"]
"""Asks a backend to adopt task instances, and tells it whether they were certainly given to it; returns those it did
not adopt, or None where it could not be asked, or does not know yet."""


@dataclass
class Adopted:
    """The outcome."""

    rejected: list[Any] = field(default_factory=list)
    """To be reset and scheduled again by the scheduler: the same objects that it offered."""

    by_backend: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """Taken over."""

    unasked: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """Running on a backend that cannot be asked now. They are kept: resetting one would start a second copy
    beside the first, while a task that is dead after all is found by its missing heartbeats."""


def adopt(
    tis: Sequence[Any],
    is_ours: Callable[[Any], bool],
    candidates: Callable[[Any], Iterable[str]],
    ask: Ask,
) -> Adopted:
    """Offer each task instance to the backend that the event log names.

    One that is QUEUED and was never dispatched was only held: it is rejected, and so scheduled again at once.
    One that is RUNNING was certainly dispatched, so where its row is missing (the scheduler died in the
    instant before it was written) every candidate is asked.

    :param is_ours: whether this scheduler has it already. One whose heartbeat was late is taken for dead, and is
        then offered its own task instances.
    :param candidates: names of the backends that could have it, the surest first
    """
    outcome = Adopted()
    owners = _load(tis)
    groups: dict[str, list[Any]] = defaultdict(list)
    for ti in tis:
        if is_ours(ti):
            continue
        owner = owners.get(ti.id)
        if owner is not None:
            groups[owner].append(ti)
        elif ti.state == TaskInstanceState.RUNNING:
            _ask_around(ti, candidates(ti), ask, outcome)
        else:
            outcome.rejected.append(ti)
    for backend, group in groups.items():
        _offer(backend, group, ask, outcome)
    return outcome


def offer_again(
    ids: Sequence[Any], offer: Callable[[Sequence[Any]], Sequence[Any] | None]
) -> set[Any] | None:
    """Look up task instances again, and offer those that still run.

    :return: the ids of those that were taken over; None where the backend still does not know
    """
    with create_session() as session:
        query = select(TaskInstance).options(lazyload(TaskInstance.dag_run)).where(TaskInstance.id.in_(ids))
        tis = [ti for ti in session.scalars(query) if ti.state == TaskInstanceState.RUNNING]
        refused = offer(tis) if tis else []
        return None if refused is None else {ti.id for ti in tis} - {ti.id for ti in refused}


def owner_of(ti: Any) -> str | None:
    """The backend to which one task instance, or history row of one, was last given; None if unknown."""
    with create_session() as session:
        return next(iter(event_log.owners(session, [ti]).values()), None)


def _load(tis: Sequence[Any]) -> Mapping[Any, str]:
    """Load all columns of all task instances in one SELECT (the scheduler defers most of them, and each would
    be one query later), and the owners in another."""
    session = object_session(tis[0])
    if session is None:
        return {}
    _refresh(session, [ti.id for ti in tis])
    return event_log.owners(session, tis)


def _refresh(session: Session, ids: Sequence[Any]) -> None:
    query = select(TaskInstance).options(lazyload(TaskInstance.dag_run)).where(TaskInstance.id.in_(ids))
    session.scalars(query.execution_options(populate_existing=True)).all()


def _offer(backend: str, tis: Sequence[Any], ask: Ask, outcome: Adopted) -> None:
    refused = ask(backend, tis, True)
    if refused is None:
        for ti in tis:
            running = ti.state == TaskInstanceState.RUNNING
            (outcome.unasked[backend] if running else outcome.rejected).append(ti)
        return
    outcome.rejected += refused
    gone = {id(ti) for ti in refused}
    outcome.by_backend[backend] += [ti for ti in tis if id(ti) not in gone]


def _ask_around(ti: Any, candidates: Iterable[str], ask: Ask, outcome: Adopted) -> None:
    unasked = None
    for backend in candidates:
        refused = ask(backend, [ti], False)
        if refused is None:
            unasked = unasked or backend
        elif not refused:
            outcome.by_backend[backend].append(ti)
            return
    if unasked is not None:
        outcome.unasked[unasked].append(ti)
    else:
        outcome.rejected.append(ti)
