# SPDX-License-Identifier: Apache-2.0
"""The documents that the schedulers have written about themselves, as ``dispatch.report`` makes it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_dispatch_provider import __version__
from airflow_dispatch_provider.bridge import orphans, schedulers
from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import OrderRow, StatusRow
from airflow_dispatch_provider.bridge.event_log import object_in
from airflow_dispatch_provider.dispatch.report import VERSION
from airflow_dispatch_provider.lifecycle.events import CORDONED, Command
from airflow_dispatch_provider.operate.model import OrderInForce

SHOWN = 3_600.0
"""Seconds for which a scheduler is shown that writes no status any more."""

FRESH = 60.0
"""Seconds after which a status says nothing of this moment."""

NOBODY = (
    "No scheduler with an executor of this package has written its status in the last hour: see in the scheduler's log"
    " whether it runs, and which [core] executor it has."
)


class Document(NamedTuple):
    """One row of ``dispatch_status``, read."""

    scheduler_id: str
    team: str | None
    written: float
    lives: bool
    body: dict[str, Any]

    @property
    def scheduler(self) -> str:
        """The id of the scheduler's job."""
        return job_of(self.scheduler_id)

    def about(self, backend: str | None) -> list[dict[str, Any]]:
        """The entry about a backend, if it has such a one; None: those about all."""
        return [entry for entry in self.body["backends"] if backend in (None, entry["name"])]

    def returning(self, backend: str) -> int:
        """How many workloads have no slot of that backend any more, and are not set back to scheduled yet."""
        return int(self.body["returning"].get(backend, 0))

    def not_begun(self, backend: str) -> int:
        """How many workloads that backend has that have not been seen to begin."""
        return sum(entry["not_begun"] for entry in self.about(backend))

    def has_done(self, recall: OrderInForce | None) -> bool:
        """Whether its scheduler has done a recall, or began after it was given."""
        return recall is None or moment(self.body["recalls"].get(recall.backend, 0.0)) == recall.since

    def out(self, backend: str | None) -> int:
        """How many workloads that backend has, those that were given ahead among them; None: all of them."""
        return sum(entry["used"] + entry["ahead"] for entry in self.about(backend))


class Unread(NamedTuple):
    """A row of ``dispatch_status`` that another version of this package has written, in another form."""

    scheduler: str
    hostname: str
    team: str | None
    written: float
    lives: bool
    package: str
    """The version of the package."""

    def __str__(self) -> str:
        return (
            f"Scheduler {self.scheduler} on {self.hostname} runs version {self.package} of airflow-dispatch-provider,"
            f" and this process {__version__}: what it writes cannot be read here."
        )


class Reading(NamedTuple):
    """Everything that is known at a moment; ``now`` is in seconds since 1970."""

    now: float
    documents: list[Document]
    orders: list[OrderInForce]
    """Those that last."""

    unread: list[Unread]
    recalls: list[OrderInForce]
    """The last one about each backend, whether or not every scheduler has done it."""

    uncounted: Mapping[str, int | None]
    """Schedulers that do not say how it is now and may have tasks, by the ids of their jobs: of one that has died how
    many are queued or run, which nobody has taken over; None: it lives, and nobody knows."""

    @property
    def problem(self) -> str | None:
        """Why nothing is known of this moment; None: something is."""
        if self.living:
            return None
        if unread := [each for each in self.unread if each.lives]:
            return " ".join(map(str, unread))
        if not self.documents:
            return NOBODY
        last = max(self.documents, key=lambda document: document.written)
        who, ago = f"scheduler {last.scheduler} on {last.body['hostname']}", self.now - last.written
        return (
            f"No scheduler lives, or none can write its status: the last to do so was {who}, {ago:.0f} s ago."
        )

    @property
    def living(self) -> list[Document]:
        """Those that say how it is now."""
        return [document for document in self.documents if document.lives]

    @property
    def silent(self) -> list[Document | Unread]:
        """Those that do not."""
        everyone: list[Document | Unread] = [*self.documents, *self.unread]
        return [each for each in everyone if not each.lives]

    def of_team(self, team: str | None) -> Reading:
        """As much of it as is about this team; None: about no team."""
        return Reading(
            self.now,
            [document for document in self.documents if document.team == team],
            [order for order in self.orders if order.team == team],
            [each for each in self.unread if each.team == team],
            [recall for recall in self.recalls if recall.team == team],
            self.uncounted,
        )

    def about(self, name: str | None) -> list[dict[str, Any]]:
        """Entries of a backend, or of all backends, in the documents of schedulers that live."""
        return [entry for document in self.living for entry in document.about(name)]

    def not_recalled(self, backend: str, team: str | None) -> list[str]:
        """Ids of the schedulers that live, and have not done the last recall about it."""
        recall = self.recall_about(backend, team)
        of_team = (document for document in self.living if document.team == team)
        return list(dict.fromkeys(each.scheduler for each in of_team if not each.has_done(recall)))

    def recall_about(self, backend: str, team: str | None) -> OrderInForce | None:
        """The last one."""
        return next((each for each in self.recalls if (each.backend, each.team) == (backend, team)), None)

    def with_orders(self, detail: str | None, team: str | None) -> str | None:
        """Why backends of a team take no work, with the order where one is in force about such a backend."""
        for order in self.orders:
            if detail and order.team == team:
                about = rf"(?<!\S){re.escape(order.backend)}: "
                words = f"{order.backend}: {order.words}".replace("\\", r"\\")
                detail = re.sub(about + re.escape(CORDONED), words, detail)
        return detail

    def is_cordoned(self, backend: str, team: str | None) -> bool:
        """Whether an order, or the configuration of every scheduler that lives, keeps new work from it."""
        entries = self.of_team(team).about(backend)
        is_configured = bool(entries) and all(entry["cordoned"] for entry in entries)
        return is_configured or self.order_about(backend, team) is not None

    def order_about(self, backend: str, team: str | None) -> OrderInForce | None:
        """The first that is in force about it."""
        about = (order for order in self.orders if (order.backend, order.team) == (backend, team))
        return next(about, None)


def read(team: str | None = None) -> Reading:
    """
    Ask the database.

    :param team: only of this team; None: of all, and of those without one
    :raises TablesMissing: the migration has not been run
    """
    now = time.time()
    rows, orders = tables.read_statuses(now - SHOWN), tables.read_orders(now)
    living = schedulers.living()
    documents, unread = parse(rows, living, now)
    lasting = [order_of(row) for row in orders if row.command in tables.LASTING]
    recalls = [order_of(row) for row in orders if row.command == Command.RECALL]
    uncounted = not_counted([*documents, *unread], living, orphans.unfinished)
    reading = Reading(now, documents, lasting, unread, recalls, uncounted)
    return reading if team is None else reading.of_team(team)


def not_counted(
    written: Iterable[Document | Unread],
    living: Collection[str],
    unfinished: Callable[[Collection[str]], Mapping[str, int]],
) -> dict[str, int | None]:
    """
    See ``Reading``.

    :param living: ids of the schedulers that live
    :param unfinished: asks for the tasks of those that have died, by the ids of their jobs
    """
    jobs = {each.scheduler for each in written if isinstance(each, Unread) or not each.lives}
    dead = jobs.difference(living)
    return {**dict.fromkeys(jobs - dead), **(unfinished(dead) if dead else {})}


def job_of(scheduler_id: str) -> str:
    """The id of a scheduler's job: ``executors.face`` appends what tells its executors apart."""
    return scheduler_id.partition(" ")[0]


def parse(
    rows: Iterable[StatusRow], living: Iterable[str], now: float
) -> tuple[list[Document], list[Unread]]:
    """
    Read what was written; of what another version of this package wrote in another form, by whom.

    :param living: ids of the schedulers that live
    """
    alive = set(living)
    documents: list[Document] = []
    unread: list[Unread] = []
    for row in rows:
        body, team, job = object_in(row.document) or {}, row.team or None, job_of(row.scheduler_id)
        lives = job in alive and now - row.written < FRESH
        if body.get("version") == VERSION:
            documents.append(Document(row.scheduler_id, team, row.written, lives, body))
        elif body:
            host, package = (str(body.get(key, "unknown")) for key in ("hostname", "package"))
            unread.append(Unread(job, host, team, row.written, lives, package))
    return documents, unread


def order_of(row: OrderRow) -> OrderInForce:
    until = None if row.until is None else moment(row.until)
    team = row.team or None
    return OrderInForce(row.command, row.backend, team, row.given_by, row.reason, moment(row.since), until)


def moment(seconds: float) -> datetime:
    """From seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def moment_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)
