# SPDX-License-Identifier: Apache-2.0
"""Virtual time, and all that happens in it by chance; the same seed tells the same story."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, pairwise
from random import Random
from typing import Any
from zlib import crc32

from airflow_dispatch_provider.lifecycle.events import BackendRules, Command, Limits, Order, Settings
from airflow_dispatch_provider.lifecycle.transitions import ROWS, Rows
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, Route, Target
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.simulation.cluster import Cluster
from airflow_dispatch_provider.simulation.hosts import Host
from airflow_dispatch_provider.simulation.messages import MessageBroker
from airflow_dispatch_provider.simulation.patience import Patience
from airflow_dispatch_provider.simulation.places import CELERY, FOREIGN, KUBERNETES, LOCAL, Place
from airflow_dispatch_provider.simulation.schedulers import Scheduler
from airflow_dispatch_provider.simulation.strangers import StrangePlace
from airflow_dispatch_provider.simulation.tasks import HEARTBEAT, Task, Tasks, Violation

BACKENDS = {"local": (LOCAL, 4), "celery": (CELERY, 16), "pods": (KUBERNETES, 16), "other": (FOREIGN, 8)}
"""Kind and slots of each."""

ROUTES = {
    "near": ("local",),
    "far": ("celery", "pods"),
    "wide": ("pods", "celery", "local"),
    "else": ("other", "local"),
}
_MODELS: dict[str, type[Place]] = {
    "local": Host,
    "celery": MessageBroker,
    "pods": Cluster,
    "other": StrangePlace,
}
_BURST, _BURSTS = 8, 0.05
"""How many times as many tasks come in some batches, and the part of these."""

_DEFERS = (0,) * 8 + (1, 3)
"""How often tasks do."""

_CALLBACKS = 0.1
"""For each task."""

CALM = 7200.0
"""Seconds after the last fault within which everything has to have ended."""

AFTERWARDS = 180.0
"""Seconds after the last fault in which tasks still come, and have to end like the others."""

DAY = 86_400.0


@dataclass(frozen=True)
class Shape:
    """How large a world is, and how rough."""

    schedulers: int = 2
    batch: int = 12
    """Tasks that come at a time."""

    every: float = 60.0
    """Seconds between two batches."""

    fault_every: float = 30.0
    """Seconds between two faults, on average."""

    @classmethod
    def varied(cls, seed: int) -> Shape:
        """One of many."""
        rng = Random(f"{seed} shape")
        return cls(
            rng.choice((1, 2, 2, 3)), rng.choice((4, 12, 24)), fault_every=rng.choice((1.0, 3.0, 10.0, 30.0))
        )


class World:
    """One run. Raises ``Violation`` as soon as an invariant does not hold."""

    def __init__(self, seed: int, shape: Shape = Shape(), rows: Rows = ROWS) -> None:
        """
        :param rows: of the table of transitions, by which every scheduler goes
        """
        self.seed, self.shape, self.rows, self.now = seed, shape, rows, 0.0
        self.tasks, self.jobs = Tasks(), dict[int, float]()
        self.database_up, self.taken_for_dead = True, set[int]()
        self._disturbed: list[float] = []
        self.struck: list[tuple[float, str, str]] = []
        """Faults so far: when (virtual seconds), which, and what they hit."""

        self.trace = 0
        """A checksum of all that has begun and ended, in order."""

        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties, self._coming = count(), self.random("tasks")
        self._job_ids = [count(place, shape.schedulers) for place in range(1, shape.schedulers + 1)]
        self._calm = False
        self.patience = Patience(self, ROUTES)
        self.slots = {name: slots for name, (_, slots) in BACKENDS.items()}
        self.places = {
            name: _MODELS.get(name, Place)(self, name, kind) for name, (kind, _) in BACKENDS.items()
        }
        routes = [Route(queue=queue, to=tuple(map(Target, to))) for queue, to in ROUTES.items()]
        table = RouteTable(routes, Route(queue="*", to=(Target("celery"),)), {})
        rules = {
            name: BackendRules(revokes=kind.revokes, by_queue=name == "celery")
            for name, (kind, _) in BACKENDS.items()
        }
        self.settings = self._first_settings = Settings(table, rules, Limits())
        self.schedulers: dict[int, Scheduler] = {}
        for place in range(shape.schedulers):
            self.start(place)
        self._beat()

    def random(self, *of: object) -> Random:
        """Chance that is the same whatever else happens."""
        return Random(f"{self.seed} {of}")

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heappush(self._heap, (self.now + seconds, next(self._ties), call))

    def note(self, task: Task, what: str) -> None:
        """Something has begun or ended."""
        self.trace = crc32(f"{self.now} {task.number} {what}".encode(), self.trace)

    def disturb(self, name: str, seconds: float) -> None:
        """A backend is not all right for so long."""
        self.patience.disturb(name, seconds)

    def run(self, seconds: float) -> None:
        """So long, and then without faults until everything has ended."""
        self._bring_tasks(seconds + AFTERWARDS)
        self._until(seconds, lambda: False)
        self._calm_down()
        self._until(self.now + CALM, self._is_over)
        if not self._is_over():
            raise Violation("does not come to rest", detail=f"{CALM:.0f} s without faults: {self.left()}")

    def _until(self, end: float, is_over: Callable[[], bool]) -> None:
        while self._heap and self._heap[0][0] <= end and not is_over():
            self.now, _, call = heappop(self._heap)
            call()
        if not is_over():
            self.now = max(self.now, end)

    def left(self) -> str:
        """Whatever is still there, in words."""
        rows = [
            f"task {task.number} {task.state} owner {task.owner} try {task.attempt}"
            for task in list(self.tasks.open.values())[:5]
        ]
        machines = [repr(each.loop.machine) for each in self.schedulers.values()]
        engines = [
            f"{name} {len(engine)}"
            for each in self.schedulers.values()
            for name, engine in each.engines.items()
        ]
        return "; ".join([*rows, *machines, *engines])

    def _is_over(self) -> bool:
        if self.tasks.open:
            return False
        living = self.schedulers.values()
        idle = all(
            not len(each.loop.machine) and not sum(each.loop.machine.slots_used.values()) for each in living
        )
        return idle and not any(len(engine) for each in living for engine in each.engines.values())

    # What happens by itself

    def _bring_tasks(self, until: float) -> None:
        rng = self._coming
        for _ in range(self.shape.batch * (_BURST if rng.random() < _BURSTS else 1)):
            self.tasks.add(rng.choice(list(ROUTES)), rng.choice((1, 1, 5)), rng.choice(_DEFERS))
            if rng.random() < _CALLBACKS:
                self.tasks.add("callbacks", 1, kind=EXECUTE_CALLBACK)
        if self.now + self.shape.every < until:
            self.after(self.shape.every, lambda: self._bring_tasks(until))

    def _beat(self) -> None:
        """Heartbeats of tasks, and the triggers of those that have deferred."""
        asleep = any(each.paused for each in self.schedulers.values())
        shows = all(place.shows_the_api for place in self.places.values())
        if asleep or not self.tasks.api_up or not self.database_up or not shows:
            self._disturbed.append(self.now)
        for place in self.places.values():
            place.beat()
        for task in self.tasks.in_state("deferred"):
            self.tasks.resume(task)
        self.patience.check()
        self.after(HEARTBEAT, self._beat)

    def undisturbed(self, since: float) -> float:
        """The longest time since then in which all who have to be asked could be, in seconds."""
        disturbed = self._disturbed[bisect(self._disturbed, since) :]
        return max(later - before for before, later in pairwise([since, *disturbed, self.now]))

    def start(self, place: int) -> None:
        """A scheduler, in the place of one that has died."""
        scheduler = self.schedulers[place] = Scheduler(self, next(self._job_ids[place]))
        self.after(scheduler.rng.uniform(0, 1), lambda: self._round(scheduler))

    def _round(self, scheduler: Scheduler) -> None:
        if scheduler.alive:
            if not scheduler.paused:
                scheduler.beat()
            self.after(scheduler.rng.uniform(0.8, 1.2), lambda: self._round(scheduler))

    # Faults, see ``faults``

    def configure(self, settings: Settings) -> None:
        """Every scheduler takes it in, and those that start from now on."""
        self.settings = settings
        for scheduler in self.schedulers.values():
            if scheduler.alive:
                scheduler.use(settings)

    def tell(self, *happened: Any) -> None:
        """Every scheduler, also one that is stopped: what is said to it does not change while it is."""
        for scheduler in self.schedulers.values():
            if scheduler.alive:
                scheduler.loop.tell(self.now, *happened)

    def restore(self, seconds: float, repair: Callable[[], None]) -> None:
        """After so long, unless everything has been repaired by then."""
        self.after(seconds, lambda: None if self._calm else repair())

    def _calm_down(self) -> None:
        self._calm = True
        self.tasks.api_up, self.tasks.swallow, self.database_up = True, 0, True
        for place in self.places.values():
            place.up, place.mute = True, False
            place.slow = place.late = place.reverses = False
            place.idle = place.refuses = place.breaks = place.hollow = place.is_small = False
            place.closed.clear()
        self.configure(self._first_settings)
        for name in BACKENDS:
            self.tell(Order(Command.RESUME, name))
        for scheduler in self.schedulers.values():
            scheduler.paused = False
