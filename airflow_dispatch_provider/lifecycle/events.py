# SPDX-License-Identifier: Apache-2.0
"""Events: all that the machine is told. Whatever an engine says names the dispatch that it is about."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from airflow_dispatch_provider.lifecycle.states import Outcome, Row
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable

EXECUTION_API = "execution api"
"""Stands for the name of a backend in ``Broken`` and ``Recovered``: the server that every task needs to begin.
No backend can have this name."""

WAITS_START = "waits_start"
"""``log.event`` of a task that was sent, and does not start, as its engine says."""

RECALLED = "recalled"
"""``log.event`` of a task that an operator has taken back."""

WITHDRAWN = "withdrawn"
"""``log.event`` of a task that comes back, unless it is sent by now, from a backend that people have drained."""

BEGAN_FIRST = "began_first"
"""``log.event`` of a task that an operator has recalled, and that began before its row could be set back."""

TAKEN_OVER = "taken_over"
"""``log.event`` of a task that a backend was found to have, for a scheduler that watches it from then on."""

# From Airflow, about a key


class Queued(NamedTuple):
    """The scheduler has queued a workload."""

    key: Hashable
    ref: TaskRef
    priority: int = 0
    workload: Any = None
    lanes: Mapping[str, str] = {}
    """The lane that it would use at a backend, where that is not the one of its queue."""

    subject: Any = None
    """Opaque; see ``Machine.subject``."""


class Offered(NamedTuple):
    """A task of a scheduler that has died."""

    key: Hashable
    ref: TaskRef
    runs: bool
    """The database has it as RUNNING, not as QUEUED."""

    evidence: str | None = None
    """The backend to which it was dispatched, as the event log says."""

    candidates: tuple[str, ...] = ()
    """Without evidence: the backends that could have it, the surest first."""

    subject: Any = None
    """Opaque; see ``Machine.subject``."""


class Revoke(NamedTuple):
    """The scheduler takes a task back, or has found it dead."""

    key: Hashable
    dead: bool = False
    """Airflow is done with it, whether or not its engine can stop it."""


class Recall(NamedTuple):
    """Take a job back, if it has certainly not been sent."""

    key: Hashable
    sent: bool = False
    """A task also where it was sent, and has not begun, even if that is known only later: its row is set back to
    scheduled, unless the execution API lets it begin first."""

    reason: str = ""
    """The reason, for its user; empty: nobody has to know."""


# From an engine, about a dispatch


class Sent(NamedTuple):
    """It is on its way."""

    dispatch: int
    info: Any = None
    """An id for the outside world, which Airflow keeps as ``external_executor_id``."""


class Stalled(NamedTuple):
    """It was sent, and its engine sees why it does not start."""

    dispatch: int
    reason: str


class Began(NamedTuple):
    """The engine has seen that the task's own process was let start by the execution API."""

    dispatch: int
    info: Any = None


class Ended(NamedTuple):
    """It is over."""

    dispatch: int
    how: Outcome
    began: bool | None = None
    """Whether the task's own process had begun; None where the engine cannot know. A refusal by the execution API is
    False."""

    reason: str = ""
    """The trouble, for people."""

    value: Any = None
    """A foreign engine's own event value, which is passed on as it is."""

    mishap: bool = False
    """Its backend has lost it, which says nothing of how the next one will fare."""

    nothing_ran: bool = False
    """Not a line of it has run, though the execution API may have let it begin: its answer was not heard."""


class Returned(NamedTuple):
    """It was certainly not sent, and that is not its own fault: withdrawn, or its server cannot be used."""

    dispatch: int
    reason: str = ""
    lane: str | None = None
    """The lane that it turned out to use, where its engine has seen one; its queue tells every other."""


class Rejected(NamedTuple):
    """It was certainly not sent: this one job could not be, or the engine does not know better."""

    dispatch: int
    reason: str = ""


class Adopted(NamedTuple):
    """The backend has it, by evidence of its own (a pod, a message, a process with its start time)."""

    dispatch: int
    began: bool = False


class Unknown(NamedTuple):
    """The backend was asked, could answer, and does not have it."""

    dispatch: int


class CannotRevoke(NamedTuple):
    """The engine has no way to stop it (``NotImplementedError``): whatever it does, it goes on."""

    dispatch: int


# About more than one job


class Rows(NamedTuple):
    """The answer of the database to ``LookUp``, ``PutBack``, ``Restart`` or ``Unstart``."""

    asked: int
    """``asked`` of that action: what has changed here since then is not judged by it."""

    rows: Mapping[Hashable, Row]
    """For every key that was asked for."""


class Unanswered(NamedTuple):
    """The database could not be asked about a job."""

    asked: int
    """As in ``Rows``."""

    key: Hashable


class Broken(NamedTuple):
    """A backend, or ``EXECUTION_API``, cannot be used: a neutral request, or its own start, has failed."""

    backend: str
    reason: str
    met_by: str = ""
    """EXECUTION_API: the backend whose tasks it does not answer; empty: it does not answer the scheduler itself."""


class Recovered(NamedTuple):
    """A neutral request to it has succeeded."""

    backend: str


class Command(str, Enum):
    """Orders that an operator may give about a backend."""

    CORDON = "cordon"
    DRAIN = "drain"
    RESUME = "resume"
    RECALL = "recall"
    """Done once: what it was sent, and has not begun, comes back."""

    @property
    def lasts(self) -> bool:
        """It is in force until it is taken back."""
        return self in (Command.CORDON, Command.DRAIN)


CORDONED = "It is cordoned."
"""Why a backend takes no work, by order or by its configuration: whoever knows the order can say more."""


class Order(NamedTuple):
    """An operator's order."""

    command: Command
    backend: str


@dataclass(frozen=True, slots=True)
class Room:
    """How many jobs an engine takes at this moment, and why not more."""

    slots: int
    """How many it may have."""

    takes: int = 1_000_000
    """How many more it takes now, whatever its slots say: what may be on its way at a time is bounded."""

    closed: Mapping[str, str] = field(default_factory=dict)
    """Lanes that are full by themselves (a Celery queue, a Kubernetes namespace), and why."""

    unavailable: str | None = None
    """Why it takes nothing at all; None: it does."""

    kinds: frozenset[str] = frozenset({EXECUTE_TASK})
    """Workload types that it can run."""

    ahead: int = 0
    """How many it takes besides, once its slots are taken: each starts when a slot becomes free, and can be withdrawn
    until then."""

    retry_at: float | None = None
    """When the engine tries again what makes it unavailable (monotonic seconds); None: it does not say."""

    hint: str = ""
    """A thing to look at where nothing begins there for long, in a sentence for people, as far as the engine knows
    without asking; empty: none."""


class Tick(NamedTuple):
    """A heartbeat of the scheduler."""

    rooms: Mapping[str, Room]


@dataclass(frozen=True, slots=True)
class BackendRules:
    """The settings of one backend."""

    cordoned: bool = False
    by_queue: bool = False
    """Each queue is a lane of its own."""

    revokes: bool = True
    """False: its engine cannot stop what it was given. Airflow then leaves a task that is stuck waiting, and so does
    the machine, which keeps such jobs refreshed."""

    min_delay: float = 1.0
    max_delay: float = 60.0
    """Bounds in seconds of the time until it is tried again after a failure."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds."""

    max_held: int = 10_000
    launch_retries: int = 10
    """How often a job is launched again that came to nothing before it began: about five minutes in all."""

    launch_delay: float = 1.0
    launch_delay_max: float = 60.0
    """A job waits so long for its next launch, doubled each time."""

    earlier_grace: float = 10.0
    """How long a job waits for the end of an earlier dispatch of the same key: a task that deferred may come back
    before the end of its first half is seen."""

    look_every: float = 30.0
    """How often the database is asked about each job. What it calls over twice in a row is over."""

    told_after: float = 300.0
    """After how long the user of a job that is held is told why, be nothing broken; 0: not at all."""

    look_again: float = 10.0
    """When the database is asked once more where an answer decides nothing, or did not come."""

    refresh_every: float = 150.0
    """A quarter of ``[scheduler] task_queued_timeout``."""

    let_go_after: float = 60.0
    """When the slot of a job that was let go is taken for free, though its engine said nothing. So long, too, a backend
    may leave unanswered whether it has a task of a dead scheduler that had not begun."""

    silence: float = 20.0
    """A task's process sends a heartbeat every ``[workers] min_heartbeat_interval`` (5 s): silent for so long after
    its dispatch has ended, it is dead."""

    paused_after: float = 25.0
    """A scheduler that did nothing for so long may have been taken for dead (``scheduler_health_check_threshold`` is
    30): it asks the database what is still its own before it launches anything."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The users' configuration. Everything that is held is routed anew; a backend that is not named is drained."""

    routes: RouteTable
    backends: Mapping[str, BackendRules]
    limits: Limits = Limits()
