# SPDX-License-Identifier: Apache-2.0
"""A wait for nothing is noticed, and one for something is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.simulation.patience import IDLE, RECOVERED, UNCARED, Patience
from airflow_dispatch_provider.simulation.tasks import LAUNCHED_FOR, LAUNCHES, Task, Tasks, Violation


class Machine:
    """As far as it is asked."""

    def __init__(self) -> None:
        self.slots_used = {"near": 0, "far": 0}
        self.jobs: dict[Any, State] = {}
        self.circuits = dict.fromkeys(self.slots_used, CircuitState.CLOSED)

    def __contains__(self, key: object) -> bool:
        return key in self.jobs

    def state(self, key: Any) -> State:
        return self.jobs[key]

    def circuit(self, name: str) -> CircuitState:
        return self.circuits[name]


class World:
    """With one scheduler, and one task that it has queued."""

    def __init__(self) -> None:
        self.now, self.tasks, self.machine = 1000.0, Tasks(), Machine()
        self.places: dict[str, Any] = {
            name: SimpleNamespace(closed={}, reopened={}, failures=[]) for name in self.machine.slots_used
        }
        self.scheduler: Any = SimpleNamespace(
            alive=True,
            paused=False,
            job=1,
            loop=SimpleNamespace(machine=self.machine),
            engines={name: SimpleNamespace(has_room=lambda used: used < 4) for name in self.places},
        )
        self.schedulers = {0: self.scheduler}
        self.task = self.queue()
        self.patience = Patience(self, {"queue": ("near", "far")})

    def queue(self) -> Task:
        task = self.tasks.add("queue", 1)
        task.state, task.owner = "queued", 1
        self.machine.jobs[task.key] = State.HELD
        return task

    def check_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.patience.check()
            self.now += 5.0
        self.patience.check()


@pytest.fixture
def world() -> World:
    return World()


def test_a_task_that_nobody_has(world: World) -> None:
    world.machine.jobs.clear()
    world.check_for(UNCARED - 5)
    with pytest.raises(Violation, match="is in nobody's care"):
        world.check_for(5)


def test_a_task_beside_a_free_slot(world: World) -> None:
    world.check_for(IDLE - 5)
    with pytest.raises(Violation, match="waits beside a free slot"):
        world.check_for(5)


@pytest.mark.parametrize(
    "reason", ["no slot is free", "it has been sent", "its lane is full", "it cannot be sent"]
)
def test_what_waits_for_something(world: World, reason: str) -> None:
    if reason == "no slot is free":
        world.machine.slots_used["near"] = 4
    elif reason == "it has been sent":
        world.machine.jobs[world.task.key] = State.SENT
    elif reason == "its lane is full":
        world.places["near"].closed["queue"] = "full"
    else:
        world.task.spoilt_until = world.now + 2 * IDLE
    world.check_for(IDLE + 5)


@pytest.mark.parametrize("what", ["near", "queue at near", "scheduler 3", ""])
def test_a_fault_begins_the_time_anew(world: World, what: str) -> None:
    """Of its backend, or of everything."""
    world.check_for(IDLE - 5)
    world.patience.disturb(what, 10.0)
    world.check_for(IDLE - 5)


def test_a_fault_elsewhere_does_not(world: World) -> None:
    world.patience.disturb("far", 10 * IDLE)
    with pytest.raises(Violation, match="waits beside"):
        world.check_for(IDLE + 5)


def test_a_circuit_that_one_task_alone_has_opened(world: World) -> None:
    world.machine.circuits["far"] = CircuitState.OPEN
    world.places["far"].failures += [(world.now, world.task)]
    with pytest.raises(Violation, match="is taken for a failure of its backend: far"):
        world.patience.check()


def test_a_circuit_that_two_tasks_or_a_fault_have_opened(world: World) -> None:
    world.machine.circuits["far"] = CircuitState.OPEN
    world.places["far"].failures += [(world.now, world.task), (world.now, world.queue())]
    world.patience.check()
    world.places["far"].failures.pop()
    world.patience.disturb("far", 5.0)
    world.patience.check()


def test_a_task_goes_to_its_first_choice(world: World) -> None:
    """Where that has a slot for it."""
    world.patience.dispatched(world.scheduler, world.task, "near")
    with pytest.raises(Violation, match="passes over a free slot: of near for far"):
        world.patience.dispatched(world.scheduler, world.task, "far")


@pytest.mark.parametrize(
    "reason", ["full", "closed lane", "lane just reopened", "circuit", "failed there", "fault", "recovers"]
)
def test_a_task_may_pass_over_its_first_choice(world: World, reason: str) -> None:
    if reason == "full":
        world.machine.slots_used["near"] = 4
    elif reason == "closed lane":
        world.places["near"].closed["queue"] = "full"
    elif reason == "lane just reopened":
        world.places["near"].reopened["queue"] = world.now - RECOVERED + 1
    elif reason == "circuit":
        world.machine.circuits["near"] = CircuitState.HALF_OPEN
    elif reason == "failed there":
        world.places["near"].failures += [(0.0, world.task)]
    else:
        world.patience.disturb("near", 10.0)
        world.now += RECOVERED if reason == "recovers" else 0
    world.patience.dispatched(world.scheduler, world.task, "far")


def test_a_task_is_not_given_up_early(world: World) -> None:
    """However often it was launched."""
    for _ in range(LAUNCHES + 1):
        world.task.came_to_nothing(world.now)
    assert not world.task.may_fail
    world.task.came_to_nothing(world.now + LAUNCHED_FOR)
    assert world.task.may_fail
