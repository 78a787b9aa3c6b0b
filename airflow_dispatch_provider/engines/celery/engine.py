# SPDX-License-Identifier: Apache-2.0
"""Celery workers behind the engine protocol.

Two threads talk to servers: the ``Driver`` to the broker, the ``ResultWatcher`` to the result backend. The scheduler's
thread only exchanges lists with them. What a result backend loses, or what its outage delays, keeps no slot for ever:
the life cycle asks the database, and then has the engine forget the dispatch.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.celery._driver import Driver
from airflow_dispatch_provider.engines.celery._flights import Flight, Flights
from airflow_dispatch_provider.engines.celery._outbox import Outbox
from airflow_dispatch_provider.engines.celery._outgoing import Outgoing
from airflow_dispatch_provider.engines.celery._receipts import Receipts
from airflow_dispatch_provider.engines.celery._suspects import NOWHERE, Suspects
from airflow_dispatch_provider.engines.celery.brokers import Broker
from airflow_dispatch_provider.engines.celery.results import Result
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, Census, Drives, Servers, Watcher
from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.engines.outage import Backoff, OutageLog
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Broken,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Room,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.masking import LateTraceback, describe, one_line, text_of
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, EXECUTE_TASK

log = logging.getLogger(__name__)

FLUSH = 10.0
"""Seconds that ``stop`` gives the broker at most to take what was accepted."""

_NO_WORKER = "No Celery worker answers."
_LISTENS = "Does a Celery worker listen to the queue?"
"""Hints: with and without a census that tells."""

LAST_RESULTS = 1.0
"""Seconds that ``stop`` gives the result backend at most."""


class _Parts(NamedTuple):
    """Everything that talks to the servers; there is none before the engine could be started."""

    driver: Drives
    watcher: Watcher
    census: Census | None


class CeleryEngine:
    """See ``engine.Engine``. Two dispatches of one task have different Celery ids."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Servers],
        slots: int,
        options: CeleryOptions,
        kinds: Collection[str] = (EXECUTE_TASK, EXECUTE_CALLBACK),
        clock: Callable[[], float] = time.monotonic,
        drive: Callable[[Outbox, Broker, str, Callable[[], float]], Drives] = Driver,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        """
        :param connect: see ``servers.servers_of``; called again after each failure to start
        :param slots: where ``connect`` has the workers counted, only for as long as none is known
        :param kinds: workload types that its workers can run
        :param drive: makes what does the steps of an outbox
        :param new_id: gives a Celery id that nobody has
        """
        self.slots = slots
        self._name, self._connect = name, connect
        self._options, self._kinds, self._clock = options, frozenset(kinds), clock
        self._drive, self._flights = drive, Flights(new_id)
        self._suspects, self._tracks_started = Suspects(), True
        self._parts: _Parts | None = None
        self._events: list[Event] = []
        self._backoff = Backoff()
        self._outage = OutageLog(log, f"Backend {name!r}")
        self._stopped = False

    def __len__(self) -> int:
        """How many dispatches somebody waits for."""
        return len(self._flights)

    def __repr__(self) -> str:
        if self._parts is None:
            return f"CeleryEngine({self._name!r}, {self._outage.reason or 'not started'})"
        with self._parts.driver.outbox() as outbox:
            state = repr(outbox)
        problem = f", {self._parts.watcher.problem}" if self._parts.watcher.problem else ""
        return f"CeleryEngine({self._name!r}, out {len(self._flights)}, {state}{problem})"

    def start(self, scheduler_id: str) -> None:
        """A broker or result backend that cannot be reached is waited for."""
        self._start()

    def _start(self) -> None:
        try:
            broker, broker_name, watcher, census, self._tracks_started = self._connect()
            watcher.start(wait=False)
        except Exception as error:
            self._backoff = self._backoff.failed(self._clock(), random.random())
            self._outage.failed(f"it cannot be started: {describe(error)}", LateTraceback(error))
            return
        receipts = Receipts(uuid4().hex, self._options.queued_timeout)
        outbox = Outbox(self._name, broker_name, self._options.max_unsent, receipts)
        self._parts = _Parts(self._drive(outbox, broker, self._name, self._clock), watcher, census)
        self._parts.driver.start()
        if census:
            census.start()
        self._outage.over()

    def room(self) -> Room:
        if self._parts is None:
            trouble = self._outage.reason or "not started"
            return Room(0, unavailable=trouble, kinds=self._kinds, retry_at=self._backoff.until or None)
        driver, _, census = self._parts
        counted = census.slots if census else None
        now = self._clock()
        with driver.outbox() as outbox:
            return Room(
                slots=self.slots if counted is None else counted,
                takes=outbox.takes(),
                closed=outbox.closed(now),
                unavailable="its thread has died" if driver.is_dead else outbox.unavailable(now),
                kinds=self._kinds,
                retry_at=outbox.retry_at,
                hint=_NO_WORKER if census and census.has_none else _LISTENS,
            )

    # Giving

    def submit(self, jobs: Sequence[Job]) -> None:
        if self._parts is None or self._stopped:
            self._events += [Returned(job.dispatch, self._outage.reason or "not started") for job in jobs]
            return
        batch = [self._outgoing(job) for job in jobs]
        with self._parts.driver.outbox(wake=True) as outbox:
            outbox.submit(batch)

    def _outgoing(self, job: Job) -> Outgoing:
        ti = job.workload.ti if airflow_api.is_task(job.workload) else None
        celery_id = self._flights.id_for(getattr(ti, "external_executor_id", None))
        queue = job.queue or self._queue_of(job.workload)
        self._flights.enter(job.dispatch, celery_id, ti is not None, queue)
        return Outgoing(celery_id, job.dispatch, job.workload, queue)

    def _queue_of(self, workload: Any) -> str:
        if airflow_api.is_task(workload):
            return str(workload.ti.queue)
        callback = getattr(workload, "callback", None)
        named = getattr(workload, "queue", None)
        if callback is not None and isinstance(callback.data, dict):
            named = callback.data.get("queue")
        return str(named or self._options.default_queue)

    # Taking back

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        if self._parts is None:
            return set()
        flights = [flight for number in dispatches if (flight := self._flights.of(number))]
        with self._parts.driver.outbox() as outbox:
            taken = [flight for flight in flights if outbox.withdraw(flight.celery_id)]
        for flight in taken:
            self._flights.leave(flight)
        return {flight.dispatch for flight in taken}

    def revoke(self, dispatch: int, over: bool = False) -> None:
        """Workers are told to drop the message. A process that runs is not killed: whether it may go on, the execution
        API tells it, and it may be that of a task that has begun meanwhile."""
        flight = self._flights.of(dispatch)
        if flight is None or self._parts is None:
            return
        self._forget(self._parts, flight)
        with self._parts.driver.outbox(wake=True) as outbox:
            unsent = outbox.withdraw(flight.celery_id)
            if unsent or (over and flight.taken):
                outbox.settled(flight.celery_id)
            else:
                outbox.tell(flight.celery_id)
        if not over:
            ended: Event = Returned(dispatch) if unsent else Ended(dispatch, Outcome.FAILED, None, "revoked")
            self._events.append(ended)

    def forget(self, dispatch: int) -> None:
        """Its result may never come. Workers may still run it: another scheduler may wait for that very message."""
        flight = self._flights.of(dispatch)
        if flight is None or self._parts is None:
            return
        self._forget(self._parts, flight)
        with self._parts.driver.outbox() as outbox:
            outbox.withdraw(flight.celery_id)
            outbox.settled(flight.celery_id)

    def _forget(self, parts: _Parts, flight: Flight) -> None:
        self._flights.leave(flight)
        parts.watcher.forget(flight.celery_id)

    # Adopting

    def adopt(self, found: Sequence[Found]) -> None:
        """The result backend is asked, and knows of a task that a worker has begun with. One that waits in a queue
        cannot be found there, nor can anything where results are messages to the dead scheduler. It will be sent
        anew: workers are told to drop the message that waits, lest each finds out by a refusal."""
        for each in found:
            celery_id = getattr(each.ti, "external_executor_id", None)
            if self._parts is None:
                continue
            if known := self._flights.of(each.dispatch):
                self._events += [] if known.asked else [Adopted(each.dispatch)]
                continue
            if not celery_id:
                self._events.append(Unknown(each.dispatch))
                continue
            self._flights.adopt(each.dispatch, str(celery_id), each.runs)
            self._parts.watcher.look(str(celery_id))

    # News

    def poll(self) -> list[Event]:
        if self._parts is None and not self._stopped and self._backoff.due(self._clock()):
            self._start()
        events, self._events = self._events, []
        return events if self._parts is None else [*events, *self._news(self._parts)]

    def _news(self, parts: _Parts) -> Iterator[Event]:
        results = parts.watcher.drain()
        with parts.driver.outbox() as outbox:
            said, doubts, counts = outbox.take_events(), outbox.take_doubts(), outbox.take_counts()
            for result in results:  # a worker has the message, or had it
                outbox.settled(result.celery_id)
        for event in said:
            yield from self._pass_on(parts, event)
        if doubts:
            self._suspects.add(self._clock(), filter(None, map(self._flights.of_id, doubts)))
        for result in results:
            yield from self._take(parts, result)
        yield from self._nowhere(parts, counts) if self._tracks_started else ()

    def _nowhere(self, parts: _Parts, counts: Mapping[str, int]) -> list[Event]:
        """Ends of messages that are with nobody; see ``Suspects``."""
        now = self._clock()
        watcher = parts.watcher
        self._suspects.note(now, watcher.outages, watcher.problem is not None, self._flights)
        if queues := self._suspects.queues(now):
            with parts.driver.outbox(wake=True) as outbox:
                outbox.count(queues)
        dropped = self._suspects.judge(counts)
        if dropped:
            message = (
                "Backend %r: %d messages are in no queue, and with no worker. "
                "Their tasks are sent again, unless they have begun. "
                "Workers drop what they take while the result backend is away, "
                "unless they have result_backend_always_retry."
            )
            log.warning(message, self._name, len(dropped))
        for flight in dropped:
            self.forget(flight.dispatch)
        return [Ended(each.dispatch, Outcome.FAILED, None, NOWHERE, mishap=True) for each in dropped]

    def _pass_on(self, parts: _Parts, event: Event) -> list[Event]:
        """News of the broker, unless nobody waits for it any more."""
        if isinstance(event, Broken | Recovered):
            return [event]
        flight = self._flights.of(event.dispatch)
        if flight is None:
            return []
        if isinstance(event, Sent):
            self._flights.note_sent(flight)
            parts.watcher.watch(flight.celery_id)
            return [event if flight.is_task else Sent(event.dispatch)]
        if isinstance(event, Returned | Rejected | Ended):
            self._forget(parts, flight)
        if isinstance(event, Ended) and not flight.is_task and not flight.taken:
            return [event._replace(began=False)]  # there is no row to ask
        return [event]

    def _take(self, parts: _Parts, result: Result) -> list[Event]:
        """News of the result backend."""
        flight = self._flights.of_id(result.celery_id)
        if flight is None:
            return []
        events = self._flights.take(flight, result.state, result.info, _words(result.info))
        if self._flights.of(flight.dispatch) is None:
            parts.watcher.forget(flight.celery_id)
            if flight.waits:
                with parts.driver.outbox(wake=True) as outbox:
                    outbox.tell(flight.celery_id)
        return events

    def stop(self, deadline: float) -> set[int]:
        self._stopped = True
        if self._parts is None:
            return set()
        driver, watcher, census = self._parts
        deadline = min(deadline, self._clock() + FLUSH)
        unsent = set(driver.stop(deadline))
        watcher.stop(max(0.0, min(LAST_RESULTS, deadline - self._clock())))
        if census:
            census.stop()
        for dispatch in unsent:
            if flight := self._flights.of(dispatch):
                self._flights.leave(flight)
        return unsent


def _words(info: Any) -> str:
    if isinstance(info, BaseException):
        return describe(info)
    return one_line(text_of(info)) if info is not None else ""
