# SPDX-License-Identifier: Apache-2.0
"""The dispatch loop: tells the life cycle's machine what happens, and does what it wants done.

Everything here runs on the scheduler's thread. Decisions are the machine's, work is the engines', database work the
clerk's.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from airflow_dispatch_provider.bridge import metrics
from airflow_dispatch_provider.bridge.executor_classes import is_terminal
from airflow_dispatch_provider.dispatch.tidying import Living, Tidying
from airflow_dispatch_provider.engines.engine import Engine, Found, HasLanes, Job, Terminates
from airflow_dispatch_provider.lifecycle import actions, events
from airflow_dispatch_provider.lifecycle.actions import Dispatch
from airflow_dispatch_provider.lifecycle.events import Returned, Rows, Tick
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Outcome, State
from airflow_dispatch_provider.masking import LateTraceback, describe
from airflow_dispatch_provider.routing.model import TaskRef

log = logging.getLogger(__name__)

T = TypeVar("T")

_REASON = attrgetter("reason")
_NOT_TAKEN = "its backend could not take it over"
_NO_POLL = "it could not be asked for its news"
_NO_LANES: Mapping[str, str] = {}
_LAST_QUESTIONS = 5.0
"""Seconds for what the database was still asked at the end."""

_OWED = (State.UNCLEAR, State.RETURNING)


class ClerkLike(Living, Protocol):
    """See ``clerk.Clerk``."""

    def start(self) -> None: ...

    def look_up(self, asked: int, ids: Mapping[Hashable, Any]) -> None: ...

    def put_back(self, asked: int, ids: Mapping[Hashable, Any]) -> None: ...

    def restart(self, asked: int, ids: Mapping[Hashable, Any]) -> None: ...

    def unstart(self, asked: int, ids: Mapping[Hashable, Any]) -> None: ...

    def refresh(self, ids: Mapping[Hashable, Any]) -> None: ...

    def ask_api(self) -> None: ...

    def answers(self) -> list[Rows | events.Unanswered | events.Recovered | events.Broken]: ...

    def stop(self, timeout: float) -> None: ...


class Surface(Protocol):
    """The part of the executor that Airflow calls which the loop needs."""

    def prepare(self, dispatch: Dispatch, backend: str) -> Any:
        """The workload as its backend should have it, with a token that is valid from now on, and with Airflow's
        ``external_executor_id`` at its first dispatch alone."""
        ...

    def dispatched(self, backend: str, dispatches: Sequence[Dispatch]) -> None:
        """A row in the event log for each: the evidence by which another scheduler adopts it."""
        ...

    def record(self, key: Hashable, word: str, detail: str) -> None:
        """A row in the event log of a task."""
        ...

    def value_of(self, action: actions.Emit | actions.EmitId) -> Any:
        """The value of an event, as Airflow expects it for that kind of workload."""
        ...


def _no_room() -> events.Room:
    return events.Room(0, unavailable="it cannot say what room it has")


def _lane_of(backend: str) -> str:
    return f"The question to backend {backend!r} for a lane"


def _name_of(action: actions.Action) -> str:
    name, backend = type(action).__name__, getattr(action, "backend", "")
    return f"{name} of backend {backend!r}" if backend else name


class Loop:
    """One machine, the engines of its backends, and a clerk."""

    def __init__(
        self,
        machine: Machine,
        engines: Mapping[str, Engine],
        clerk: ClerkLike,
        surface: Surface,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param clock: monotonic seconds, asked again after whatever may take long
        """
        self.machine = machine
        self.engines = dict(engines)
        self._clerk, self._surface, self._clock = clerk, surface, clock
        self._stopped = False
        self._scheduler_id = ""
        self._failing: set[str] = set()
        """Things that could not be done the last time."""

        self._tidying = Tidying(self.engines, clerk)
        self._with_lanes = {
            name: engine for name, engine in self.engines.items() if isinstance(engine, HasLanes)
        }
        self._untold: list[actions.Emit | actions.EmitId] = []
        self._do: dict[type[Any], Callable[[Any], list[Any] | None]] = {
            actions.Submit: self._submit,
            actions.Withdraw: self._withdraw,
            actions.Revoke: self._revoke,
            actions.Forget: self._forget,
            actions.Adopt: self._adopt,
            actions.Emit: self._emit,
            actions.EmitId: self._emit,
            actions.Record: self._record,
            actions.Refresh: self._refresh,
            actions.LookUp: self._look_up,
            actions.PutBack: self._put_back,
            actions.Restart: self._restart,
            actions.Unstart: self._unstart,
            actions.AskApi: self._ask_api,
            actions.Log: self._log,
            actions.CountFailure: self._count_failure,
        }

    def start(self, scheduler_id: str, now: float) -> None:
        """The clerk comes last: a local engine forks, as long as no thread runs."""
        self._scheduler_id = scheduler_id
        for engine in self.engines.values():
            engine.start(scheduler_id)
        self._clerk.start()
        self.tell(now, Tick(self._rooms()))

    def add(self, name: str, engine: Engine, *, ends_last: bool = False) -> None:
        """Start one more engine, whose backend the machine is told of next. Threads run by now: a local engine does not
        fork."""
        others = dict(self.engines)
        self.engines.clear()
        self.engines.update({name: engine, **others} if ends_last else {**others, name: engine})
        if isinstance(engine, HasLanes):
            self._with_lanes[name] = engine
        start = partial(engine.start, self._scheduler_id)
        self._guarded(f"The start of backend {name!r}", start, lambda: None)

    def remove(self, name: str) -> Engine:
        """Forget the engine of a backend that the machine has forgotten; the caller stops it."""
        self._with_lanes.pop(name, None)
        return self.engines.pop(name)

    # From Airflow

    def queue(self, key: Hashable, workload: Any, ref: TaskRef, priority: int, now: float) -> None:
        """Hold a workload; nothing is decided before the next heartbeat."""
        subject = getattr(workload, "ti", None)
        lanes = self._lanes_of(workload) if self._with_lanes else _NO_LANES
        self.tell(now, events.Queued(key, ref, priority, workload, lanes, subject))

    def _lanes_of(self, workload: Any) -> Mapping[str, str]:
        """The lane of each backend that the workload would use there."""
        lanes = {}
        for name, engine in self._with_lanes.items():
            if engine.has_lanes and (lane := self._lane(name, engine, workload)) is not None:
                lanes[name] = lane
        return lanes

    def _lane(self, name: str, engine: HasLanes, workload: Any) -> str | None:
        """As ``_guarded``, in the way of ``_perform``: there is one for each workload."""
        try:
            lane = engine.lane(workload)
            if not isinstance(lane, str | None):
                raise TypeError(f"a lane is a text or None, not {type(lane).__name__}")
        except Exception as error:
            self.note_failure(_lane_of(name), error)
            return None
        if self._failing:
            self._failing.discard(_lane_of(name))
        return lane

    def offer(self, offered: events.Offered, now: float) -> None:
        """A task of a scheduler that has died, with the task instance as its ``subject``."""
        self.tell(now, offered)

    def revoke(self, key: Hashable, now: float) -> bool:
        """Take a task back, wherever it is; False where its backend cannot: Airflow then leaves it waiting."""
        if not self.machine.can_revoke(key):
            return False
        self.tell(now, events.Revoke(key))
        return key not in self.machine

    def give_up(self, key: Hashable, now: float) -> None:
        """Airflow has found a workload dead, or too slow: stop it if that can be done, and forget it."""
        self.tell(now, events.Revoke(key, dead=True))

    def heartbeat(self, now: float, buffer: dict[Any, Any]) -> None:
        """Decide and submit, let the engines work, take in what they say.

        :param buffer: the event buffer, which Airflow empties; one event for a key at a time
        """
        if not self._stopped:
            self.tell(now, *self._clerk.answers(), Tick(self._rooms()))
            for name, engine in self.engines.items():
                self._poll(name, engine)
            self._guarded("The tidying up after dead schedulers", partial(self._tidying.beat, now), bool)
        self._fill(buffer)

    def _poll(self, name: str, engine: Engine) -> None:
        """Its news count at once, however long the other engines take; that time passes is news, too."""
        what = f"The poll of backend {name!r}"
        news: list[Any] = self._guarded(what, engine.poll, lambda: [events.Broken(name, _NO_POLL)])
        self._guarded(f"The news of backend {name!r}", lambda: self.tell(self._clock(), *news), lambda: None)

    def _rooms(self) -> dict[str, events.Room]:
        return {
            name: self._guarded(f"The question to backend {name!r} for its room", engine.room, _no_room)
            for name, engine in self.engines.items()
        }

    def tell(self, now: float, *happened: Any) -> None:
        """Let the machine handle events, do what it wants, and tell it what came of that, until nothing does."""
        while True:
            news: list[Any] = []
            for action in self.machine.handle(now, *happened):
                news += self._perform(action)
            if not news:
                return
            happened = tuple(news)

    def _perform(self, action: actions.Action) -> Sequence[Any]:
        """Do it, and return the news of it. As ``_guarded``, but its name is only made where it has failed: there are
        several for each job."""
        try:
            came = self._do[type(action)](action)
        except Exception as error:
            self.note_failure(_name_of(action), error)
            return self._undone(action)
        if self._failing:
            self._failing.discard(_name_of(action))
        return came or ()

    def _undone(self, action: actions.Action) -> list[Any]:
        """The news of an action that could not be done."""
        if isinstance(action, actions.Submit):
            return self._take_back(action.backend, [each.number for each in action.dispatches])
        if isinstance(action, actions.Adopt):
            return [events.Unknown(each.number) for each in action.found]
        return []

    def _take_back(self, backend: str, numbers: Sequence[int]) -> list[Any]:
        """An engine may have taken some of these. What it gives back was not sent; what became of the others, the
        database will tell."""
        engine, what = self.engines[backend], f"The taking back from backend {backend!r}"
        unsent: set[int] = self._guarded(what, lambda: engine.withdraw(numbers), set)
        sent = [number for number in numbers if number not in unsent]
        for number in sent:
            self._guarded(what, partial(engine.forget, number), lambda: None)
        failed = [events.Ended(number, Outcome.FAILED, None, _NOT_TAKEN) for number in sent]
        return [*map(Returned, unsent), *failed]

    def _guarded(self, what: str, call: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """One thing that cannot be done keeps no other from being done. Said once, until it can."""
        try:
            result = call()
        except Exception as error:
            self.note_failure(what, error)
            return otherwise()
        if self._failing:
            self._failing.discard(what)
        return result

    def note_failure(self, what: str, error: Exception) -> None:
        """Something could not be done, and nothing else is kept from being done by that."""
        level = logging.DEBUG if what in self._failing else logging.ERROR
        log.log(level, "%s could not be done. %s%s", what, describe(error), LateTraceback(error))
        self._failing.add(what)

    def _fill(self, buffer: dict[Any, Any]) -> None:
        """An event that would replace a terminal one waits until Airflow has taken that one."""
        later = []
        for action in self._untold:
            key = action.key
            if key in buffer and is_terminal(buffer[key]):
                later.append(action)
            elif value := self._guarded(
                "The event for Airflow", partial(self._surface.value_of, action), bool
            ):
                buffer[key] = value
        self._untold = later

    def stop(self, deadline: float, buffer: dict[Any, Any]) -> None:
        """End the engines, the last one first, and tell Airflow what they still said. Nothing is submitted any more.
        The database is waited for where its answer ends something, for a few seconds."""
        self._stop(deadline, buffer, _LAST_QUESTIONS)

    def _stop(self, deadline: float, buffer: dict[Any, Any], patience: float) -> None:
        self._stopped = True
        # While one engine is waited for, another one would start what it was given ahead.
        unsent_keys = [key for key in self.machine if self.machine.state(key) is State.SUBMITTED]
        self.tell(self._clock(), *map(events.Recall, unsent_keys))
        for name, engine in reversed(self.engines.items()):
            stop = partial(engine.stop, deadline)
            unsent: set[int] = self._guarded(f"The stop of backend {name!r}", stop, set)
            self.tell(self._clock(), *map(Returned, unsent))
            self._poll(name, engine)
        self._clerk.stop(patience if self._is_owed_answers else 0.0)
        self.tell(self._clock(), *self._clerk.answers())
        self._fill(buffer)

    @property
    def _is_owed_answers(self) -> bool:
        """Whether the database decides about a job what Airflow is told of it."""
        return any(self.machine.state(key) in _OWED for key in self.machine)

    def terminate(self, buffer: dict[Any, Any]) -> None:
        """End the engines at once, and what runs in them. The database is not waited for."""
        for name, engine in self.engines.items():
            if isinstance(engine, Terminates):
                self._guarded(f"The end of what runs in backend {name!r}", engine.terminate, bool)
        self._stop(0.0, buffer, 0.0)

    # What the machine wants done

    def _submit(self, action: actions.Submit) -> list[Any]:
        """Recorded before it is sent: a dispatch without evidence could not be adopted."""
        self._surface.dispatched(action.backend, action.dispatches)
        for reason, number in Counter(map(_REASON, action.dispatches)).items():
            metrics.count_dispatches(action.backend, reason.value, number)
        jobs, failed = [], []
        for each in action.dispatches:
            try:
                workload = self._surface.prepare(each, action.backend)
            except Exception as error:
                failed.append(events.Rejected(each.number, describe(error)))
            else:
                jobs.append(Job(each.number, each.key, workload, each.target.queue))
        self.engines[action.backend].submit(jobs)
        return failed

    def _withdraw(self, action: actions.Withdraw) -> list[Any]:
        engine = self.engines.get(action.backend)
        return (
            [Returned(number) for number in engine.withdraw(action.dispatches)] if engine is not None else []
        )

    def _revoke(self, action: actions.Revoke) -> list[Any]:
        engine = self.engines.get(action.backend)
        cannot = engine.revoke(action.dispatch, action.over) if engine is not None else None
        return [] if cannot is None else [cannot]

    def _forget(self, action: actions.Forget) -> None:
        if action.backend in self.engines:
            self.engines[action.backend].forget(action.dispatch)

    def _adopt(self, action: actions.Adopt) -> None:
        subject = self.machine.subject
        found = [Found(each.number, each.key, subject(each.key), each.runs) for each in action.found]
        self.engines[action.backend].adopt(found)

    def _emit(self, action: actions.Emit | actions.EmitId) -> None:
        self._untold.append(action)

    def _record(self, action: actions.Record) -> None:
        self._surface.record(action.key, action.word, action.detail)

    def _refresh(self, action: actions.Refresh) -> None:
        self._clerk.refresh(self._ids(action.keys))

    def _look_up(self, action: actions.LookUp) -> None:
        self._clerk.look_up(action.asked, self._ids(action.keys))

    def _put_back(self, action: actions.PutBack) -> None:
        self._clerk.put_back(action.asked, self._ids(action.keys))

    def _restart(self, action: actions.Restart) -> None:
        self._clerk.restart(action.asked, self._ids(action.keys))

    def _unstart(self, action: actions.Unstart) -> None:
        self._clerk.unstart(action.asked, self._ids(action.keys))

    def _ask_api(self, action: actions.AskApi) -> None:
        self._clerk.ask_api()

    def _ids(self, keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        """Those that are still in our care."""
        subjects = {key: self.machine.subject(key) for key in keys}
        return {key: subject.id for key, subject in subjects.items() if subject is not None}

    def _log(self, action: actions.Log) -> None:
        text = action.message % action.arguments
        if action.error:
            log.error("%s", text)
        else:
            log.info("%s", text)

    def _count_failure(self, action: actions.CountFailure) -> None:
        metrics.count_failure(action.backend)
