# SPDX-License-Identifier: Apache-2.0
"""Everything that the machine knows, and the few ways in which it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any, cast

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle._backend import Backend, Stage
from airflow_dispatch_provider.lifecycle._timing import Round, Timers
from airflow_dispatch_provider.lifecycle.actions import Action
from airflow_dispatch_provider.lifecycle.events import BackendRules, Limits, Settings
from airflow_dispatch_provider.lifecycle.job import Job, Paused, Waits
from airflow_dispatch_provider.lifecycle.states import OUT, State
from airflow_dispatch_provider.lifecycle.story import Past
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.routing.hold import HoldQueue, Lane, Places
from airflow_dispatch_provider.routing.model import Route, Snapshot, Target
from airflow_dispatch_provider.routing.routes import RouteTable, ordered_targets

# Python 3.11 takes four times as long for a member of an Enum as for a name of a module.
_HELD, _SUBMITTED, _REVOKING, _ENDED = State.HELD, State.SUBMITTED, State.REVOKING, State.ENDED
_RETURNING, _UNCLEAR = State.RETURNING, State.UNCLEAR

Question = type[actions.LookUp] | type[actions.PutBack] | type[actions.Restart] | type[actions.Unstart]

_QUESTIONS = 100
"""Questions to the database of which it is known when they were asked."""

_AT_ONCE = 1000
"""Jobs of a lane that step back in one heartbeat: ten milliseconds of it or so."""


class Ledger:
    """Jobs by key and by dispatch, the hold queue, the backends, what is due, and what is to be done.

    Slots, the hold queue and the index by key follow from a job's state, in ``move`` and nowhere else.
    """

    def __init__(self, seed: str, rows: Mapping[type[Any], Mapping[State, Sequence[Any]]]) -> None:
        self.rows = rows
        """See ``transitions.Rows``."""

        self.now, self.moment = 0.0, 0
        """Monotonic seconds, and the number, of this ``handle``."""

        self.limits = Limits()
        self.routes: RouteTable
        self.backends: dict[str, Backend] = {}
        self.jobs: dict[Hashable, Job] = {}
        """In our care: every state but REVOKING and ENDED."""

        self.out: dict[int, Job] = {}
        """By dispatch: the states of ``OUT``."""

        self.let_go: defaultdict[Hashable, set[int]] = defaultdict(set)
        """Dispatches that are REVOKING, by key."""

        self.holding = HoldQueue()
        """HELD, but for those that have to wait for something else first."""

        self.held = 0
        """How many jobs are HELD."""

        self.timers = Timers()
        self.looks, self.refreshes = Round(), Round()
        self.past = Past()
        self.told = 0, 0
        """See ``_waiting.tell``."""

        self.api_trouble: str | None = None
        self.api_since = 0.0
        """When the execution API was last known to have come back."""

        self.api_met = 0.0
        """When a task, or the question for it, has last met that it answers nobody."""

        self.asked_at: dict[int, float] = {}
        """When the database was asked while the execution API answered nobody, by the number of the question."""

        self.turned: dict[str, bool] = {}
        """Backends that have just become usable, or unusable."""

        self.stirred = True
        """Something has changed that a decision depends on."""

        self._sequence = self._dispatches = 0
        self._by_queue = False
        self._seed = seed
        self._actions: list[Action] = []
        self._batches: dict[tuple[type, str], list[Any]] = {}

    # Settings

    def use(self, settings: Settings) -> None:
        self.limits, self.routes, self.stirred = settings.limits, settings.routes, True
        for name, backend in list(self.backends.items()):
            backend.gone = name not in settings.backends
        for name, rules in settings.backends.items():
            self._use(name, rules)
        self._by_queue = any(rules.by_queue for rules in settings.backends.values())
        for job in self.holding.clear():
            assert isinstance(job, Job)
            self.hold(job)

    def _use(self, name: str, rules: BackendRules) -> None:
        if name in self.backends:
            self.backends[name].use(rules)
        else:
            self.backends[name] = Backend(name, rules, self._seed)

    def in_short(self) -> list[str]:
        """See ``Machine.in_short``."""
        backends = [backend.in_short(self.now) for backend in self.backends.values()]
        return [*backends, *(["the Execution API answers nobody"] if self.api_trouble else [])]

    def forget_drained(self) -> None:
        """Those that are gone, once nothing of them is out, nor may begin there before it is set back."""
        empty = {name for name, backend in self.backends.items() if backend.gone and not backend.out}
        if empty:
            empty -= {job.backend for job in self.jobs.values() if job.state is _RETURNING}
        for name in empty:
            del self.backends[name]

    def snapshot(self) -> Snapshot:
        """The snapshot that a decision would see."""
        backends = list(self.backends.items())
        views = {name: backend.view(self.now) for name, backend in backends if not backend.gone}
        return Snapshot(self.now, views)

    # Jobs

    def next_sequence(self) -> int:
        """An arrival number: among equals the lower goes first."""
        self._sequence += 1
        return self._sequence

    def move(self, job: Job, state: State) -> None:
        """Bring a job into a state, with all that follows from it."""
        before = job.state
        job.state, job.moment, self.stirred = state, self.moment, True
        if state is _HELD:
            self.held += 1
        if before is _HELD:
            self.held -= 1
            self.holding.remove(job.key)
        elif before is _SUBMITTED:
            self.backends[job.backend or ""].answered(job.dispatch)
        elif before is _REVOKING:
            self._no_longer_let_go(job)
        if before in OUT and state not in OUT:
            del self.out[job.dispatch]
            backend = self.backends[job.backend or ""]
            backend.out -= 1
            backend.done += 1
        if state is _REVOKING or state is _ENDED:
            self._out_of_care(job)
        if state is _ENDED and (before is _UNCLEAR or before in OUT):
            self._count_end(job, before)

    def _count_end(self, job: Job, before: State) -> None:
        backend = self.backends.get(job.backend or "")
        if backend is not None and (before is not _REVOKING or job.began or job.runs):
            backend.ended += 1

    def _out_of_care(self, job: Job) -> None:
        if self.jobs.get(job.key) is job:
            del self.jobs[job.key]
            self.looks.discard(job)
            self.refreshes.discard(job)
        if job.state is _REVOKING:
            self.let_go[job.key].add(job.dispatch)
        else:
            job.workload = None

    def _no_longer_let_go(self, job: Job) -> None:
        dispatches = self.let_go[job.key]
        dispatches.discard(job.dispatch)
        if dispatches:
            return
        del self.let_go[job.key]
        later = self.jobs.get(job.key)
        if later is not None and later.waits is Waits.EARLIER:
            self.timers.set(later, self.now)

    def occupy(self, job: Job, backend: str, dispatch: int = 0) -> None:
        """A dispatch of a job, at a backend: from now on it has a slot there.

        :param dispatch: its number, where the engine may still be looking for it; 0: a new one
        """
        if self.out.get(job.dispatch) is job:
            del self.out[job.dispatch]
            before = self.backends[job.backend or ""]
            before.out -= 1
            before.done += 1
        if not dispatch:
            self._dispatches = dispatch = self._dispatches + 1
        job.backend, job.dispatch = backend, dispatch
        self.out[dispatch] = job
        to = self.backends[backend]
        to.out += 1
        to.given += 1

    def care_for(self, job: Job) -> None:
        """Enter a new job. The database is asked about it, and its row refreshed, from time to time."""
        self.jobs[job.key] = job
        self.look_after(job)

    def look_after(self, job: Job) -> None:
        if job.is_task:
            self.looks.add(job, self.now + self.limits.look_every)
            self.refreshes.add(job, self.now + self.limits.refresh_every)

    def hold(self, job: Job) -> None:
        """Enter a job into the hold queue, where its priority and its age put it. It is woken when another backend may
        have it, too."""
        match = self.routes.match(job)
        job.waits, self.stirred = None, True
        if job.paused and (until := [each.until for each in job.paused if each.until > self.now]):
            self.timers.set(job, min(until))
        targets, places = self.open_targets(job, match.route)
        if targets:
            self.holding.add(job, match, targets, places)
        else:
            job.waits = Waits.LAUNCH

    def open_targets(self, job: Job, route: Route) -> tuple[tuple[Target, ...], Places]:
        """Where a job may go now, and the lane that it would use at each. Targets that refused it are the last."""
        targets = self.targets(job, route)
        if job.paused:
            closed = {each.backend for each in job.paused if each.until > self.now}
            refused = {each.backend for each in job.paused if each.refused}
            left = [target for target in targets if target.backend not in closed]
            targets = tuple(sorted(left, key=lambda target: target.backend in refused))
        places: Places = ()
        if self._by_queue or job.lanes:
            places = tuple(self.lane(job, target) for target in targets)
        return targets, places

    def targets(self, job: Job, route: Route) -> tuple[Target, ...]:
        """Where a job may go, in this order."""
        targets = ordered_targets(route, job.seed)
        if job.is_task:
            return targets
        named = {target.backend for target in targets}
        return *targets, *(Target(backend=name) for name in self.backends if name not in named)

    def has_another_target(self, job: Job) -> bool:
        """Whether a target is left that has not refused a job, be it usable now or not."""
        tried = {each.backend for each in job.paused if each.refused} | {job.backend}
        return any(
            target.backend not in tried and self._could_run(job, target.backend)
            for target in self.targets(job, self.routes.match(job).route)
        )

    def _could_run(self, job: Job, name: str) -> bool:
        backend = self.backends.get(name)
        return backend is not None and not backend.gone and job.kind in backend.room.kinds

    def pause(self, job: Job, delay: Callable[[int], float], refused: bool = False) -> None:
        """Keep a job from its backend for a while.

        :param delay: seconds, by how often it has been paused there before
        """
        before = next((each for each in job.paused if each.backend == job.backend), None)
        times = before.times if before is not None else 0
        paused = Paused(job.backend or "", times + 1, self.now + delay(times), refused)
        job.paused = (*(each for each in job.paused if each is not before), paused)

    def lane(self, job: Job, target: Target) -> str | None:
        """The lane that a job would use at a target."""
        backend = self.backends.get(target.backend)
        if target.backend in job.lanes:
            return job.lanes[target.backend]
        return (target.queue or job.queue) if backend is not None and backend.rules.by_queue else None

    # Backends

    def met(self, job: Job, stage: Stage) -> None:
        """A job came to nothing at its backend."""
        backend = self.backends[job.backend or ""]
        news = backend.circuit.error is None
        # The next try of a task is the same suspect.
        if backend.met(job.seed or job.key, stage, self.now, job.trouble):
            backend.blamed = (job.dag_id, self.moment) if job.is_task else None
            self._opened(backend, news)

    def let_other_dags_try(self) -> None:
        """Hundreds of tasks of one Dag may have the same wrong image, and each would have its try before anything else:
        where a backend has failed over one of them, the others that are next let those behind them go first, once."""
        for backend in self.backends.values():
            if backend.blamed is not None and backend.circuit.state(self.now) is CircuitState.HALF_OPEN:
                for lane in list(self.holding.lanes):
                    if any(target.backend == backend.name for target in lane.targets):
                        self._step_back(lane, *backend.blamed)

    def _step_back(self, lane: Lane, dag_id: str, blamed: int) -> None:
        jobs = cast("Iterator[Job]", iter(lane.entries))
        alike = takewhile(lambda job: job.dag_id == dag_id and job.stepped_back <= blamed, jobs)
        for job in list(islice(alike, _AT_ONCE)):
            self.holding.remove(job.key)
            job.to_the_back(self.next_sequence())
            job.stepped_back = self.moment
            self.holding.add(job, lane.match, lane.targets, lane.places)

    def has_no_api(self, job: Job) -> bool:
        """Whether the execution API answers nobody, or nobody at the backend of the job, so that nothing counts."""
        backend = self.backends.get(job.backend or "")
        return self.api_trouble is not None or (backend is not None and backend.api_away)

    def broke(self, backend: Backend, reason: str, stage: Stage = Stage.SEND) -> None:
        news = backend.circuit.error is None
        backend.broke(self.now, reason, stage)
        if news:
            self._opened(backend, news)

    def worked(self, job: Job, stage: Stage) -> None:
        backend = self.backends[job.backend or ""]
        if backend.suspects or backend.circuit.retry_at is not None:
            self.recovered(backend, stage)

    def recovered(self, backend: Backend, stage: Stage) -> None:
        had_no_api = backend.api_away
        if backend.worked(stage, self.now):
            if had_no_api:
                self.api_since = self.now
            self.turned[backend.name] = self.stirred = True
            failures = backend.circuit.failures
            self.do(
                actions.Log(False, "Backend %r has recovered after %d failures.", (backend.name, failures))
            )

    def _opened(self, backend: Backend, news: bool) -> None:
        """
        :param news: it was in use; what is said of it until it has recovered belongs to the same outage
        """
        self.stirred = True
        self.turned[backend.name] = False
        if not news:
            return
        delay = (backend.circuit.retry_at or self.now) - self.now
        message = "Backend %r gets no new work until it recovers; next try in %.1f s. %s"
        self.do(actions.Log(True, message, (backend.name, delay, backend.circuit.error)))
        self.do(actions.CountFailure(backend.name))

    # Actions

    def do(self, action: Action) -> None:
        self._actions.append(action)

    def batch(self, kind: type[Any], backend: str, item: Any) -> None:
        """Add to the action of this kind for a backend; there is one in each ``handle``."""
        items = self._batches.get((kind, backend))
        if items is None:
            items = self._batches[kind, backend] = []
            self._actions.append(kind(backend, items))
        items.append(item)

    def ask(self, kind: Question, key: Hashable) -> None:
        """Add to the question to the database of this ``handle``."""
        items = self._batches.get((kind, ""))
        if items is None:
            self._note_question()
            items = self._batches[kind, ""] = []
            self._actions.append(kind(self.moment, items))
        items.append(key)

    def ask_api(self) -> None:
        """Once in each ``handle``; before the questions to the database that are judged by the answer."""
        if (actions.AskApi, "") not in self._batches:
            self._batches[actions.AskApi, ""] = []
            self._actions.insert(0, actions.AskApi())

    def _note_question(self) -> None:
        if self.api_trouble is not None:
            self.asked_at[self.moment] = self.now
            if len(self.asked_at) > _QUESTIONS:
                del self.asked_at[next(iter(self.asked_at))]

    def take_actions(self) -> list[Action]:
        taken = self._actions
        if taken:
            self._actions, self._batches = [], {}
        return taken
