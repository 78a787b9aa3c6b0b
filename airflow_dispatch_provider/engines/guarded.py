# SPDX-License-Identifier: Apache-2.0
"""An engine of a backend: made when it can be made, and kept from disturbing the others."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from airflow_dispatch_provider.bridge.metrics import count_failure
from airflow_dispatch_provider.bridge.users_code import is_for_the_process
from airflow_dispatch_provider.engines.engine import (
    Engine,
    Event,
    Found,
    HasLanes,
    Job,
    Measured,
    Measures,
    Terminates,
    Tidies,
)
from airflow_dispatch_provider.engines.manners import checked_events, checked_room
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.lifecycle.events import CannotRevoke, Returned, Room
from airflow_dispatch_provider.masking import LateTraceback, describe

T = TypeVar("T")

log = logging.getLogger(__name__)


class GuardedEngine:
    """One that cannot be made, or started, is tried again. Whatever it raises makes it unavailable for a while, longer
    each time, and is raised no further."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Engine],
        slots: int,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param make: makes an engine that has not been started; called again after each failure
        """
        self._name, self._make, self._clock = name, make, clock
        self._backoff = backoff or Backoff()
        self._slots = slots
        self._engine: Engine | None = None
        self.has_lanes = False
        self._scheduler_id = ""
        self._failing: dict[str, str] = {}
        """Reasons by the method that has failed last, until it succeeds."""

        self._to_adopt: list[Found] = []
        self._events: list[Event] = []
        self._stopped = False

    def __repr__(self) -> str:
        if self._engine is None:
            return f"GuardedEngine({self._name!r}, {self._trouble or 'not started'})"
        return repr(self._engine)

    @property
    def slots(self) -> int:
        """See ``Engine``."""
        return self._slots

    @slots.setter
    def slots(self, value: int) -> None:
        self._slots = value
        if self._engine is not None:
            self._engine.slots = value

    def start(self, scheduler_id: str) -> None:
        self._scheduler_id = scheduler_id
        self._start()

    def _start(self) -> None:
        self._engine = self._call("start", self._started, None)

    def _started(self) -> Engine:
        engine = self._make()
        engine.slots = self._slots
        try:
            engine.start(self._scheduler_id)
        except BaseException:
            # Nobody else would end what it has started by then.
            with suppress(Exception):
                engine.stop(self._clock())
            raise
        self.has_lanes = isinstance(engine, HasLanes) and engine.has_lanes
        return engine

    def room(self) -> Room:
        nothing = Room(0, unavailable="it does not say")
        engine = self._engine
        if engine is None:
            return replace(nothing, unavailable=self._trouble or "not started", retry_at=self._retry_at)
        room = self._call("room", lambda: checked_room(engine.room()), nothing)
        if self._failing and not self._backoff.due(self._clock()):
            return replace(room, unavailable=self._trouble, retry_at=self._retry_at)
        return room

    def lane(self, workload: Any) -> str | None:
        """See ``HasLanes``. Raises what the engine raises: a workload of a user tells nothing of the backend."""
        engine: Any = self._engine
        return engine.lane(workload) if self.has_lanes else None

    @property
    def _retry_at(self) -> float | None:
        return self._backoff.until if self._failing else None

    @property
    def _trouble(self) -> str | None:
        return next(iter(self._failing.values()), None)

    def submit(self, jobs: Sequence[Job]) -> None:
        """All of them are returned where it raises, and those that it has taken by then are taken back: what it says of
        them later is late news, and Airflow lets a task begin once."""
        engine = self._engine
        if engine is not None:
            if self._try("submit", lambda: engine.submit(jobs)):
                return
            numbers = [job.dispatch for job in jobs]
            for number in set(numbers) - self.withdraw(numbers):
                self.forget(number)
        self._events += [Returned(job.dispatch, self._trouble or "not started") for job in jobs]

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        engine, asked = self._engine, set(dispatches)
        if engine is None:
            return set()
        return self._call("withdraw", lambda: asked.intersection(engine.withdraw(dispatches)), set())

    def revoke(self, dispatch: int, over: bool = False) -> CannotRevoke | None:
        engine = self._engine
        self._do_not_adopt(dispatch)
        return (
            self._call("revoke", lambda: engine.revoke(dispatch, over), None) if engine is not None else None
        )

    def forget(self, dispatch: int) -> None:
        self._do_not_adopt(dispatch)
        if (engine := self._engine) is not None:
            self._try("forget", lambda: engine.forget(dispatch))

    def _do_not_adopt(self, dispatch: int) -> None:
        self._to_adopt = [each for each in self._to_adopt if each.dispatch != dispatch]

    def adopt(self, found: Sequence[Found]) -> None:
        """At the next poll, or as soon as there is an engine."""
        self._to_adopt += found

    def poll(self) -> list[Event]:
        if self._engine is None and not self._stopped and self._backoff.due(self._clock()):
            self._start()
        events, self._events = self._events, []
        engine = self._engine
        if engine is None:
            return events
        if found := self._to_adopt:
            self._to_adopt = [] if self._try("adopt", lambda: engine.adopt(found)) else found
        nothing: list[Event] = []
        return events + self._call("poll", lambda: checked_events(engine.poll()), nothing)

    def stop(self, deadline: float) -> set[int]:
        self._stopped = True
        engine = self._engine
        return self._call("stop", lambda: engine.stop(deadline), set()) if engine is not None else set()

    def terminate(self) -> None:
        """See ``Terminates``."""
        self._stopped = True
        engine: object = self._engine
        if isinstance(engine, Terminates):
            self._try("terminate", engine.terminate)

    def take_measured(self) -> Measured:
        """See ``Measures``."""
        engine: object = self._engine
        nothing = Measured({}, ())
        if not isinstance(engine, Measures):
            return nothing
        return self._call("take_measured", engine.take_measured, nothing)

    def tidy(self, living: Collection[str]) -> None:
        """See ``Tidies``."""
        engine: object = self._engine
        if isinstance(engine, Tidies):
            self._try("tidy", partial(engine.tidy, living))

    def _try(self, what: str, action: Callable[[], None]) -> bool:
        """Whether it has worked."""

        def act() -> bool:
            action()
            return True

        return self._call(what, act, False)

    def _call(self, what: str, action: Callable[[], T], otherwise: T) -> T:
        try:
            result = action()
        except BaseException as error:
            if is_for_the_process(error):
                raise
            self._failed(what, error)
            return otherwise
        self._worked(what)
        return result

    def _failed(self, what: str, error: BaseException) -> None:
        """Said once; what repeats itself until it works is for debugging."""
        news = not self._failing
        level = logging.ERROR if news else logging.DEBUG
        reason = describe(error)
        message = "Backend %r failed in %s and gets no new work until it works again. %s%s"
        log.log(level, message, self._name, what, reason, LateTraceback(error))
        if news:
            count_failure(self._name)
        self._failing[what] = reason
        self._backoff = self._backoff.failed(self._clock(), random.random())

    def _worked(self, what: str) -> None:
        if self._failing.pop(what, None) is not None and not self._failing:
            self._backoff = self._backoff.over()
            log.info("Backend %r works again.", self._name)
