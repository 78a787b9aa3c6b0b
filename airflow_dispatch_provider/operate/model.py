# SPDX-License-Identifier: Apache-2.0
"""Answers about a running deployment, as commands, the REST API and the page all give them.

Times are aware datetimes in UTC, durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class BackendState(str, Enum):
    """How a backend is, worst last."""

    OPEN = "open"
    CORDONED = "cordoned"
    DRAINED = "drained"
    """By order, and nothing is left there: ``drain --wait`` would return."""

    DRAINING = "draining"
    REMOVED = "removed"
    FAILING = "failing"

    __str__ = str.__str__


@dataclass(frozen=True)
class OrderInForce:
    """An order of an operator that has not been taken back, and has not run out."""

    command: str
    """``cordon`` or ``drain``; ``recall``, which every scheduler does once."""

    backend: str
    team: str | None
    by: str
    reason: str
    since: datetime
    until: datetime | None
    """When it runs out by itself, or, done once, may be forgotten; None: never."""

    @property
    def words(self) -> str:
        """Why its backend takes no work, in a sentence."""
        why = f": {self.reason.rstrip('.')}" if self.reason else ""
        return f"It is {'drained' if self.command == 'drain' else 'cordoned'} by {self.by}{why}."

    @property
    def lasts_until(self) -> str:
        """For people, in UTC."""
        return "with no end" if self.until is None else f"until {self.until:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class GivenOrder(OrderInForce):
    """The answer to an order."""

    replaces: OrderInForce | None = None
    """The order about the same backend that was in force until now, of which there is one at most; None: there was
    none, or it stays in force."""

    warning: str | None = None
    """Sentences about effects that it does not have, and that may be expected; None: there are none."""


@dataclass(frozen=True)
class Minute:
    """The work of a backend in one minute, over all schedulers."""

    at: datetime
    submitted: int
    ended: int


@dataclass(frozen=True)
class BackendStatus:
    """One backend, over all schedulers that live."""

    name: str
    team: str | None
    executor: str
    state: BackendState
    since: datetime
    """When it came into this state; where an order has brought it there, when that was given."""

    slots: int
    used: int
    ahead: int
    """Given to it ahead of a free slot."""

    free: int
    held: int
    """Waiting with this backend as first choice."""

    oldest: datetime | None
    """Since when the oldest of these waits."""

    submitted_per_minute: int
    ended_per_minute: int
    """Those that have ended there; not those that came back."""

    trouble: str | None
    """Why it takes no work, or a part of it takes none, in a sentence."""

    next_try: datetime | None
    order: OrderInForce | None
    dags: dict[str, int] = field(default_factory=dict)
    """Who uses its slots: tasks by Dag, the largest first, 20 at most."""

    minutes: list[Minute] = field(default_factory=list)
    """The last 30, oldest first."""

    returning: int = 0
    """Tasks without a slot there, such as recalled ones, whose rows are being set back to scheduled."""

    not_recalled: list[str] = field(default_factory=list)
    """Ids of the schedulers that live, and have not done the last recall yet."""

    not_begun: int = 0
    """How many of the tasks in its slots have not been seen to begin."""

    not_begun_since: datetime | None = None
    """Since when it has the oldest of these."""

    hint: str | None = None
    """A thing to look at, in a sentence, where nothing that it has has begun for minutes; None: something has, or will
    soon."""


@dataclass(frozen=True)
class SchedulerStatus:
    """One scheduler, as it last wrote."""

    id: str
    hostname: str
    team: str | None
    executor: str
    lives: bool
    written: datetime
    heartbeat: datetime
    """The last heartbeat of its executor."""

    file: str | None
    """``config_file``."""

    refused: str | None
    """Why the file on disk is not in use."""

    api_trouble: str | None
    """Why nothing is launched: what the execution API answers."""

    other_version: str | None = None
    """The version of this package that it runs, where what it writes cannot be read here: it is not counted, and the
    rest is not known."""


@dataclass(frozen=True)
class Uncounted:
    """A scheduler whose tasks no number of an answer has: it has died, and nobody has taken them over yet, or it does
    not say how it is now."""

    scheduler: str
    team: str | None
    words: str
    """Why, what it had, and what becomes of that, in sentences."""

    had: dict[str, int] = field(default_factory=dict)
    """Tasks that each backend had when it last wrote, those given ahead among them; empty, as what follows: nobody
    knows."""

    held: dict[str, int] = field(default_factory=dict)
    """Tasks that waited then, by the backend that is their first choice."""


@dataclass(frozen=True)
class Status:
    """A deployment at one moment."""

    now: datetime
    schedulers: list[SchedulerStatus]
    backends: list[BackendStatus]
    problem: str | None = None
    """Why nothing is known, and what to run."""

    other_orders: list[OrderInForce] = field(default_factory=list)
    """Orders in force about backends of which no scheduler tells that lives: one that comes by that name obeys it."""

    uncounted: list[Uncounted] = field(default_factory=list)


@dataclass(frozen=True)
class StatusForReader(Status):
    """A deployment at one moment, as one user may see it; names of Dags that the user may not read are left out."""

    may_act: bool = False
    """Whether the user may give orders about any of these backends."""

    acts_for: list[str | None] = field(default_factory=list)
    """The teams about whose backends the user may give orders, None being everybody's."""


@dataclass(frozen=True)
class Backlog:
    """Work for one backend, for an autoscaler of its workers."""

    backlog: int
    """Tasks that it has, and that wait with it as first choice."""


@dataclass(frozen=True)
class Workload:
    """Names of one workload; those of a Dag are empty, and ``map_index`` is -1, where it has none."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    kind: str
    queue: str | None


@dataclass(frozen=True)
class WaitingTask(Workload):
    """One that waits, and is not with a backend."""

    team: str | None
    route: str
    targets: list[str]
    reason: str
    """A word, such as ``waits_full``."""

    words: str
    """The same as a sentence, with how full its targets are."""

    detail: str | None
    """Further facts: the trouble of its targets."""

    since: datetime
    position: int
    """Its place in the queue for its first target, from 1; 0: it waits for something else."""

    expected: datetime | None
    """When it may start, by the pace at which tasks end at that backend; None: nobody can tell."""

    others: bool
    """Whether another of its targets may take it, sooner than that."""

    scheduler: str
    usual: float | None = None
    """Seconds from scheduled to its start, the median of the last 20 finished runs of its Dag; None: it did not start
    in any of them, or 100 other tasks are listed before it."""


@dataclass(frozen=True)
class WaitingGroup:
    """All that wait for the same reason with the same first target."""

    backend: str
    team: str | None
    reason: str
    words: str
    detail: str | None
    held: int
    oldest: datetime


@dataclass(frozen=True)
class NotBegun:
    """Tasks in the slots of a backend that have not been seen to begin."""

    backend: str
    team: str | None
    number: int
    since: datetime
    """Since when it has the oldest of them."""


@dataclass(frozen=True)
class Waiting:
    """All that waits, best first."""

    now: datetime
    total: int
    """All that were asked about, of whatever Dag."""

    groups: list[WaitingGroup]
    tasks: list[WaitingTask]
    """Not all of them: the first ones of each backend."""

    problem: str | None = None
    not_begun: list[NotBegun] = field(default_factory=list)
    """Those that do not wait here any more, and have not begun either: of each backend that has such tasks. Of all
    Dags; empty where only one reason to wait was asked for."""

    uncounted: list[Uncounted] = field(default_factory=list)


@dataclass(frozen=True)
class WaitingOfTeams:
    """The same of every team, from which each user is shown a part. ``tasks`` are all that are listed."""

    now: datetime
    totals: dict[str | None, int]
    """All of the backend and the reason that were asked for, by team."""

    groups: list[WaitingGroup]
    tasks: list[WaitingTask]
    problem: str | None = None
    not_begun: list[NotBegun] = field(default_factory=list)
    uncounted: list[Uncounted] = field(default_factory=list)


@dataclass(frozen=True)
class RunningTask(Workload):
    """One that a backend has."""

    backend: str
    team: str | None
    has_begun: bool | None
    """False: its backend has it, and it has not been seen to begin. None: its scheduler has died, and the backend has
    not told the next one yet whether it has it."""

    since: datetime
    """When its backend was given it; of a task of a scheduler that has died, when it began, or was found there."""

    scheduler: str


@dataclass(frozen=True)
class Running:
    """The tasks that backends have, those that they have had for longest first."""

    now: datetime
    total: int
    """All of them; of each backend and scheduler 50 at most are named."""

    tasks: list[RunningTask]
    problem: str | None = None
    uncounted: list[Uncounted] = field(default_factory=list)


@dataclass(frozen=True)
class RunningOfTeams:
    """The same of every team, from which each user is shown a part."""

    now: datetime
    totals: dict[str | None, int]
    """All of them, by team."""

    tasks: list[RunningTask]
    problem: str | None = None
    uncounted: list[Uncounted] = field(default_factory=list)


@dataclass(frozen=True)
class Forecast:
    """The consequences of giving a backend no new work."""

    now: datetime
    backend: str
    team: str | None
    has: int
    """Tasks that it has."""

    not_begun: int
    """Those of them that have not begun, and which ``recall`` would take back."""

    held: int
    """Tasks that wait and have it as first target."""

    elsewhere: dict[str, int]
    """Those of them that may go to another backend, which is open, by its name."""

    stay: int
    """Those of them that have no other backend that is open: they wait until it is resumed."""

    problem: str | None = None
    order: OrderInForce | None = None
    """The order that is in force, which cordon and drain replace."""

    is_cordoned: bool = False
    """Whether the order or the configuration keeps new work from it already; else what ``recall`` takes back may be
    given to it again."""

    uncounted: list[Uncounted] = field(default_factory=list)
