# SPDX-License-Identifier: Apache-2.0
"""One world and the faults in it, as values that can be kept and run again."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

from airflow_dispatch_provider.lifecycle.transitions import ROWS, Rows
from airflow_dispatch_provider.simulation.faults import Fault, plan, schedule
from airflow_dispatch_provider.simulation.tasks import Violation
from airflow_dispatch_provider.simulation.world import Shape, World


@dataclass(frozen=True)
class Scenario:
    """The same one always runs in the same way, as long as the code is the same."""

    seed: int
    shape: Shape
    seconds: float
    """Virtual ones, before the world is left to come to rest."""

    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, seed: int, shape: Shape, seconds: float) -> Scenario:
        """With all faults that this seed plans."""
        return cls(seed, shape, seconds, plan(seed, seconds, shape.fault_every))

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Scenario:
        """The contrary of ``as_dict``, and of ``Outcome.as_dict``; raises TypeError or KeyError where it is neither."""
        faults = tuple(Fault(*(fault[name] for name in Fault._fields)) for fault in given["faults"])
        return cls(given["seed"], Shape(**given["shape"]), given["seconds"], faults)

    @classmethod
    def following(cls, seed: int, shape: Shape | None, seconds: float) -> Iterator[Scenario]:
        """Those of this seed and the next ones, without end.

        :param shape: None: each has another one
        """
        for number in count(seed):
            yield cls.of(number, shape or Shape.varied(number), seconds)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        faults = [fault._asdict() for fault in self.faults]
        return {"seed": self.seed, "shape": asdict(self.shape), "seconds": self.seconds, "faults": faults}

    def only(self, faults: tuple[Fault, ...]) -> Scenario:
        """With these faults alone."""
        return replace(self, faults=faults)

    def run(self, rows: Rows = ROWS) -> Outcome:
        """
        :param rows: of the table of transitions
        """
        world = World(self.seed, self.shape, rows)
        schedule(world, self.faults)
        try:
            world.run(self.seconds)
        except Violation as violation:
            return Outcome(self, world, violation, traceback.format_exc() if violation.__cause__ else "")
        except Exception as error:  # of the code under test
            kind = f"raises {type(error).__name__}"
            return Outcome(self, world, Violation(kind, detail=str(error)), traceback.format_exc())
        return Outcome(self, world)


@dataclass(frozen=True)
class Outcome:
    """How a run has ended."""

    scenario: Scenario
    world: World
    violation: Violation | None = None
    traceback: str = ""
    """Where the code under test has raised an error."""

    def as_dict(self) -> dict[str, Any]:
        """The scenario, the violation, and for people what each fault has hit."""
        hits = {(at, kind): hit for at, kind, hit in self.world.struck}
        kept = self.scenario.as_dict()
        for fault in kept["faults"]:
            fault["hit"] = hits.get((fault["at"], fault["kind"]), "")
        return {"violation": None if self.violation is None else str(self.violation), **kept}

    def story(self) -> Iterator[str]:
        """The way to the violation, in lines: the last faults, and what each scheduler knows of the task."""
        yield f"At {self.world.now:.1f} s. The last faults:"
        for at, kind, whom in self.world.struck[-20:]:
            yield f"  {at:10.1f} {kind:20} {whom}".rstrip()
        yield from self.traceback.splitlines()
        if self.violation is None or self.violation.task is None:
            return
        key = self.world.tasks.by_number[self.violation.task].key
        for scheduler in self.world.schedulers.values():
            yield f"Scheduler {scheduler.job}{'' if scheduler.alive else ' (dead)'} on the task:"
            for step in scheduler.loop.machine.story(key):
                yield f"  {step}"
