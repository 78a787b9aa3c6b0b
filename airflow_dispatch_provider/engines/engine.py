# SPDX-License-Identifier: Apache-2.0
"""The protocol of every engine, as the dispatch loop uses it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    Broken,
    CannotRevoke,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Room,
    Sent,
    Stalled,
    Unknown,
)

__all__ = [
    "Engine",
    "Event",
    "Found",
    "HasLanes",
    "Job",
    "Measured",
    "Measures",
    "Room",
    "Terminates",
    "Tidies",
]

Event = (
    Sent
    | Stalled
    | Began
    | Ended
    | Returned
    | Rejected
    | Adopted
    | Unknown
    | CannotRevoke
    | Broken
    | Recovered
)
"""News from an engine; see ``lifecycle.events``."""


class Job(NamedTuple):
    """A job as an engine is given it."""

    dispatch: int
    """Names it from now on, in whatever the engine says of it."""

    key: Hashable
    """The router's key; not the engine's where only one of the two speaks Airflow 3.4's keys."""

    workload: Any
    """With a fresh token, and with the queue of its target, unless that is given apart."""

    queue: str | None = None
    """The queue of its target, where the workload keeps the task's own."""


class Found(NamedTuple):
    """A task of a dead scheduler that the engine's backend may have."""

    dispatch: int
    key: Hashable
    ti: Any
    """The task instance, or what has all of its columns."""

    runs: bool
    """The database has it as RUNNING."""


class Engine(Protocol):
    """Called on the scheduler's thread, where nothing may wait for a network answer, a lock or a process. An engine
    raises nothing: what fails is an event, or the room's ``unavailable``."""

    slots: int
    """How many jobs it may have; may be set at any time."""

    def start(self, scheduler_id: str) -> None:
        """Called once. What cannot be started now is tried again by ``poll``."""
        ...

    def room(self) -> Room:
        """Called at every heartbeat before anything is submitted."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Each is answered by ``Sent``, ``Returned`` or ``Rejected``, and in the end by ``Ended``."""
        ...

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        """Those of them that are certainly not sent, and will not be."""
        ...

    def revoke(self, dispatch: int, over: bool = False) -> CannotRevoke | None:
        """Stop it wherever it is; answered by ``Ended``, ``Returned``, ``Unknown`` or ``CannotRevoke``, which may also
        be returned at once. Called again where no answer has come.

        :param over: Airflow is done with it, and nobody waits for an answer: let it finish what it may still be doing,
            and leave nothing behind
        """
        ...

    def forget(self, dispatch: int) -> None:
        """Nobody waits for news of it any more. It may be what runs the task, for another scheduler, say: it is not
        stopped. What is known of it is dropped by the time at which it has ended, whatever news of that is lost."""
        ...

    def adopt(self, found: Sequence[Found]) -> None:
        """Each is answered by ``Adopted`` or ``Unknown``, as soon as the backend can be asked; also one that was asked
        about before, whether or not that was answered."""
        ...

    def poll(self) -> list[Event]:
        """Take the news since the last call; called at every heartbeat, after everything was submitted."""
        ...

    def stop(self, deadline: float) -> set[int]:
        """End. Dispatches that are certainly not sent are returned.

        :param deadline: monotonic seconds
        """
        ...


@runtime_checkable
class Terminates(Protocol):
    """An engine whose jobs end with it, where there is no time to wait for them."""

    def terminate(self) -> None:
        """End everything at once. Nothing is said of it any more."""
        ...


@runtime_checkable
class HasLanes(Protocol):
    """An engine whose lanes are not the queues of its jobs."""

    has_lanes: bool
    """False: it need not be asked, now."""

    def lane(self, workload: Any) -> str | None:
        """The lane that the workload would use, as far as that is known before it is submitted. Called for everything
        that is queued, also for what another backend gets."""
        ...


class Measured(NamedTuple):
    """Requests of an engine to its server since the last call, under the names that Airflow's executors use."""

    counts: Mapping[tuple[str, str], int]
    """By metric and status."""

    durations: Sequence[tuple[str, float]]
    """Metrics, each with the seconds of one request; not of all of them, where there are many."""


@runtime_checkable
class Measures(Protocol):
    """An engine that measures its requests."""

    def take_measured(self) -> Measured:
        """Called at every heartbeat, where metrics are on."""
        ...


@runtime_checkable
class Tidies(Protocol):
    """An engine with which something stays of schedulers that have died."""

    def tidy(self, living: Collection[str]) -> None:
        """Clean that up. Called now and then on the scheduler's thread; must not wait.

        :param living: ids of the schedulers that live, this one's among them
        """
        ...
