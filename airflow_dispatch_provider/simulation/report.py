# SPDX-License-Identifier: Apache-2.0
"""Runs of one world after the other, and what they have shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dispatch_provider.lifecycle.transitions import TABLE, Case
from airflow_dispatch_provider.simulation.coverage import ALL, counted, not_taken
from airflow_dispatch_provider.simulation.scenario import Outcome, Scenario
from airflow_dispatch_provider.simulation.world import DAY, Shape


@dataclass
class Report:
    """The sum of some runs."""

    worlds: int = 0
    seconds: float = 0.0
    """Simulated."""

    tasks: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    taken: Counter[int] = field(default_factory=Counter)
    """How often each row of the table of transitions was taken, by number."""

    seed: int = 0
    """Of the last world."""

    wrong: Outcome | None = None
    """The last run, if it went wrong, or a smaller one with the same violation; there is none after it."""

    @property
    def violation(self) -> str | None:
        return None if self.wrong is None else str(self.wrong.violation)

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        world = outcome.world
        self.worlds += 1
        self.seed = world.seed
        self.seconds += world.now
        self.tasks += len(world.tasks.by_number)
        self.faults.update(kind for _, kind, _ in world.struck)
        if outcome.violation is not None:
            self.wrong = outcome

    def as_dict(self) -> dict[str, Any]:
        missing = list(not_taken(self.taken))
        return {
            "worlds": self.worlds,
            "simulated_seconds": round(self.seconds, 1),
            "tasks": self.tasks,
            "faults": dict(sorted(self.faults.items())),
            "rows": len(TABLE),
            "rows_taken": len(TABLE) - len(missing),
            "rows_not_taken": missing,
            "violation": self.violation,
            "seed": self.seed if self.violation else None,
            "story": [] if self.wrong is None else list(self.wrong.story()),
        }

    def lines(self) -> Iterator[str]:
        missing = list(not_taken(self.taken))
        yield f"{'worlds':24}{self.worlds:12,}"
        yield f"{'simulated days':24}{self.seconds / DAY:12,.2f}"
        yield f"{'tasks':24}{self.tasks:12,}"
        yield f"{'faults':24}{self.faults.total():12,}"
        for name, number in sorted(self.faults.items()):
            yield f"  {name:22}{number:12,}"
        yield f"{'rows taken':24}{f'{len(TABLE) - len(missing)} of {len(TABLE)}':>12}"
        yield from (f"  not taken: {name}" for name in missing)
        yield f"{'violations':24}{int(self.violation is not None):12}"
        if self.wrong is not None:
            yield ""
            yield f"seed {self.seed}: {self.violation}"
            yield from self.wrong.story()


def simulate(
    seed: int,
    seconds: float,
    shape: Shape | None,
    goes_on: Callable[[Report], bool],
    cases: Mapping[int, Case] = ALL,
) -> Report:
    """Run worlds with this seed and the following ones, until one goes wrong.

    :param seconds: of each, simulated, before it is left to come to rest
    :param shape: None: each has another one
    :param goes_on: asked before each but the first
    :param cases: rows of the table of transitions by number, where others than all
    """
    report = Report()
    rows = counted(cases, report.taken)
    for scenario in Scenario.following(seed, shape, seconds):
        report.add(scenario.run(rows))
        if report.violation is not None or not goes_on(report):
            break
    return report
