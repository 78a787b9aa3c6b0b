# SPDX-License-Identifier: Apache-2.0
"""A model of a broker with its workers and its result backend, and over it the real Celery engine.

In place of the two threads of the engine, the steps of its outbox are done, and results are looked up, at every
heartbeat. A broker keeps receipts of the batches that it has got, as the engine has it do with Redis and RabbitMQ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

from airflow_dispatch_provider.engines.celery._driver import do
from airflow_dispatch_provider.engines.celery._flights import PENDING, STARTED, SUCCESS
from airflow_dispatch_provider.engines.celery._outbox import (
    Answer,
    Outbox,
    Step,
    Wait,
)
from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed, Why
from airflow_dispatch_provider.engines.celery.engine import CeleryEngine
from airflow_dispatch_provider.engines.celery.results import Result
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, Servers
from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.lifecycle.events import Ended
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.simulation.places import (
    REJECTED,
    Clock,
    Kind,
    Place,
    RealEngine,
    Run,
)
from airflow_dispatch_provider.simulation.schedulers import Instance
from airflow_dispatch_provider.simulation.tasks import Task

_CUT, _PARTLY = 0.01, 0.01
"""Parts of the batches of which nobody hears whether they have arrived; of which only the first half is sent."""

_DROPPED = 0.3
"""Part of the messages that workers drop while the result backend is away."""

FAILURE, REVOKED = "FAILURE", "REVOKED"
"""Celery's names."""


class TaskAlreadyRunningError(Exception):
    """Met by a worker whose task the execution API does not let begin; Airflow's name."""


class Letter(NamedTuple):
    """A workload as the engine reads it."""

    ti: Any
    """None: it is a callback."""

    task: Task
    ti_id: UUID
    callback: Any = None


@dataclass(eq=False)
class Message(Run):
    """One that is with the broker, or with a worker."""

    celery_id: str = ""
    receipt: str = ""
    queue: str = ""


class MessageBroker(Place):
    """One of a backend."""

    def __init__(self, world: Clock, name: str, kind: Kind) -> None:
        super().__init__(world, name, kind)
        self.receipts: dict[str, list[Task]] = {}
        """Tasks of the batches that the broker has."""

        self.results: dict[str, tuple[str, Any]] = {}
        """State and information of each Celery task of which a worker has said something."""

        self.outages = 0
        """How many there were: connections of before are cut."""

    def engine(self, slots: int) -> MessageEngine:
        return MessageEngine(self, slots, next(self.numbers))

    def go_away(self, empties: bool) -> None:
        super().go_away(empties)
        self.outages += 1
        if empties:
            self._lose(list(self.receipts))

    def take(self, outgoing: Outgoing, receipt: str, engine: MessageEngine | None) -> Refusal | None:
        """Accept a message, or refuse it.

        :param engine: None: its scheduler has died
        """
        letter: Letter = outgoing.workload
        task = letter.task
        if reason := self.closed.get(outgoing.queue):
            return Refusal(outgoing, reason, Why.FULL)
        task.sent += 1
        rng = self.world.random("run", task.number, task.sent)
        if self.refuses or rng.random() < REJECTED or self.world.now < task.spoilt_until:
            task.came_to_nothing(self.world.now)
            self.note_failure(task)
            return Refusal(outgoing, "not allowed" if self.refuses else "too large", self._why)
        number = outgoing.key
        assert isinstance(number, int)
        message = Message(task, letter.ti_id, engine, number, rng)
        message.celery_id, message.receipt, message.queue = outgoing.celery_id, receipt, outgoing.queue
        self.enter(message)
        return None

    @property
    def _why(self) -> Why:
        return Why.QUEUE if self.refuses else Why.MESSAGE

    def drop(self, celery_ids: Collection[str]) -> None:
        """Workers do, when they come to such a message; what runs goes on."""
        for run in list(self.runs):
            if isinstance(run, Message) and run.celery_id in celery_ids and run.celery_id not in self.results:
                self.kill(run, "dropped", told=False)
                self.results[run.celery_id] = REVOKED, None

    def waiting(self, queue: str) -> int:
        """How many messages are with no worker."""
        messages = (run for run in self.runs if isinstance(run, Message))
        return sum(message.queue == queue and message.celery_id not in self.results for message in messages)

    # As a place

    def begin(self, run: Run) -> None:
        """A worker that cannot store that it has a message drops some, without a word."""
        if isinstance(run, Message) and not (run.over or self.idle):
            if self.mute and run.task.is_task and run.rng.random() < _DROPPED:
                self.kill(run, "dropped by its worker", told=False)
            else:
                self.results[run.celery_id] = STARTED, None
        super().begin(run)

    def tell_begun(self, run: Run) -> None:
        """A worker says only that it has the message."""

    def tell(self, run: Run, *news: Event) -> None:
        """By its result."""
        assert isinstance(run, Message)
        for event in news:
            if not isinstance(event, Ended):
                self.results[run.celery_id] = REVOKED, None
            elif event.how is Outcome.SUCCESS:
                self.results[run.celery_id] = SUCCESS, None
            else:
                error = TaskAlreadyRunningError if event.reason == "refused" else RuntimeError
                self.results[run.celery_id] = FAILURE, error(event.reason)

    def deny(self, run: Run, is_own_fault: bool) -> None:
        """The broker has lost its batch, and it was with a worker already."""
        self.note_failure(run.task)
        assert isinstance(run, Message)
        self.outages += 1
        self._lose([run.receipt])

    def _lose(self, receipts: Collection[str]) -> None:
        """These batches, but for what a worker has. Nobody may have heard so yet: the database tells of tasks, and
        nothing of callbacks."""
        for receipt in receipts:
            for task in self.receipts.pop(receipt, ()):
                task.may_repeat = not task.is_task
        for run in list(self.runs):
            if isinstance(run, Message) and run.receipt in receipts and run.celery_id not in self.results:
                self.kill(run, "lost by the broker", told=False)


class _Connection:
    """See ``brokers.Broker``."""

    def __init__(self, place: MessageBroker, engine: MessageEngine) -> None:
        self._place, self._engine = place, engine
        self._outages = -1
        self._rng = engine.rng

    def new_connection(self) -> Any:
        raise NotImplementedError

    def connect(self) -> None:
        self._outages = self._place.outages
        self.check()

    def check(self) -> None:
        if not self._place.up:
            raise OSError("away")
        if self._outages != self._place.outages:
            raise OSError("cut")

    def probe(self) -> None:
        self.check()

    def close(self) -> None:
        """Nothing is open."""

    def missing(self, receipts: Sequence[str]) -> set[str] | None:
        return {receipt for receipt in receipts if receipt not in self._place.receipts}

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        self.check()
        return {queue: self._place.waiting(queue) for queue in queues}

    def revoke(self, celery_ids: Sequence[str]) -> None:
        self.check()
        self._place.drop(celery_ids)

    def send(self, batch: Sequence[Outgoing], receipt: str) -> list[Refusal]:
        try:
            self.check()
        except OSError as error:
            raise SendFailed(error, unsent=batch) from error
        chance = self._rng.random()
        if chance < _CUT:
            refusals = self._take(batch, receipt) if self._rng.random() < 0.5 else self._lose(batch)
            refused = {refusal.outgoing.celery_id for refusal in refusals}
            unknown = [outgoing for outgoing in batch if outgoing.celery_id not in refused]
            raise SendFailed(OSError("cut"), unknown=unknown, refusals=refusals)
        if chance < _CUT + _PARTLY:
            half = len(batch) // 2
            refusals = self._take(batch[:half], receipt) + self._lose(batch[half:])
            raise SendFailed(OSError("cut"), unsent=batch[half:], refusals=refusals)
        return self._take(batch, receipt)

    def _lose(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        """It does not arrive."""
        for outgoing in batch:
            self._place.note_failure(outgoing.workload.task)
        return []

    def _take(self, batch: Sequence[Outgoing], receipt: str) -> list[Refusal]:
        engine = None if self._engine.is_dead else self._engine
        found = [self._place.take(outgoing, receipt, engine) for outgoing in batch]
        accepted = [each.workload.task for each, refusal in zip(batch, found, strict=True) if refusal is None]
        if accepted:
            self._place.receipts[receipt] = accepted
        return [refusal for refusal in found if refusal is not None]


class _Driver:
    """See ``Driver``: one step at a time, each of which takes a while."""

    is_dead = False

    def __init__(self, outbox: Outbox, broker: _Connection, engine: MessageEngine) -> None:
        self._outbox, self._broker, self._engine = outbox, broker, engine
        self._is_busy = False
        self._done: tuple[Step, Answer] | None = None

    def start(self) -> None:
        """Nothing is needed."""

    def stop(self, deadline: float) -> list[int]:
        return self._outbox.take_waiting()

    @contextmanager
    def outbox(self, wake: bool = False) -> Iterator[Outbox]:
        yield self._outbox

    def turn(self, now: float) -> None:
        if self._done is not None:
            step, answer = self._done
            self._done, self._is_busy = None, False
            self._outbox.done(now, step, answer, self._engine.rng.random())
            self._outbox.notes.clear()
        if not self._is_busy and not isinstance(step := self._outbox.next(now), Wait):
            self._is_busy = True
            self._after_a_while(step)

    def _after_a_while(self, step: Step) -> None:
        self._engine.place.world.after(self._engine.rng.uniform(0.01, 1.0), lambda: self._perform(step))

    def _perform(self, step: Step) -> None:
        if self._engine.place.slow:
            self._after_a_while(step)
            return
        try:
            answer = do(step, self._broker)
        except (OSError, SendFailed) as error:
            answer = Answer(error, str(error))
        self._done = step, answer


class _Watcher:
    """See ``ResultWatcher``."""

    def __init__(self, place: MessageBroker) -> None:
        self._place = place
        self._watched: dict[str, bool] = {}
        """Whether each is known to have started."""

        self.outages, self._was_away = 0, False
        self._looked_for: dict[str, None] = {}
        self._results: list[Result] = []

    @property
    def problem(self) -> str | None:
        return "away" if self._place.mute else None

    def start(self, wait: bool = True) -> None:
        """Nothing is needed."""

    def stop(self, timeout: float) -> None:
        """Nothing is needed."""

    def watch(self, celery_id: str) -> None:
        self._watched.setdefault(celery_id, False)

    def look(self, celery_id: str) -> None:
        self.watch(celery_id)
        self._looked_for[celery_id] = None

    def forget(self, celery_id: str) -> None:
        self._watched.pop(celery_id, None)
        self._looked_for.pop(celery_id, None)

    def drain(self) -> list[Result]:
        results, self._results = self._results, []
        return results

    def turn(self) -> None:
        self.outages += self._was_away and not self._place.mute
        self._was_away = self._place.mute
        if not self._was_away:
            self._look()

    def _look(self) -> None:
        for celery_id, has_started in list(self._watched.items()):
            state, info = self._place.results.get(celery_id, (PENDING, None))
            if state == PENDING and celery_id not in self._looked_for:
                continue
            if state == STARTED and has_started:
                continue
            result = Result(celery_id, state, info)
            self._watched[celery_id] = True
            self._looked_for.pop(celery_id, None)
            if result.final:
                del self._watched[celery_id]
            self._results.append(result)


class MessageEngine(RealEngine):
    """See ``engine.Engine``."""

    def __init__(self, place: MessageBroker, slots: int, number: int) -> None:
        """
        :param number: names it among those of its broker
        """
        super().__init__(place, slots)
        self.rng = place.world.random("engine", place.name, number)
        self._number, self._ids = number, 0
        self._watcher = _Watcher(place)
        servers = Servers(_Connection(place, self), "broker", self._watcher)
        self._engine = CeleryEngine(
            place.name,
            lambda: servers,
            slots,
            CeleryOptions(),
            clock=lambda: place.world.now,
            drive=self._drive,
            new_id=self._new_id,
        )

    def _drive(self, outbox: Outbox, broker: Any, name: str, clock: Callable[[], float]) -> _Driver:
        self._driver = _Driver(outbox, broker, self)
        return self._driver

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self._number}-{self._ids}"

    def submit(self, jobs: Sequence[Job]) -> None:
        self._engine.submit([job._replace(workload=self._letter(job.workload)) for job in jobs])

    def _letter(self, given: Any) -> Letter:
        task: Task = given.task
        ti = SimpleNamespace(queue=task.queue, external_executor_id=given.assigned)
        return Letter(ti if task.is_task else None, task, given.ti_id)

    def adopt(self, found: Sequence[Found]) -> None:
        self._engine.adopt([each._replace(ti=_row(each.ti)) for each in found])

    def _work(self) -> None:
        self._driver.turn(self.place.world.now)
        self._watcher.turn()
        super()._work()


def _row(subject: Instance | Task) -> Any:
    """
    :param subject: of a task that was offered, or of one that this scheduler has queued itself
    """
    task = subject if isinstance(subject, Task) else subject.task
    return SimpleNamespace(id=subject.id, external_executor_id=task.external_executor_id)
