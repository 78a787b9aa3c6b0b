# SPDX-License-Identifier: Apache-2.0
"""Faults, and what people do: a plan of them, made beforehand, each of which can be left out without changing another.

A fault chooses among what is there when it strikes by a number that the plan gives it, and uses no other chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import NamedTuple, TypeVar

from airflow_dispatch_provider.simulation.places import Place, Run
from airflow_dispatch_provider.simulation.world import World

T = TypeVar("T")

LONGEST_API_OUTAGE, LONGEST_DATABASE_OUTAGE, LONGEST_RESTART = 120.0, 60.0, 40.0
"""Seconds."""

_LASTS = (0.5, 5.0, 20.0, 60.0, 300.0)


class Fault(NamedTuple):
    """One of a plan."""

    at: float
    """Virtual seconds."""

    kind: str
    """A key of ``KINDS``."""

    whom: float
    """From 0 to below 1: which of those that are there then."""

    seconds: float
    """How long it lasts, where it passes by itself."""

    def pick(self, among: Sequence[T]) -> T:
        """One of them, of which there has to be one."""
        return among[int(self.whom * len(among))]


def plan(seed: int, seconds: float, every: float) -> tuple[Fault, ...]:
    """Faults until then, by virtual time.

    :param every: seconds between two of them, on average
    """
    faults = list[Fault]()
    at = 0.0
    while True:
        rng = Random(f"{seed} fault {len(faults)}")
        at += rng.expovariate(1 / every)
        if at >= seconds:
            return tuple(faults)
        lasts = rng.choice(_LASTS) * rng.uniform(0.5, 1.5)
        faults.append(Fault(round(at, 3), rng.choice(list(KINDS)), round(rng.random(), 6), round(lasts, 3)))


def schedule(world: World, faults: Sequence[Fault]) -> None:
    """Let them strike when their time comes."""
    for fault in faults:
        world.after(fault.at, partial(_strike, world, fault))


def _strike(world: World, fault: Fault) -> None:
    world.struck.append((fault.at, fault.kind, KINDS[fault.kind](world, fault)))


# Each returns the name of what it hit; empty: there was nothing.


def _scheduler_killed(world: World, fault: Fault) -> str:
    place = fault.pick(range(world.shape.schedulers))
    scheduler = world.schedulers[place]
    if not scheduler.alive:
        return ""
    scheduler.die()
    world.after(min(fault.seconds, LONGEST_RESTART), lambda: world.start(place))
    return f"scheduler {scheduler.job}"


def _scheduler_stopped(world: World, fault: Fault) -> str:
    scheduler = world.schedulers[fault.pick(range(world.shape.schedulers))]
    scheduler.paused = True
    world.restore(fault.seconds, lambda: setattr(scheduler, "paused", False))
    return f"scheduler {scheduler.job}"


def _api_killed(world: World, fault: Fault) -> str:
    """For less than LOST_AFTER: else Airflow takes whatever runs for dead."""
    tasks = world.tasks
    if not tasks.api_up:
        return ""
    tasks.api_up, tasks.swallow = False, fault.pick((0, 1, 3))

    def is_back() -> None:
        tasks.api_up, tasks.swallow = True, 0

    world.restore(min(fault.seconds, LONGEST_API_OUTAGE), is_back)
    return f"{tasks.swallow} answers lost"


def _database_away(world: World, fault: Fault) -> str:
    """For the clerks alone, and not for long: a scheduler whose own questions fail ends."""
    world.database_up = False
    world.restore(min(fault.seconds, LONGEST_DATABASE_OUTAGE), lambda: setattr(world, "database_up", True))
    return "clerks"


def _backend_away(world: World, fault: Fault) -> str:
    place = _place(world, fault)
    place.up = False
    world.restore(fault.seconds, lambda: setattr(place, "up", True))
    return place.name


def _backend_mute(world: World, fault: Fault) -> str:
    place = _place(world, fault)
    place.mute = True
    world.restore(fault.seconds, lambda: setattr(place, "mute", False))
    return place.name


def _run_lost(world: World, fault: Fault) -> str:
    """A message, or a process that had begun; its engine hears nothing."""
    return _kill(world, fault, "lost", told=False)


def _run_killed(world: World, fault: Fault) -> str:
    return _kill(world, fault, "killed", told=True)


def _kill(world: World, fault: Fault, reason: str, told: bool) -> str:
    runs: list[tuple[Place, Run]] = [(place, run) for place in world.places.values() for run in place.runs]
    if not runs:
        return ""
    place, run = fault.pick(runs)
    place.kill(run, reason, told)
    return f"task {run.task.number} at {place.name}"


def _place(world: World, fault: Fault) -> Place:
    return fault.pick(list(world.places.values()))


KINDS: dict[str, Callable[[World, Fault], str]] = {
    "scheduler killed": _scheduler_killed,
    "scheduler stopped": _scheduler_stopped,
    "api killed": _api_killed,
    "database away": _database_away,
    "backend away": _backend_away,
    "backend mute": _backend_mute,
    "run lost": _run_lost,
    "run killed": _run_killed,
}
