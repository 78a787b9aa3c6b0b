# SPDX-License-Identifier: Apache-2.0
"""The thread that learns how Celery tasks have ended, so that the scheduler never waits for a result backend."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Protocol

from celery import Celery, states
from kombu import Queue

from airflow_dispatch_provider.engines.celery import result_sources
from airflow_dispatch_provider.engines.celery.results import Result, ResultSource, Timing
from airflow_dispatch_provider.masking import describe
from airflow_dispatch_provider.routing.circuit import growing_delay

log = logging.getLogger(__name__)

_REST = 4.0
"""A question that took one second is followed by so many without: a fifth of the time is spent asking."""

_ANNOUNCEMENT = 5.0
_MAX_EARLY = 10_000


class Open(Protocol):
    """Connects to a result backend, as ``result_sources.open_source`` does."""

    def __call__(self, app: Celery, timing: Timing) -> ResultSource: ...


def backoff(failures: int, timing: Timing) -> float:
    """Seconds to wait after so many failures in a row: up to twice as long each time, half of it by chance."""
    longest = growing_delay(failures, timing.min_backoff, timing.max_backoff)
    return random.uniform(longest / 2, longest)


class Watchlist:
    """Who is waited for and what has come. For any thread; no method waits."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watched: dict[str, bool] = {}
        self._new: set[str] = set()
        self._looked_for: set[str] = set()
        self._early: dict[str, Result] = {}
        self._results: list[Result] = []

    @property
    def watched(self) -> Mapping[str, bool]:
        """Whether a watched id is known to have started. To look things up in, not to iterate over."""
        return self._watched

    def add(self, celery_id: str, look: bool = False) -> None:
        """
        :param look: say so, too, if the backend knows nothing of it
        """
        with self._lock:
            if look:
                self._looked_for.add(celery_id)
            if celery_id not in self._watched:
                self._watched[celery_id] = False
                self._new.add(celery_id)
                if early := self._early.pop(celery_id, None):
                    self._note(early)

    def remove(self, celery_id: str) -> None:
        with self._lock:
            self._watched.pop(celery_id, None)
            self._new.discard(celery_id)
            self._looked_for.discard(celery_id)

    def take_new(self) -> Collection[str]:
        """Ids that were added since the last call."""
        if not self._new:
            return ()
        with self._lock:
            new, self._new = self._new, set()
        return new

    def all(self) -> Collection[str]:
        with self._lock:
            return list(self._watched)

    def deliver(self, results: Iterable[Result], once: bool = False) -> None:
        """Keep what is news of a watched id; a final result ends the watch.

        :param once: nobody will tell it again, so the last of each other id is kept, too, in case it is added yet
        """
        with self._lock:
            for result in results:
                if result.celery_id in self._watched:
                    self._note(result)
                elif once:
                    self._early[result.celery_id] = result
            while len(self._early) > _MAX_EARLY:
                del self._early[next(iter(self._early))]

    def found_nothing(self, asked: Collection[str]) -> None:
        """The backend has answered for all of these, and what it knows of them is delivered."""
        with self._lock:
            unknown = self._looked_for.intersection(asked)
            self._looked_for -= unknown
            self._results += [Result(celery_id, states.PENDING) for celery_id in unknown]

    def _note(self, result: Result) -> None:
        self._looked_for.discard(result.celery_id)
        if result.final:
            del self._watched[result.celery_id]
            self._new.discard(result.celery_id)
        elif self._watched[result.celery_id]:
            return
        else:
            self._watched[result.celery_id] = True
        self._results.append(result)

    def drain(self) -> list[Result]:
        """Results delivered since the last call."""
        if not self._results:
            return []
        with self._lock:
            results, self._results = self._results, []
        return results


class ResultWatcher:
    """Finds the results of watched Celery tasks. The executor calls it from the scheduler's thread.

    Each watched id yields at most one STARTED and exactly one final result, and is then forgotten. An id that is
    watched before its message is sent is never late; one that is watched later is asked for within ``Timing.tick``.
    """

    def __init__(
        self,
        app: Celery,
        timing: Timing | None = None,
        open_source: Open = result_sources.open_source,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._timing = timing or Timing()
        self._open = open_source
        self._clock = clock
        self._list = Watchlist()
        self._stopping = Event()
        self._announced = Event()
        self._outage: tuple[float, str] | None = None
        self.outages = 0
        """How many there were, and are over."""

        self._moved: float | None = None
        self._failures = 0
        self._noted: str | None = None
        self._name = ""
        self._thread: Thread | None = None
        self.reply_queue: Queue | None = None
        """The queue for results, where these are messages: whoever publishes a task can declare it."""

    def start(self, wait: bool = True) -> None:
        """Start the thread.

        :param wait: a moment for ``reply_to``, but for no server
        :raises ResultBackendError: this app's result backend cannot give results, whatever happens
        """
        result_sources.backend_class(self._app)
        self._name = result_sources.backend_name(self._app)
        self._moved = self._clock()
        self._thread = Thread(target=self._run, name="dispatch-celery-results", daemon=True)
        self._thread.start()
        if wait:
            self._announced.wait(_ANNOUNCEMENT)

    def await_reply_queue(self) -> Queue | None:
        """See ``reply_queue``. For threads that may wait until it is known."""
        self._announced.wait(_ANNOUNCEMENT)
        return self.reply_queue

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread. Waits so many seconds for it; one that hangs in a call ends when that returns."""
        self._stopping.set()
        if self._thread:
            self._thread.join(timeout)

    @property
    def reply_to(self) -> str | None:
        """The ``reply_to`` of messages to workers; None where results are not sent as messages."""
        return str(self.reply_queue.name) if self.reply_queue else None

    @property
    def problem(self) -> str | None:
        """The trouble with the result backend at this moment, in one sentence; None: no trouble."""
        now = self._clock()
        if outage := self._outage:
            since, error = outage
            return f"The result backend {self._name} has not been usable for {now - since:.0f} s: {error}"
        if (
            self._moved is not None
            and not self._stopping.is_set()
            and now - self._moved >= self._timing.stuck
        ):
            return f"The result backend {self._name} has not answered for {now - self._moved:.0f} s."
        return None

    def watch(self, celery_id: str) -> None:
        """Report what becomes of this Celery task, also what has become of it already."""
        self._list.add(celery_id)

    def look(self, celery_id: str) -> None:
        """The same, and report PENDING once the backend has answered that it knows nothing of it."""
        self._list.add(celery_id, look=True)

    def forget(self, celery_id: str) -> None:
        """Report nothing more of it, except what waits in ``drain`` already."""
        self._list.remove(celery_id)

    def drain(self) -> list[Result]:
        """Results that became known since the last call. Does not wait."""
        return self._list.drain()

    def _run(self) -> None:
        while not self._stopping.is_set():
            source: ResultSource | None = None
            try:
                self._announce()
                source = self._open(self._app, self._timing)
                self._attend(source)
            except Exception as error:
                if not self._stopping.is_set():
                    self._fail(error)
            if source:
                with suppress(Exception):
                    source.close()
            if not self._stopping.is_set():
                self._moved = self._clock()
                self._stopping.wait(backoff(self._failures, self._timing))

    def _announce(self) -> None:
        if not self._announced.is_set():
            try:
                self.reply_queue = result_sources.reply_queue(self._app)
            finally:
                self._announced.set()

    def _attend(self, source: ResultSource) -> None:
        """Ask for new ids soon, and for all of them at first and whenever it is due."""
        all_due = resting = opened = self._clock()
        while not self._stopping.is_set():
            now = self._moved = self._clock()
            everything = now >= all_due
            if now >= resting and (ids := self._choose(everything)) is not None:
                self._ask(source, ids)
                resting = self._clock() + _REST * (self._clock() - now)
                if everything:
                    all_due = max(resting, self._clock() + source.interval)
                    self._succeed(source, self._clock() - opened)
            came = source.receive(self._list.watched, self._timing.tick, self._stopping)
            self._list.deliver(came, source.once)

    def _choose(self, everything: bool) -> Collection[str] | None:
        new = self._list.take_new()
        return self._list.all() if everything else new or None

    def _ask(self, source: ResultSource, ids: Collection[str]) -> None:
        for results in source.ask(ids, self._list.watched):
            self._moved = self._clock()
            self._list.deliver(results, source.once)
            if self._stopping.is_set():
                return
        self._list.found_nothing(ids)

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        since = self._outage[0] if self._outage else self._clock()
        level = logging.DEBUG if self._outage else logging.WARNING
        self._outage = since, describe(error)
        log.log(
            level,
            "The result backend %s is not usable; what has finished becomes known when it is back: %s",
            self._name,
            describe(error),
        )

    def _succeed(self, source: ResultSource, age: float) -> None:
        if source.note and source.note != self._noted:
            log.warning("%s", source.note)
        self._noted = source.note
        if age >= self._timing.max_backoff:
            self._failures = 0
        if self._outage:
            log.info(
                "The result backend %s is back after %.0f s.", self._name, self._clock() - self._outage[0]
            )
            self._outage, self.outages = None, self.outages + 1
