# SPDX-License-Identifier: Apache-2.0
"""Runs of one world after the other, and what they have shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_dispatch_provider.simulation.tasks import Violation
from airflow_dispatch_provider.simulation.world import DAY, Shape, World


@dataclass
class Report:
    """The sum of some runs."""

    worlds: int = 0
    seconds: float = 0.0
    """Simulated."""

    tasks: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seed: int = 0
    """Of the last world."""

    violation: str | None = None
    """In the last world; there is none after it."""

    story: list[str] = field(default_factory=list)
    """How that came about."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "worlds": self.worlds,
            "simulated_seconds": round(self.seconds, 1),
            "tasks": self.tasks,
            "faults": dict(sorted(self.faults.items())),
            "violation": self.violation,
            "seed": self.seed if self.violation else None,
            "story": self.story,
        }

    def lines(self) -> Iterator[str]:
        yield f"{'worlds':24}{self.worlds:12,}"
        yield f"{'simulated days':24}{self.seconds / DAY:12,.2f}"
        yield f"{'tasks':24}{self.tasks:12,}"
        yield f"{'faults':24}{self.faults.total():12,}"
        for name, number in sorted(self.faults.items()):
            yield f"  {name:22}{number:12,}"
        yield f"{'violations':24}{int(self.violation is not None):12}"
        if self.violation is not None:
            yield ""
            yield f"seed {self.seed}: {self.violation}"
            yield from self.story


def simulate(
    seed: int,
    seconds: float,
    shape: Shape,
    goes_on: Callable[[Report], bool],
) -> Report:
    """Run worlds with this seed and the following ones, until one goes wrong.

    :param seconds: of each, simulated, before it is left to come to rest
    :param goes_on: asked before each but the first
    """
    report = Report(seed=seed)
    while True:
        world = World(report.seed, shape)
        try:
            world.run(seconds)
        except Violation as violation:
            report.violation, report.story = str(violation), list(_story(world, violation))
        report.worlds += 1
        report.seconds += world.now
        report.tasks += len(world.tasks.by_number)
        report.faults += world.faults
        if report.violation is not None or not goes_on(report):
            return report
        report.seed += 1


def _story(world: World, violation: Violation) -> Iterator[str]:
    """The last faults, and what each scheduler knows of the task."""
    yield f"At {world.now:.1f} s. The last faults:"
    for at, fault in world.recent:
        yield f"  {at:10.1f} {fault}"
    if violation.task is None:
        return
    key = world.tasks.by_number[violation.task].key
    for scheduler in world.schedulers.values():
        yield f"Scheduler {scheduler.job}{'' if scheduler.alive else ' (dead)'} on the task:"
        for step in scheduler.loop.machine.story(key):
            yield f"  {step}"
