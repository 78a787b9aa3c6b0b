# SPDX-License-Identifier: Apache-2.0
"""Dispatches that were given to the engine, by the id of their Celery task, and what a result says of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from airflow_dispatch_provider.engines.engine import Event
from airflow_dispatch_provider.lifecycle.events import Adopted, Began, Ended, Unknown
from airflow_dispatch_provider.lifecycle.states import Outcome

PENDING, STARTED, SUCCESS = "PENDING", "STARTED", "SUCCESS"
"""Celery's names. It has no result of its own for PENDING: so it calls whatever it knows nothing of."""

_REMEMBERED_IDS = 50_000

_REFUSED = "TaskAlreadyRunningError"
"""The execution API's answer to all copies of a task but one, as the worker's exception is called."""


@dataclass(slots=True, eq=False)
class Flight:
    """One dispatch."""

    dispatch: int
    celery_id: str
    is_task: bool
    """Only what is no task begins with its Celery task; a task begins when the execution API lets it."""

    asked: bool = False
    """Nothing is known yet but that a dead scheduler may have sent it."""

    waits: bool = False
    """A dead scheduler has sent it, and nobody had begun with it."""

    taken: bool = False
    """A worker has it, or had it."""

    queue: str = ""
    """Of its message; empty where a dead scheduler has sent it."""

    sent: bool = False
    """By this engine."""

    over: bool = False
    """Nobody waits for it any more."""


class Flights:
    """The dispatches that are out. Not thread-safe."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        """
        :param new_id: gives an id that nobody has
        """
        self._new_id = new_id
        self._by_dispatch: dict[int, Flight] = {}
        self._by_id: dict[str, Flight] = {}
        self._used: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._by_dispatch)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._by_dispatch.values())

    def enter(self, dispatch: int, celery_id: str, is_task: bool, queue: str = "") -> Flight:
        return self._enter(Flight(dispatch, celery_id, is_task, queue=queue))

    def adopt(self, dispatch: int, celery_id: str, runs: bool) -> Flight:
        """A task of a dead scheduler.

        :param runs: the database has it as running
        """
        return self._enter(Flight(dispatch, celery_id, True, asked=True, waits=not runs))

    def _enter(self, flight: Flight) -> Flight:
        """One that is adopted again has a new dispatch: nobody waits for news of the earlier one."""
        if (earlier := self._by_id.get(flight.celery_id)) is not None:
            self.leave(earlier)
        self._by_dispatch[flight.dispatch] = self._by_id[flight.celery_id] = flight
        return flight

    def of(self, dispatch: int) -> Flight | None:
        return self._by_dispatch.get(dispatch)

    def of_id(self, celery_id: str) -> Flight | None:
        return self._by_id.get(celery_id)

    def leave(self, flight: Flight) -> None:
        """Nothing that is said of it is passed on any more."""
        flight.over = True
        self._by_dispatch.pop(flight.dispatch, None)
        if self._by_id.get(flight.celery_id) is flight:
            del self._by_id[flight.celery_id]

    def id_for(self, assigned: str | None) -> str:
        """An id for the next dispatch of a task: Airflow 3.2 and later give it one, which the database knows already.
        A second message has another id, or it would be taken for the first one."""
        is_new = assigned is not None and assigned not in self._used and assigned not in self._by_id
        return assigned if assigned is not None and is_new else self._new_id()

    def note_sent(self, flight: Flight) -> None:
        flight.sent = True
        self._used[flight.celery_id] = None
        if len(self._used) > _REMEMBERED_IDS:
            del self._used[next(iter(self._used))]

    def take(self, flight: Flight, state: str, info: Any, reason: str) -> list[Event]:
        """Take in a result.

        :param state: Celery's PENDING, STARTED, SUCCESS, FAILURE or REVOKED
        :param info: the exception, where it is one
        """
        if flight.asked:
            return self._take_answer(flight, state)
        if state == STARTED:
            flight.taken = True
            return [] if flight.is_task else [Began(flight.dispatch)]
        if state == PENDING:
            return []
        self.leave(flight)
        if state == SUCCESS:
            # Airflow's function returns only where the execution API let the task begin.
            return [Ended(flight.dispatch, Outcome.SUCCESS, began=True)]
        began = False if type(info).__name__ == _REFUSED else None
        return [Ended(flight.dispatch, Outcome.FAILED, began, reason)]

    def _take_answer(self, flight: Flight, state: str) -> list[Event]:
        """A final result may be that of an earlier half of the task: the database knows better what has become of
        it."""
        if state == STARTED:
            flight.asked, flight.waits, flight.taken = False, False, True
            return [Adopted(flight.dispatch)]
        self.leave(flight)
        return [Unknown(flight.dispatch)]
