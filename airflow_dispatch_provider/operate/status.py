# SPDX-License-Identifier: Apache-2.0
"""How the backends are, over all schedulers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_dispatch_provider.bridge.database.tables import TablesMissing
from airflow_dispatch_provider.lifecycle.events import CORDONED, Command
from airflow_dispatch_provider.operate.beginning import hint_about, not_begun
from airflow_dispatch_provider.operate.documents import (
    Document,
    Reading,
    Unread,
    moment,
    moment_or_none,
    read,
)
from airflow_dispatch_provider.operate.draining import left
from airflow_dispatch_provider.operate.model import (
    BackendState,
    BackendStatus,
    Minute,
    OrderInForce,
    SchedulerStatus,
    Status,
)
from airflow_dispatch_provider.operate.uncounted import uncounted_of

_MINUTES, _DAGS = 30, 20
_WORST_LAST = list(BackendState)


def read_status(team: str | None = None) -> Status:
    """The status of a deployment.

    :param team: only of this team; None: of all
    """
    try:
        return status_of(read(team))
    except TablesMissing as error:
        return Status(moment(time.time()), [], [], str(error))


def status_of(reading: Reading) -> Status:
    """Schedulers as they wrote, and what those that live say of each backend as one."""
    by_backend: dict[tuple[str | None, str], list[dict[str, Any]]] = {}
    for document in reading.living:
        for entry in document.body["backends"]:
            by_backend.setdefault((document.team, entry["name"]), []).append(entry)
    backends = [_backend(name, team, entries, reading) for (team, name), entries in by_backend.items()]
    schedulers = [*map(_scheduler, reading.documents), *map(_unread, reading.unread)]
    other_orders = [order for order in reading.orders if (order.team, order.backend) not in by_backend]
    return Status(
        moment(reading.now), schedulers, backends, reading.problem, other_orders, uncounted_of(reading)
    )


def _scheduler(document: Document) -> SchedulerStatus:
    body = document.body
    return SchedulerStatus(
        document.scheduler,
        body["hostname"],
        document.team,
        body["executor"],
        document.lives,
        moment(document.written),
        moment(body["heartbeat"]),
        body["file"],
        body["refused"],
        body["api_trouble"],
    )


def _unread(found: Unread) -> SchedulerStatus:
    written = moment(found.written)
    return SchedulerStatus(
        id=found.scheduler,
        hostname=found.hostname,
        team=found.team,
        executor="",
        lives=found.lives,
        written=written,
        heartbeat=written,
        file=None,
        refused=None,
        api_trouble=None,
        other_version=found.package,
    )


def _backend(
    name: str, team: str | None, entries: Sequence[dict[str, Any]], reading: Reading
) -> BackendStatus:
    order = reading.order_about(name, team)
    state = max((BackendState(entry["state"]) for entry in entries), key=_WORST_LAST.index)
    in_state = [entry for entry in entries if entry["state"] == state.value]
    is_ordered = state is BackendState.CORDONED and order is not None
    if is_ordered and order is not None and order.command == Command.DRAIN:
        state = BackendState.DRAINED if left(reading, name, team) is None else BackendState.DRAINING
    troubles = dict.fromkeys(filter(None, (_unordered(entry["trouble"], order) for entry in entries)))
    has_not_begun, not_begun_since = not_begun(entries)
    dags: Counter[str] = Counter()
    for entry in entries:
        dags.update(entry["dags"])
    return BackendStatus(
        name=name,
        team=team,
        executor=entries[0]["executor"],
        state=state,
        since=order.since
        if order is not None and is_ordered
        else moment(min(each["since"] for each in in_state)),
        oldest=moment_or_none(_least(entries, "oldest")),
        trouble=" ".join(troubles) or None,
        next_try=moment_or_none(_least(entries, "next_try")),
        order=order,
        dags=dict(dags.most_common(_DAGS)),
        minutes=_minutes(entries),
        returning=sum(each.returning(name) for each in reading.living if each.team == team),
        not_recalled=reading.not_recalled(name, team),
        not_begun=has_not_begun,
        not_begun_since=moment_or_none(not_begun_since),
        hint=hint_about(entries, reading.now),
        **{key: sum(entry[key] for entry in entries) for key in _SUMS},
    )


def _unordered(trouble: str | None, order: OrderInForce | None) -> str:
    """Without that it is cordoned, where an order says so and more."""
    return (trouble or "") if order is None else (trouble or "").removeprefix(CORDONED).strip()


_SUMS = ("slots", "used", "ahead", "free", "held", "submitted_per_minute", "ended_per_minute")


def _least(entries: Iterable[dict[str, Any]], key: str) -> float | None:
    return min((entry[key] for entry in entries if entry[key] is not None), default=None)


def _minutes(entries: Iterable[dict[str, Any]]) -> list[Minute]:
    """Each minute in which any scheduler wrote, over all of them."""
    sums: dict[int, tuple[int, int]] = {}
    for entry in entries:
        for at, submitted, ended in entry["minutes"]:
            before = sums.get(at, (0, 0))
            sums[at] = before[0] + submitted, before[1] + ended
    return [Minute(moment(at), *sums[at]) for at in sorted(sums)[-_MINUTES:]]
