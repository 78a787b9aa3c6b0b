# SPDX-License-Identifier: Apache-2.0
"""Models of what is behind a backend, and of its engine.

A place (a broker with workers, a cluster, a machine) outlives the schedulers; an engine is one scheduler's view of it.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from airflow_dispatch_provider.engines.celery.engine import CeleryEngine
from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.engines.local.engine import LocalEngine
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    CannotRevoke,
    Ended,
    Rejected,
    Returned,
    Room,
    Sent,
    Stalled,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.simulation.tasks import Api, Task, Tasks

FAILED = Outcome.FAILED
REJECTED, STALLED, _RENAMED = 0.003, 0.02, 0.02
"""Parts of the jobs that cannot be sent, for no reason that others share; that do not start at once, as their engine
says; that their place names anew."""


_LINGERS = (0.0, 0.5, 3.0) * 5 + (120.0,)
"""Seconds that a process still has to do after its task is over."""

_REMEMBERED = 100
"""Failures of a place."""


class Kind(NamedTuple):
    """A kind of backend."""

    revokes: bool = True
    """Its engine can take back what it has sent."""

    hollow: bool = False
    """Something else than the task may end well there."""


LOCAL = Kind()
CELERY = Kind()
KUBERNETES = Kind(hollow=True)
FOREIGN = Kind(revokes=False, hollow=True)


class ModelError(Exception):
    """Raised by a model, on purpose."""


class Clock(Protocol):
    """See ``world.World``."""

    now: float
    tasks: Tasks

    def random(self, *of: object) -> Random: ...

    def after(self, seconds: float, call: Callable[[], None]) -> None: ...

    def note(self, task: Task, what: str) -> None: ...

    def disturb(self, name: str, seconds: float) -> None: ...


@dataclass(eq=False)
class Run:
    """One dispatch, as its place has it: a message, a pod or a process."""

    task: Task
    ti_id: UUID
    engine: PlaceEngine | None
    """Who hears of it; None: its scheduler has died."""

    dispatch: int
    rng: Random
    is_local = False
    """A process on the host of the schedulers."""

    runs: bool = False
    """Its own code does."""

    began: bool = False
    over: bool = False
    """It is there no more."""


R = TypeVar("R", bound=Run)


class Place(metaclass=ABCMeta):
    """One of a backend."""

    def __init__(self, world: Clock, name: str, kind: Kind) -> None:
        self.world, self.name, self.kind = world, name, kind
        self.up, self.mute = True, False
        """It can be reached; it does not answer who has what."""

        self.raises = False
        """Whatever its engine is asked while it cannot be reached raises an error."""

        self.slow = self.late = self.reverses = False
        """Its engines send nothing; they keep all news of what they were given to themselves; so, too, and tell it
        in the wrong order then."""

        self.idle = self.refuses = self.breaks = self.hollow = False
        """Nothing begins; nothing can be sent; all ends before it begins; all ends well before it begins, as its engine
        sees it that cannot know."""

        self.is_small = False
        """It has a quarter of its slots."""

        self.closed: dict[str, str] = {}
        """Lanes that are full."""

        self.reopened: dict[str, float] = {}
        """Virtual seconds since when each is not full any more."""

        self.failures: deque[tuple[float, Task]] = deque(maxlen=_REMEMBERED)
        """When (virtual seconds) what came to nothing here last, as its engine was told."""

        self.runs: dict[Run, None] = {}
        self.numbers = count(1)
        """Names of its engines."""

    @property
    def shows_the_api(self) -> bool:
        """Whether what is sent here shows, before long, whether the execution API answers here, if its engine can see
        that at all."""
        return True

    def go_away(self, empties: bool) -> None:
        """It cannot be reached from now on.

        :param empties: what it keeps for others is lost
        """
        self.up = False

    def reopen(self, lane: str) -> None:
        """It is not full any more."""
        del self.closed[lane]
        self.reopened[lane] = self.world.now

    @abstractmethod
    def engine(self, slots: int) -> PlaceEngine:
        """That of one scheduler."""

    def enter(self, run: R) -> R:
        """It is there from now on."""
        self.runs[run] = None
        self.world.after(run.rng.uniform(0.05, 3.0), lambda: self.begin(run))
        return run

    def begin(self, run: Run) -> None:
        if run.over:
            return
        if self.idle:
            self.world.after(5.0, lambda: self.begin(run))
            return
        if self.breaks:
            self._end(run, Ended(run.dispatch, FAILED, None, "no image"))
            return
        if self.hollow and self.kind.hollow:
            self._end(run, Ended(run.dispatch, Outcome.SUCCESS))
            return
        answer = self.world.tasks.start(run.task, run.ti_id, run, self.world.now)
        self.world.note(run.task, f"{answer.value} at {self.name}")
        if answer is Api.REFUSED:
            self._end(run, Ended(run.dispatch, FAILED, False, "refused"))
        elif answer is Api.AWAY:
            run.task.excused |= run.task.run is run and not self.is_heard(run)
            self._end(run, Ended(run.dispatch, FAILED, None, "no API"), in_vain=False)
        else:
            run.runs = run.began = run.task.begun = True
            self.tell_begun(run)
            self.world.after(run.rng.choice((0.5, 2.0, 10.0, 60.0)), lambda: self._finish(run))

    def is_heard(self, run: Run) -> bool:
        """Whether its engine hears what the execution API has told it."""
        return False

    def _finish(self, run: Run) -> None:
        if run.over:
            return
        if self.world.tasks.finish(run.task, run):
            run.runs = False
            self.world.after(run.rng.choice(_LINGERS), lambda: self._exit(run))
        else:
            self.world.after(5.0, lambda: self._finish(run))

    def _exit(self, run: Run) -> None:
        """A process has something left to do after its task is over, and may be killed meanwhile."""
        if not run.over:
            self._end(run, Ended(run.dispatch, Outcome.SUCCESS))

    def beat(self) -> None:
        """Heartbeats of all that runs; what is somebody else's by now ends."""
        for run in list(self.runs):
            if run.runs and not self.world.tasks.heartbeat(run.task, run, self.world.now):
                self._end(run, Ended(run.dispatch, FAILED, None, "not its task"))

    def kill(self, run: Run, reason: str, told: bool = True) -> None:
        """It is gone, in the middle of whatever it did."""
        end = Ended(run.dispatch, FAILED, None, reason, mishap=not run.began)
        self._end(run, end if told else None)

    def give_back(self, run: Run, is_own_fault: bool) -> None:
        """It does not begin any more, and its engine hears so."""
        self._end(run, (Rejected if is_own_fault else Returned)(run.dispatch, "given back"))

    @abstractmethod
    def deny(self, run: Run, is_own_fault: bool) -> None:
        """Its engine hears that it was not sent, or has ended, and that is not so."""

    def note_failure(self, task: Task) -> None:
        self.failures.append((self.world.now, task))

    def tell_begun(self, run: Run) -> None:
        """A few get another id from their place, as a pod that is made anew."""
        if run.rng.random() < _RENAMED:
            self.tell(run, Sent(run.dispatch, "renamed"))

    @abstractmethod
    def tell(self, run: Run, *news: Event) -> None:
        """Its engine, if it has one."""

    def _end(self, run: Run, news: Event | None, in_vain: bool = True) -> None:
        """
        :param in_vain: it may count against its task that it has not begun
        """
        run.over, run.runs = True, False
        self.runs.pop(run, None)
        if not run.began:
            if in_vain:
                run.task.came_to_nothing(self.world.now)
            run.task.excused |= not (run.task.is_task or self.is_heard(run))
        self.world.note(run.task, getattr(news, "reason", "lost"))
        if not run.began or not (isinstance(news, Ended) and news.how is Outcome.SUCCESS):
            self.note_failure(run.task)
        if news is not None:
            self.tell(run, news)

    def desert(self, engine: PlaceEngine) -> None:
        """Its scheduler has died."""
        engine.is_dead = True
        for run in list(self.runs):
            if run.engine is engine:
                run.engine = None


_LATE = (Sent, Stalled, Began, Ended, Returned, Rejected, Adopted)


class PlaceEngine(metaclass=ABCMeta):
    """See ``engine.Engine``. The code of an engine of this package, without its threads, among models of what it talks
    to."""

    def __init__(self, place: Place, slots: int) -> None:
        self.slots = slots
        self.place, self.is_dead = place, False
        self.news: list[Event] = []
        self._reversed = False

    @abstractmethod
    def __len__(self) -> int: ...

    def has_room(self, used: int) -> bool:
        """Whether one more could go there.

        :param used: slots, as its scheduler counts them
        """
        return used < self.slots

    @abstractmethod
    def start(self, scheduler_id: str) -> None: ...

    @abstractmethod
    def room(self) -> Room: ...

    @abstractmethod
    def submit(self, jobs: Sequence[Job]) -> None: ...

    @abstractmethod
    def withdraw(self, dispatches: Collection[int]) -> set[int]: ...

    @abstractmethod
    def revoke(self, dispatch: int, over: bool = False) -> CannotRevoke | None: ...

    @abstractmethod
    def forget(self, dispatch: int) -> None: ...

    @abstractmethod
    def adopt(self, found: Sequence[Found]) -> None: ...

    def _fail(self) -> None:
        if self.place.raises and not self.place.up:
            raise ModelError

    def poll(self) -> list[Event]:
        self._fail()
        self._work()
        news, self.news = self.news, []
        if self.place.late or self.place.reverses:
            self.news = [event for event in news if isinstance(event, _LATE)]
            news = [event for event in news if not isinstance(event, _LATE)]
        elif self._reversed:
            news.reverse()
        self._reversed = self.place.reverses
        return news

    def stop(self, deadline: float) -> set[int]:
        """Schedulers die here; none ends."""
        return set()

    @abstractmethod
    def _work(self) -> None:
        """Do all that its threads would have done since the last time, and collect its news."""


class RealEngine(PlaceEngine):
    """One that is used whole."""

    _engine: CeleryEngine | ForeignEngine | LocalEngine

    def __len__(self) -> int:
        return len(self._engine)

    def start(self, scheduler_id: str) -> None:
        self._engine.start(scheduler_id)

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        return self._engine.withdraw(dispatches)

    def revoke(self, dispatch: int, over: bool = False) -> CannotRevoke | None:
        return self._engine.revoke(dispatch, over)

    def forget(self, dispatch: int) -> None:
        self._engine.forget(dispatch)

    def adopt(self, found: Sequence[Found]) -> None:
        self._engine.adopt(found)

    def room(self) -> Room:
        self._fail()
        self._engine.slots = self.slots // 4 if self.place.is_small else self.slots
        return self._engine.room()

    def _work(self) -> None:
        self.news += self._engine.poll()
