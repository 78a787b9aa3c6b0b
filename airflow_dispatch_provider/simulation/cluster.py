# SPDX-License-Identifier: Apache-2.0
"""A model of a Kubernetes cluster, and over it the real machine of the Kubernetes engine.

The cluster is an API server with admission, quotas and watches, and pods, each of which is a run. What the driver of
the engine does between the machine and the server is done at every heartbeat: requests are answered a while later, and
some answers are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_dispatch_provider.engines.engine import Event, Found, Job, Room
from airflow_dispatch_provider.engines.kubernetes._lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes._machine import Machine
from airflow_dispatch_provider.engines.kubernetes._pods import Finish, Pods, Seen
from airflow_dispatch_provider.engines.kubernetes._seen import Kind, Observation, PodName
from airflow_dispatch_provider.engines.kubernetes._steps import AskNamespace, AskServer, Create, Step, Wait
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.engines.kubernetes.judgement import WAITS
from airflow_dispatch_provider.lifecycle.events import Ended
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.simulation.places import REJECTED, STALLED, Clock, Place, PlaceEngine, Run
from airflow_dispatch_provider.simulation.places import Kind as PlaceKind
from airflow_dispatch_provider.simulation.tasks import Task, Violation

NAMESPACES = ("blue", "green")
"""All that is refused is refused in the first one."""

QUOTA = 4
"""Pods of a namespace, while it has one."""

_LOST, _THROTTLED, _FORGOTTEN = 0.01, 0.005, 0.5
"""Parts of the answers that are lost; that ask for fewer requests; of the outages after which a watch cannot go on
where it ended."""

_BY_HAND = 0.5
"""Part of the pods that are killed, and seen to be, which somebody deletes."""

_LARGE = 20
"""One task of so many needs the whole quota of its namespace."""

_GRACE, _LOOK = 5.0, 30.0
"""Seconds, as ``_search.GRACE`` and ``watcher.LOOK``."""

_DONE = Answer(Verdict.DONE, "")
_TAKEN = Answer(Verdict.INVALID, "another pod has this name")
_SPOILT = Answer(Verdict.INVALID, "too large")
_OWN_TROUBLE = Answer(Verdict.TROUBLE, "its service account is missing")
_TOO_MANY = Answer(Verdict.THROTTLED, "too many requests", 5.0, Scope.SERVER)
_DENIED = Answer(Verdict.TROUBLE, "denied by a webhook")
_FULL = Answer(Verdict.FULL, "the quota is used up")
_AWAY = Answer(Verdict.TROUBLE, "away", scope=Scope.SERVER)

_NOWHERE = PodName("", "")


@dataclass(eq=False)
class Pod(Run):
    """As the API server has it; its engine is the one whose label it has."""

    name: PodName = _NOWHERE
    worker: str = ""
    """The scheduler that its label names."""

    mark: str = ""
    phase: Kind = Kind.PENDING
    started: bool = False
    """Its container has."""

    is_certain: bool = False
    """That it never started."""

    stuck: str | None = None

    def seen(self, kind: Kind | None = None) -> Seen:
        """As a list shows it, or an event of a watch.

        :param kind: of an event that takes it out of the watch
        """
        phase = kind or self.phase
        reason = "" if phase is Kind.FAILED else None
        observed = Observation(phase, reason, self.started)
        return Seen(self.name, observed, self.mark, None, kind is not None, self.is_certain, self.stuck)


@dataclass(eq=False)
class _Asked:
    """A request for a pod."""

    job: Job
    name: PodName
    mark: str
    doubtful: bool = False
    """An answer was lost."""


class Cluster(Place):
    """One of a backend."""

    def __init__(self, world: Clock, name: str, kind: PlaceKind) -> None:
        super().__init__(world, name, kind)
        self.pods: dict[PodName, Pod] = {}

    def engine(self, slots: int) -> PodEngine:
        return PodEngine(self, slots, next(self.numbers))

    def create(self, asked: _Asked, engine: PodEngine) -> Answer:
        """Ask for a pod; returns the API server's answer.

        :param engine: whose label it gets
        """
        there = self.pods.get(asked.name)
        if there is not None:
            return _DONE if there.mark == asked.mark else _TAKEN
        given = asked.job.workload
        task = given.task
        answer = self.meets(asked.name.namespace, self.size_of(task))
        if answer.verdict is not Verdict.DONE:
            self.note_failure(task)
            return answer
        task.sent += 1
        rng = self.world.random("run", task.number, task.sent)
        if rng.random() < REJECTED or self.world.now < task.spoilt_until:
            task.came_to_nothing(self.world.now)
            self.note_failure(task)
            return rng.choice((_SPOILT, _OWN_TROUBLE))
        pod = Pod(
            task,
            asked.job.workload.ti_id,
            None if engine.is_dead else engine,
            asked.job.dispatch,
            rng,
            name=asked.name,
            worker=engine.worker,
            mark=asked.mark,
        )
        pod.stuck = "no room on any node" if rng.random() < STALLED else None
        self.pods[pod.name] = pod
        self.enter(pod)
        self._show(pod)
        return _DONE

    def size_of(self, task: Task) -> int:
        """Of its pod."""
        return 1 if task.number % _LARGE else QUOTA

    def meets(self, namespace: str, size: int = 1) -> Answer:
        """The answer that every pod of that size meets there."""
        if self.refuses and namespace == NAMESPACES[0]:
            return _DENIED
        pods = (pod for pod in self.pods.values() if pod.name.namespace == namespace and not pod.over)
        return _FULL if self.is_small and sum(1 for _ in pods) + size > QUOTA else _DONE

    def delete(self, pod: Pod) -> None:
        """Whoever has its label sees that it was revoked."""
        if not pod.over:
            self.kill(pod, "deleted", told=False)
        self.pods.pop(pod.name, None)
        self._show(pod, Kind.REVOKED)

    def label(self, pod: Pod, engine: PodEngine, dispatch: int) -> None:
        """It is another scheduler's from now on, and leaves the watch of the one before."""
        if pod.engine is not engine:
            self._show(pod, Kind.RELEASED)
        pod.engine, pod.worker, pod.dispatch = engine, engine.worker, dispatch

    def _show(self, pod: Pod, kind: Kind | None = None) -> None:
        if isinstance(pod.engine, PodEngine):
            pod.engine.watched.append(pod.seen(kind))

    # As a place

    def tell_begun(self, run: Run) -> None:
        if isinstance(run, Pod) and run.name in self.pods:
            run.phase, run.started, run.stuck = Kind.RUNNING, True, None
            self._show(run)

    def tell(self, run: Run, *news: Event) -> None:
        """Only of its end is there something to tell."""
        if not isinstance(run, Pod) or run.name not in self.pods:
            return
        for event in news:
            if isinstance(event, Ended) and event.how is Outcome.SUCCESS:
                run.phase, run.started = Kind.SUCCEEDED, True
            else:
                run.phase = Kind.FAILED
                run.is_certain = not isinstance(event, Ended) or event.reason == "no image"
                is_mishap = isinstance(event, Ended) and event.mishap
                run.started = run.started or not (run.is_certain or is_mishap)
            run.stuck = None
            self._show(run)
            if run.engine is None and run.phase is Kind.SUCCEEDED:
                del self.pods[run.name]  # a scheduler tidies up

    def deny(self, run: Run, is_own_fault: bool) -> None:
        """The API server has lost it, and it goes on."""
        self.note_failure(run.task)
        if isinstance(run, Pod):
            self.pods.pop(run.name, None)

    def kill(self, run: Run, reason: str, told: bool = True) -> None:
        """Untold: with its node, and nobody notices. Told: it fails, or somebody deletes it."""
        if told and isinstance(run, Pod) and run.name in self.pods and run.rng.random() < _BY_HAND:
            self.delete_by_hand(run)
            return
        super().kill(run, reason, told)
        if not told and isinstance(run, Pod):
            self.pods.pop(run.name, None)

    def delete_by_hand(self, pod: Pod) -> None:
        """Nobody of ours does."""
        super().kill(pod, "deleted by hand", told=False)
        pod.is_certain = not pod.started
        del self.pods[pod.name]
        self._show(pod, Kind.DELETED)

    def desert(self, engine: PlaceEngine) -> None:
        super().desert(engine)
        for pod in list(self.pods.values()):
            if pod.engine is engine:
                pod.engine = None
                if pod.phase is Kind.SUCCEEDED:
                    del self.pods[pod.name]


class PodEngine(PlaceEngine):
    """See ``engine.Engine``."""

    has_lanes = True

    def __init__(self, cluster: Cluster, slots: int, number: int) -> None:
        """
        :param number: names it among those of its cluster
        """
        super().__init__(cluster, slots)
        self.cluster, self._number = cluster, number
        self._rng = cluster.world.random("engine", cluster.name, number)
        lanes = Lanes(NAMESPACES, self._unwatched, self._rng.random)
        self.machine = Machine(cluster.name, lanes, Pods(), chance=self._rng.random)
        self.watched: list[Seen] = []
        """Not told yet by its watch."""

        self._asked: dict[int, _Asked] = {}
        self._answers: list[Callable[[float], None]] = []
        self._searches: list[_Search] = []
        self._revoked: set[int] = set()
        self._unwanted: dict[PodName, bool] = {}
        """To be deleted; whether even where they have started."""

        self._was_away, self._look_due, self.worker = False, 0.0, ""

    def __len__(self) -> int:
        return self.machine.unsent + len(self.machine.pods) + len(self._searches) + len(self._unwanted)

    def start(self, scheduler_id: str) -> None:
        """Its watches begin with its first work."""
        self.worker = scheduler_id

    @property
    def _now(self) -> float:
        return self.place.world.now

    def _unwatched(self, namespace: str) -> str | None:
        return None if self.place.up else "away"

    def room(self) -> Room:
        self._fail()
        return self.machine.room(self.slots, self._unwatched(""))

    def lane(self, given: Any) -> str:
        return NAMESPACES[given.task.number % 3 // 2]

    # Orders

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            mark = f"{self._number}-{job.dispatch}"
            given = job.workload
            name = PodName(self.lane(given), f"{given.task.number}-{mark}")
            self._asked[job.dispatch] = _Asked(job, name, mark)
        self.machine.submit((job.dispatch, job.key) for job in jobs)

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        return self.machine.withdraw(dispatches)

    def revoke(self, dispatch: int, over: bool = False) -> None:
        self._revoked.add(dispatch)
        self.machine.revoke(dispatch, self._now, over=over)
        self._take_orders()

    def forget(self, dispatch: int) -> None:
        self.machine.forget(dispatch)

    def adopt(self, found: Sequence[Found]) -> None:
        new = set(self.machine.seek(each.dispatch for each in found))
        sought = [each for each in found if each.dispatch in new]
        if sought:
            self._searches.append(_Search(sought, self._now))

    # A heartbeat of its own thread

    def _work(self) -> None:
        if self.place.up:
            self._watch()
            self._delete()
            self._search()
        self._was_away = not self.place.up
        answers, self._answers = self._answers, []
        for answer in answers:
            answer(self._now)
        if not self.place.slow:
            while not isinstance(step := self.machine.next(self._now), Wait):
                self._do(step)
        self._take_orders()
        self.news += self.machine.take_events()

    def _do(self, step: Step) -> None:
        match step:
            case Create(dispatch):
                asked = self._asked[dispatch]
                if self.machine.built(dispatch, asked.name, asked.mark, self._now):
                    self._after_a_while(partial(self._ask, asked))
            case AskNamespace(namespace):
                self._after_a_while(partial(self._ask_namespace, namespace))
            case AskServer():
                self._after_a_while(self._ask_server)

    def _after_a_while(self, call: Callable[[], None]) -> None:
        self.place.world.after(self._rng.uniform(0.01, 1.0), call)

    def _ask(self, asked: _Asked) -> None:
        answer, neutral = _AWAY, None
        if self.place.up and self._rng.random() < _THROTTLED:
            answer = _TOO_MANY
        elif self.place.up:
            answer = self.cluster.create(asked, self)
            asked.doubtful = self._rng.random() < _LOST
            if asked.doubtful:
                answer = _AWAY
            elif answer.verdict in WAITS:
                neutral = self.cluster.meets(asked.name.namespace)
        doubtful, dispatch = asked.doubtful, asked.job.dispatch
        self._answers.append(
            lambda now: self.machine.answered(dispatch, answer, now, doubtful=doubtful, neutral=neutral)
        )

    def _ask_namespace(self, namespace: str) -> None:
        answer = self.cluster.meets(namespace) if self.place.up else _AWAY
        self._answers.append(lambda now: self.machine.namespace_answered(namespace, answer, now))

    def _ask_server(self) -> None:
        trouble = None if self.place.up else _AWAY
        self._answers.append(lambda now: self.machine.server_answered(trouble, now))

    def _take_orders(self) -> None:
        for order in self.machine.take_orders():
            even_started = isinstance(order, Finish) or order.even_started
            self._unwanted[order.pod] = even_started or self._unwanted.get(order.pod, False)

    def _delete(self) -> None:
        for name, even_started in self._unwanted.items():
            pod = self.cluster.pods.get(name)
            if pod is not None and (even_started or not pod.started):
                self._check(pod)
                self.cluster.delete(pod)
        self._unwanted.clear()

    def _check(self, pod: Pod) -> None:
        if pod.runs and pod.task.run is pod and pod.task.state == "running":
            raise Violation("is killed, and runs", pod.task.number)

    # What it sees

    def _watch(self) -> None:
        """A list takes the place of a watch that cannot go on, or misses something."""
        watched, self.watched = self.watched, []
        if self._was_away and self._rng.random() < _FORGOTTEN:
            self._list()
            return
        for seen in watched:
            self.machine.see(seen)
        if self._now >= self._look_due:
            self._look_due = self._now + _LOOK
            self._list()

    def _list(self) -> None:
        known = set(self.machine.pods.versions(None))
        listed = [pod for pod in self.cluster.pods.values() if pod.engine is self]
        for pod in listed:
            self.machine.see(pod.seen())
        self.machine.pods.missing(known - {pod.name for pod in listed})

    def _search(self) -> None:
        searches, self._searches = self._searches, []
        for search in searches:
            if self.place.mute or search.due > self._now:
                self._searches.append(search)
                continue
            left = [each for each in search.found if not self._own(each)]
            if search.is_last:
                self.machine.absent(each.dispatch for each in left)
            elif left:
                self._searches.append(_Search(left, self._now + _GRACE, is_last=True))

    def _own(self, found: Found) -> bool:
        """Of several pods one that has started, and of these the newest. Unlike the real search, it also finds the pod
        of a scheduler whose own successor died before it had labelled it."""
        owner = getattr(found.ti, "queued_by_job_id", None)
        is_anyones = owner is None or found.dispatch not in self._revoked
        workers = self.worker, str(owner)
        pods = [
            pod
            for pod in self.cluster.pods.values()
            if pod.ti_id == found.ti.id
            and (is_anyones or pod.worker in workers)
            and pod.phase is not Kind.SUCCEEDED
        ]
        if not pods:
            return False
        pod = max(reversed(pods), key=lambda pod: pod.started)
        self.cluster.label(pod, self, found.dispatch)
        self.machine.found(found.dispatch, pod.seen(), found.runs, self._now)
        self.machine.see(pod.seen())
        return True


@dataclass
class _Search:
    """A look for the pods of dead schedulers."""

    found: Sequence[Found]
    due: float
    is_last: bool = False
