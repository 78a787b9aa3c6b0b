# SPDX-License-Identifier: Apache-2.0
"""Faults, and what people do: a plan of them, made beforehand, each of which can be left out without changing another.

A fault chooses among what is there when it strikes by a number that the plan gives it, and uses no other chance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import NamedTuple, TypeVar

from airflow_dispatch_provider.lifecycle.events import BackendRules, Command, Order, Recall
from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.simulation.places import Place, Run
from airflow_dispatch_provider.simulation.schedulers import Scheduler
from airflow_dispatch_provider.simulation.tasks import Task
from airflow_dispatch_provider.simulation.world import ROUTES, World

T = TypeVar("T")

LONGEST_API_OUTAGE, LONGEST_DATABASE_OUTAGE, LONGEST_RESTART = 120.0, 60.0, 40.0
"""Seconds."""

_CONFINED = {
    "run lost",
    "run killed",
    "run returned",
    "run denied",
    "task spoilt",
    "log cleaned",
    "task cleared",
    "task taken back",
    "task recalled",
    "lane full",
}
"""Faults that keep no other task from a backend."""

_EMPTIES = 0.3
"""Part of the backends that come back empty."""

_LASTS = (0.5, 5.0, 20.0, 60.0, 300.0)


class Fault(NamedTuple):
    """One of a plan."""

    at: float
    """Virtual seconds."""

    kind: str
    """A key of ``KINDS``."""

    whom: float
    """From 0 to 1: which of those that are there then."""

    seconds: float
    """How long it lasts, where it passes by itself."""

    def pick(self, among: Sequence[T]) -> T:
        """One of them, of which there has to be one."""
        return among[min(int(self.whom * len(among)), len(among) - 1)]


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
    place = len(world.struck)
    world.struck.append((fault.at, fault.kind, "..."))
    hit = KINDS[fault.kind](world, fault)
    world.struck[place] = fault.at, fault.kind, hit
    if fault.kind not in _CONFINED:
        world.patience.disturb(hit, fault.seconds)


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


def _place_is(attribute: str, value: bool, world: World, fault: Fault) -> str:
    """So for a while."""
    place = _place(world, fault)
    setattr(place, attribute, value)
    world.restore(fault.seconds, lambda: setattr(place, attribute, not value))
    return place.name


def _backend_away(world: World, fault: Fault) -> str:
    """Some raise errors meanwhile, and not for long: no news of theirs is heard. Some come back empty."""
    place = _place(world, fault)
    place.raises = _LASTS[0] * 2 < fault.seconds < _LASTS[2] * 2
    place.go_away(empties=fault.whom * 1009 % 1 < _EMPTIES)
    world.restore(fault.seconds, lambda: setattr(place, "up", True))
    return place.name


def _run_lost(world: World, fault: Fault) -> str:
    """A message, or a process that had begun; its engine hears nothing. Messages are safe where none can be taken back,
    since nobody could send one again; so is the process of an earlier half, which may have been adopted as a
    message."""
    runs = [
        (place, run)
        for place, run in _runs(world)
        if run.task.is_task and (place.kind.revokes or (run.began and run.task.state != "queued"))
    ]
    return _at_one(runs, fault, lambda place, run: place.kill(run, "lost", told=False))


def _run_killed(world: World, fault: Fault) -> str:
    return _at_one(_runs(world), fault, lambda place, run: place.kill(run, "killed", told=True))


def _run_returned(world: World, fault: Fault) -> str:
    """A message that nobody takes, or a pod that is refused after all: it certainly does not begin."""
    waiting = [(place, run) for place, run in _runs(world) if not run.began]
    return _at_one(waiting, fault, lambda place, run: place.give_back(run, fault.seconds > _LASTS[2]))


def _run_denied(world: World, fault: Fault) -> str:
    """One that has begun, which its row shows."""
    begun = [(place, run) for place, run in _runs(world) if run.runs and run.task.is_task]
    return _at_one(begun, fault, lambda place, run: place.deny(run, fault.seconds > _LASTS[2]))


def _at_one(runs: list[tuple[Place, Run]], fault: Fault, strike: Callable[[Place, Run], None]) -> str:
    """Strike one of these, if there is one."""
    if not runs:
        return ""
    place, run = fault.pick(runs)
    strike(place, run)
    return f"task {run.task.number} at {place.name}"


def _lane_full(world: World, fault: Fault) -> str:
    lanes = [
        (world.places[name], queue)
        for name, rules in world.settings.backends.items()
        for queue, names in ROUTES.items()
        if rules.by_queue and name in names and queue not in world.places[name].closed
    ]
    if not lanes:
        return ""
    place, queue = fault.pick(lanes)
    place.closed[queue] = "full"
    world.restore(fault.seconds, partial(place.reopen, queue))
    return f"{queue} at {place.name}"


def _task_spoilt(world: World, fault: Fault) -> str:
    """It cannot be sent anywhere, or not even prepared, and may fail for that."""
    ready = [task for task in world.tasks.open.values() if task.state in ("scheduled", "queued")]
    if not ready:
        return ""
    task = fault.pick(ready)
    task.spoilt_until, task.is_unprepared = world.now + fault.seconds * 2, fault.seconds > _LASTS[2]
    return f"task {task.number}"


# People


def _log_cleaned(world: World, fault: Fault) -> str:
    """Nobody knows any more which backend has what."""
    known = [task for task in world.tasks.open.values() if task.evidence is not None]
    for task in known:
        task.evidence = None
    return f"{len(known)} rows" if known else ""


def _task_cleared(world: World, fault: Fault) -> str:
    going = [
        task for task in world.tasks.open.values() if task.is_task and task.state in ("queued", "running")
    ]
    if not going:
        return ""
    task = fault.pick(going)
    world.tasks.clear(task)
    return f"task {task.number}"


def _task_taken_back(world: World, fault: Fault) -> str:
    """Airflow takes one for stuck, or for dead, whatever it does: its timeouts may be short."""
    found = _any_job(world, fault, tuple(State))
    if found is None:
        return ""
    scheduler, task = found
    if task.state == "running":
        key = task.key
        world.tasks.take_away(task)
        scheduler.loop.give_up(key, world.now)
    elif scheduler.loop.revoke(task.key, world.now):
        world.tasks.schedule(task)
    return f"task {task.number} by scheduler {scheduler.job}"


def _task_recalled(world: World, fault: Fault) -> str:
    found = _any_job(world, fault, (State.SUBMITTED, State.SENT, State.ADOPTING))
    if found is None:
        return ""
    scheduler, task = found
    sent = fault.whom * 7919 % 1 < 0.5
    scheduler.loop.tell(world.now, Recall(task.key, sent))
    return f"task {task.number} by scheduler {scheduler.job}{', though sent' if sent else ''}"


def _any_job(world: World, fault: Fault, states: Collection[State]) -> tuple[Scheduler, Task] | None:
    """Of a scheduler that works and has it by the database, too; one in a rare state as often as one in another."""
    working = [each for each in world.schedulers.values() if each.alive and not each.paused]
    jobs = [
        (each.loop.machine.state(task.key), each, task)
        for each in working
        for task in world.tasks.open.values()
        if task.owner == each.job
        and task.state in ("queued", "running")
        and task.is_task
        and task.key in each.loop.machine
        and each.loop.machine.state(task.key) in states
    ]
    if not jobs:
        return None
    which = fault.pick(list(dict.fromkeys(state for state, _, _ in jobs)))
    among = [(scheduler, task) for state, scheduler, task in jobs if state is which]
    return among[int(fault.whom * 997 % 1 * len(among))]


def _backend_ordered(world: World, fault: Fault) -> str:
    """Cordoned or drained, and resumed; or what it has not begun is recalled."""
    name, command = fault.pick([(name, command) for name in world.places for command in _ORDERS])
    world.tell(Order(command, name))
    world.restore(fault.seconds, lambda: world.tell(Order(Command.RESUME, name)))
    return f"{command.value} {name}"


def _backend_removed(world: World, fault: Fault) -> str:
    """From the configuration, for a while."""
    settings, name = world.settings, fault.pick(list(world.places))
    if settings.backends.keys() != world.places.keys():
        return ""
    left = {other: rules for other, rules in settings.backends.items() if other != name}
    world.configure(replace(settings, backends=left))
    world.restore(fault.seconds, lambda: _set_rules(world, name, settings.backends[name]))
    return name


def _rules_wrong(world: World, fault: Fault) -> str:
    """A backend is taken for one that can stop what it was given, and cannot."""
    name = "other"
    rules = world.settings.backends.get(name)
    if rules is None or rules.revokes:
        return ""
    _set_rules(world, name, BackendRules(revokes=True))
    world.restore(fault.seconds, lambda: _set_rules(world, name, rules))
    return name


def _set_rules(world: World, name: str, rules: BackendRules) -> None:
    world.configure(replace(world.settings, backends={**world.settings.backends, name: rules}))


_ORDERS = (Command.CORDON, Command.DRAIN, Command.RECALL)


def _runs(world: World) -> list[tuple[Place, Run]]:
    return [(place, run) for place in world.places.values() for run in place.runs]


def _place(world: World, fault: Fault) -> Place:
    return fault.pick(list(world.places.values()))


KINDS: dict[str, Callable[[World, Fault], str]] = {
    "scheduler killed": _scheduler_killed,
    "scheduler stopped": _scheduler_stopped,
    "api killed": _api_killed,
    "database away": _database_away,
    "backend away": _backend_away,
    "backend mute": partial(_place_is, "mute", True),
    "run lost": _run_lost,
    "run killed": _run_killed,
    "run returned": _run_returned,
    "run denied": _run_denied,
    # Engines hold on to what they are given.
    "backend slow": partial(_place_is, "slow", True),
    # Nothing begins, e.g. as all workers are busy; nothing can be sent; whatever would begin ends before that.
    "backend small": partial(_place_is, "is_small", True),
    "lane full": _lane_full,
    "backend idle": partial(_place_is, "idle", True),
    "backend refuses": partial(_place_is, "refuses", True),
    "backend breaks": partial(_place_is, "breaks", True),
    # What is started there is not the task, and ends well.
    "backend hollow": partial(_place_is, "hollow", True),
    # Nothing is heard of what was sent, though it goes on; so, too, and then in the wrong order.
    "news late": partial(_place_is, "late", True),
    "news reversed": partial(_place_is, "reverses", True),
    "task spoilt": _task_spoilt,
    "log cleaned": _log_cleaned,
    "task cleared": _task_cleared,
    "task taken back": _task_taken_back,
    "task recalled": _task_recalled,
    "backend ordered": _backend_ordered,
    "backend removed": _backend_removed,
    "rules wrong": _rules_wrong,
}
