# SPDX-License-Identifier: Apache-2.0
"""The life cycle of all jobs of one scheduler: told what happened, it says what is to be done.

Pure: it knows no clock, no thread, no server and no Airflow. Times are monotonic seconds, and given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

from airflow_dispatch_provider.lifecycle import _ahead, _waiting, actions, events
from airflow_dispatch_provider.lifecycle._api import ExecutionApi
from airflow_dispatch_provider.lifecycle._backend import Backend, Stage
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle._timing import overflow_at
from airflow_dispatch_provider.lifecycle.actions import Action
from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Command
from airflow_dispatch_provider.lifecycle.job import Job, Waits
from airflow_dispatch_provider.lifecycle.overview import Overview
from airflow_dispatch_provider.lifecycle.states import Row, RowState, State
from airflow_dispatch_provider.lifecycle.story import Step, steps
from airflow_dispatch_provider.lifecycle.transitions import ROWS, TABLE, Back, Down, Due, Rows, apply
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.routing.decide import Decision, decide
from airflow_dispatch_provider.routing.model import Snapshot
from airflow_dispatch_provider.routing.reasons import Reason

_LOOK_FOR = frozenset(
    {State.HELD, State.SUBMITTED, State.SENT, State.RUNNING, State.ADOPTING, State.ORPHANED}
)
_UNSENT = frozenset({State.HELD, State.SUBMITTED, State.UNCLEAR})
_CLOCKS_DIFFER = 5.0
"""Seconds by which the clocks of two hosts may differ."""


class Machine:
    """One for each scheduler. Never given the same dispatch number twice."""

    def __init__(self, settings: events.Settings, seed: str = "", rows: Rows = ROWS) -> None:
        """
        :param seed: differs between schedulers, so that they do not try again in step
        :param rows: of the table of transitions; others than ``ROWS`` for simulations
        """
        self._ledger = Ledger(seed, rows)
        self._ledger.use(settings)
        self._silent_since: float | None = None
        """The last moment before a silence since the last Tick in which nothing was seen here for too long."""

        self._nothing_before = -inf
        self._asking_since: int | None = None
        self._asked_at = 0.0
        self._answered = 0
        """The ``handle`` with the last answer about what was held in a silence."""
        self._api = ExecutionApi()

    def handle(self, now: float, *happened: Any) -> list[Action]:
        """Take in what happened, in this order; returns what is to be done, in this order.

        :param now: monotonic seconds, never less than before
        :param happened: values of ``events``
        """
        ledger = self._ledger
        if now - ledger.now > ledger.limits.paused_after and ledger.moment and self._silent_since is None:
            self._silent_since = ledger.now
        ledger.now = now
        ledger.moment += 1
        for event in happened:
            _HANDLERS.get(type(event), Machine._about_dispatch)(self, event)
        if ledger.turned:
            self._turn()
        return ledger.take_actions()

    # What happened

    def _queued(self, event: events.Queued) -> None:
        ledger = self._ledger
        before = ledger.jobs.get(event.key)
        if before is not None:
            apply(ledger, before, event)
        number, ref = ledger.next_sequence(), event.ref
        job = Job(
            event.key,
            event.priority,
            ledger.now,
            number,
            event.workload,
            ref.kind,
            ref.executor,
            ref.queue,
            ref.dag_id,
            ref.seed,
            event.lanes,
            event.subject,
        )
        ledger.care_for(job)
        apply(ledger, job, event)

    def _offered(self, event: events.Offered) -> None:
        ledger = self._ledger
        self._about_key(event)
        if event.key in ledger.jobs:
            return
        number, ref = ledger.next_sequence(), event.ref
        job = Job(
            event.key, 0, ledger.now, number, None, ref.kind, ref.executor, ref.queue, ref.dag_id, ref.seed
        )
        job.runs, job.subject = event.runs, event.subject
        if event.evidence is not None:
            job.candidates, job.backend = (event.evidence,), event.evidence
        elif event.runs:
            job.candidates = event.candidates
        ledger.care_for(job)
        apply(ledger, job, event)

    def _about_key(self, event: Any) -> None:
        job = self._ledger.jobs.get(event.key)
        if job is not None:
            apply(self._ledger, job, event)

    def _about_dispatch(self, event: Any) -> None:
        """News of a dispatch that is no longer out is late, and changes nothing."""
        if (job := self._ledger.out.get(event.dispatch)) is None:
            return
        apply(self._ledger, job, event)
        if job.is_task and self._api.hear(job, event):
            self._recovered(events.Recovered(EXECUTION_API))

    def _rows(self, event: events.Rows) -> None:
        """Take an answer of the database; jobs that have changed since the question are not judged by it."""
        jobs = self._ledger.jobs
        if self._asking_since is not None and event.asked >= self._asking_since:
            self._asking_since, self._answered = None, self._ledger.moment
            self._ledger.stirred = True
        for key, row in event.rows.items():
            job = jobs.get(key)
            if job is not None and event.asked >= job.moment:
                apply(self._ledger, job, row)
                if self._api.see(job, self._has_beaten(row, event.asked)):
                    self._recovered(events.Recovered(EXECUTION_API))

    def _has_beaten(self, row: Row, asked: int) -> bool:
        """Whether its process has sent a heartbeat since the execution API was last said to answer nobody."""
        ledger = self._ledger
        if ledger.api_trouble is None or row.state is not RowState.RUNNING or asked not in ledger.asked_at:
            return False
        return ledger.asked_at[asked] - row.silent > ledger.api_met + _CLOCKS_DIFFER

    def _broken(self, event: events.Broken) -> None:
        ledger = self._ledger
        if event.backend != EXECUTION_API:
            if event.backend in ledger.backends:
                ledger.broke(ledger.backends[event.backend], event.reason)
            return
        ledger.api_met = ledger.now
        if self._api.take_refutation(event.met_by):
            if (backend := ledger.backends.get(event.met_by)) is not None:
                ledger.broke(backend, event.reason, Stage.START)
                backend.api_away = True
            return
        self._api.broke(ledger.now, event.reason)
        ledger.stirred = True
        if ledger.api_trouble is None:
            ledger.api_trouble = event.reason
            ledger.do(
                actions.Log(
                    True, "The execution API answers nobody; nothing is launched. %s", (event.reason,)
                )
            )
            self._withdraw(lambda job: True)

    def _recovered(self, event: events.Recovered) -> None:
        ledger = self._ledger
        if event.backend != EXECUTION_API:
            if event.backend in ledger.backends:
                ledger.recovered(ledger.backends[event.backend], Stage.SEND)
        elif ledger.api_trouble is not None:
            self._api.answered(ledger.now)
            ledger.api_trouble, ledger.api_since, ledger.stirred = None, ledger.now, True
            ledger.asked_at.clear()
            ledger.do(actions.Log(False, "The execution API answers again."))

    def _order(self, event: events.Order) -> None:
        backend = self._ledger.backends.get(event.backend)
        if backend is None:
            return
        if event.command is Command.RECALL:
            for job in [job for job in self._ledger.out.values() if job.backend == event.backend]:
                apply(self._ledger, job, events.Recall(job.key, True, "an operator has ordered recall"))
            return
        backend.ordered = event.command.lasts
        self._ledger.stirred = True
        if event.command.lasts:
            is_drain = event.command is Command.DRAIN
            self._withdraw(
                lambda job: job.backend == event.backend and (is_drain or not backend.keeps(job.dispatch)),
                f"an operator has ordered {event.command.value}",
            )

    def _settings(self, event: events.Settings) -> None:
        self._ledger.use(event)
        backends = self._ledger.backends
        self._withdraw(
            lambda job: not backends[job.backend or ""].keeps(job.dispatch), "the configuration drains it"
        )

    def _withdraw(self, concerns: Callable[[Job], bool], ordered: str = "") -> None:
        for job in list(self._ledger.out.values()):
            if job.state is State.SUBMITTED and concerns(job):
                apply(self._ledger, job, Down(ordered))

    def _turn(self) -> None:
        """Tell the jobs of a backend that it has become unusable, or usable."""
        turned, self._ledger.turned = self._ledger.turned, {}
        for job in list(self._ledger.out.values()):
            usable = turned.get(job.backend or "")
            if usable is not None:
                apply(self._ledger, job, Back() if usable else Down())

    # A heartbeat

    def _tick(self, event: events.Tick) -> None:
        """1. take in the rooms; 2. wake what is due; 3. look after what is out and held; 4. decide."""
        ledger = self._ledger
        ledger.forget_drained()
        for name, backend in ledger.backends.items():
            self._enter(backend, event.rooms.get(name))
        if ledger.turned:
            self._turn()
        for job in ledger.timers.pop(ledger.now):
            apply(ledger, job, Due())
        self._mind_the_pause()
        self._look()
        self._refresh()
        if ledger.stirred or ledger.now >= self._nothing_before:
            self._decide()

    def _enter(self, backend: Backend, room: events.Room | None) -> None:
        if room is None or room == backend.room:
            return
        before, backend.room = backend.room, room
        self._ledger.stirred = True
        if (before.unavailable is None) is not (room.unavailable is None):
            self._ledger.turned[backend.name] = backend.usable(self._ledger.now)

    def _mind_the_pause(self) -> None:
        """After a long silence another scheduler may have what is held here: ask before anything is launched. An answer
        that comes with this Tick is as new as can be, however long every loop takes."""
        if self._asking_since is not None:
            if self._ledger.now - self._asked_at >= self._ledger.limits.look_again:
                self._ask_about_held(inf)
            return
        since, self._silent_since = self._silent_since, None
        if since is not None and self._answered != self._ledger.moment:
            self._ask_about_held(since)

    def _ask_about_held(self, since: float) -> None:
        """The first answer counts, also where the question has been repeated."""
        ledger = self._ledger
        asked = [job.key for job in self._held() if job.is_task and job.since <= since]
        if not asked:
            self._asking_since = None
        elif self._asking_since is None:
            self._asking_since = ledger.moment
        self._asked_at = ledger.now
        for key in asked:
            ledger.ask(actions.LookUp, key)

    def _look(self) -> None:
        """Reconcile with the database: what is over there is released here. Users are told what is broken."""
        ledger = self._ledger
        due = ledger.now + ledger.limits.look_every
        is_anything_broken = _waiting.is_anything_broken(ledger)
        for job in ledger.looks.pop(ledger.now):
            ledger.looks.add(job, due)
            if job.state in _LOOK_FOR:
                ledger.ask(actions.LookUp, job.key)
            if job.state is State.HELD and (is_anything_broken or _waiting.is_told(ledger, job)):
                _waiting.tell(ledger, job, self.waits(job.key))

    def _refresh(self) -> None:
        """Keep Airflow from taking what waits for stuck."""
        ledger = self._ledger
        due = ledger.now + ledger.limits.refresh_every
        keys = []
        for job in ledger.refreshes.pop(ledger.now):
            ledger.refreshes.add(job, due)
            if job.state in _UNSENT or (job.state is State.SENT and not self._revokes(job)):
                keys.append(job.key)
        if keys:
            ledger.do(actions.Refresh(keys))

    def _decide(self) -> None:
        ledger = self._ledger
        ledger.let_other_dags_try()
        # What the database was asked until now is not said of what is dispatched now.
        ledger.moment += 1
        self._nothing_before = inf
        if self._asking_since is not None:
            return
        if ledger.api_trouble is None:
            self._launch(decide(self.snapshot(), ledger.holding.lanes))
            self._launch_ahead()
        else:
            self._try_api()
        ledger.stirred = False
        self._nothing_before = self._next_change()

    def _try_api(self) -> None:
        """A job shows best whether tasks reach it; but where none begins, what is out still has to be judged."""
        ledger = self._ledger
        if self._api.may_try(ledger.now):
            for job in self._launch(self._api.choose(decide(self.snapshot(), ledger.holding.lanes))):
                self._api.tries(job, ledger.now)
        if self._api.may_ask(ledger.now):
            self._api.asked(ledger.now)
            ledger.ask_api()

    def _launch_ahead(self) -> None:
        ledger = self._ledger
        plan = _ahead.plan(ledger)
        for job, why in plan.take_back:
            apply(ledger, job, events.Recall(job.key, reason=why))
        self._launch(plan.give)

    def _launch(self, decisions: Sequence[Decision]) -> list[Job]:
        jobs = []
        for decision in decisions:
            job = decision.held
            assert isinstance(job, Job)
            apply(self._ledger, job, decision)
            jobs.append(job)
        return jobs

    def _next_change(self) -> float:
        """When a decision may come out differently though nothing happens."""
        ledger = self._ledger
        api = [] if ledger.api_trouble is None else [self._api.next_at()]
        if api and not self._api.may_try(ledger.now):
            return api[0]
        overflows = [overflow_at(lane, ledger.now) for lane in ledger.holding.lanes]
        retries = [at for backend in ledger.backends.values() if (at := backend.circuit.retry_at) is not None]
        moments = (*overflows, _ahead.overflow_at(ledger), *retries, *api)
        return min(max(at, ledger.now) for at in moments)

    # Being asked; nothing here changes anything

    def __contains__(self, key: object) -> bool:
        return key in self._ledger.jobs

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._ledger.jobs)

    def __len__(self) -> int:
        return len(self._ledger.jobs)

    def __repr__(self) -> str:
        return f"Machine({self.in_short()})"

    def in_short(self) -> str:
        """Of each backend and the execution API, and how many jobs wait: ``a 2/2, b 0/16 cordoned, held 1``."""
        return ", ".join([*self._ledger.in_short(), f"held {self.held}"])

    def snapshot(self) -> Snapshot:
        """See ``Ledger.snapshot``."""
        return self._ledger.snapshot()

    @property
    def held(self) -> int:
        """How many jobs wait here, for whatever."""
        return self._ledger.held

    @property
    def wanted(self) -> Mapping[str, int]:
        """How many jobs wait here whose first choice is that backend."""
        return self._ledger.holding.by_first_choice

    @property
    def slots_used(self) -> Mapping[str, int]:
        """By backend; what was given ahead has none. One that is gone is here as long as anything of it is out."""
        return {name: backend.used for name, backend in self._ledger.backends.items()}

    def slots_occupied(self) -> int:
        """See ``_waiting.slots_occupied``."""
        return _waiting.slots_occupied(self._ledger)

    def _held(self) -> Iterator[Job]:
        return (job for job in self._ledger.jobs.values() if job.state is State.HELD)

    def can_revoke(self, key: Hashable) -> bool:
        """Whether ``Revoke`` would take it back; Airflow is told ``NotImplementedError`` where not."""
        job = self._ledger.jobs.get(key)
        return job is None or job.dispatch not in self._ledger.out or self._revokes(job)

    def _revokes(self, job: Job) -> bool:
        backend = self._ledger.backends.get(job.backend or "")
        return backend is None or backend.rules.revokes

    def state(self, key: Hashable) -> State:
        """The state of a job; ENDED if there is none in our care."""
        job = self._ledger.jobs.get(key)
        return State.ENDED if job is None else job.state

    def subject(self, key: Hashable) -> Any:
        """Whatever ``Queued`` or ``Offered`` gave along, by which the caller knows a task in the database."""
        job = self._ledger.jobs.get(key)
        return None if job is None else job.subject

    def circuit(self, backend: str) -> CircuitState:
        return self._ledger.backends[backend].circuit.state(self._ledger.now)

    def waits(self, key: Hashable) -> Reason | Waits | None:
        """See ``_waiting.waits``."""
        job = self._ledger.jobs.get(key)
        return None if job is None else _waiting.waits(self._ledger, job, self._asking_since is not None)

    def overview(self) -> Overview:
        """See ``Overview``. The only method that another thread may call."""
        return Overview(self._ledger, self._asking_since is not None)

    def free_slots(self) -> int:
        """See ``_waiting.free_slots``."""
        return _waiting.free_slots(self._ledger)

    def story(self, key: Hashable) -> Sequence[Step]:
        """Tell what happened to a job and why, in order; also for a while after it has ended."""
        job = self._ledger.jobs.get(key)
        return steps(self._ledger.past.get(key) if job is None else job.story, TABLE)


_HANDLERS: dict[type[Any], Callable[[Machine, Any], None]] = {
    events.Queued: Machine._queued,
    events.Offered: Machine._offered,
    events.Revoke: Machine._about_key,
    events.Recall: Machine._about_key,
    events.Rows: Machine._rows,
    events.Unanswered: Machine._about_key,
    events.Broken: Machine._broken,
    events.Recovered: Machine._recovered,
    events.Order: Machine._order,
    events.Settings: Machine._settings,
    events.Tick: Machine._tick,
}
"""Every other event is an engine's, about a dispatch."""
