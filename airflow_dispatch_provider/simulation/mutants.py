# SPDX-License-Identifier: Apache-2.0
"""The table of transitions without one of its rows: whether worlds go wrong for want of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from airflow_dispatch_provider.lifecycle.transitions import rows_of
from airflow_dispatch_provider.simulation.coverage import ALL, counted, name_of, without
from airflow_dispatch_provider.simulation.report import Report
from airflow_dispatch_provider.simulation.scenario import Scenario
from airflow_dispatch_provider.simulation.world import Shape


class Mutant(NamedTuple):
    """A row that was left out, and what came of that."""

    number: int
    """Of the row, in ``transitions.TABLE``."""

    is_taken: bool
    """With all rows the same worlds take it; where they do not, they were not run without it."""

    violation: str | None
    faults: int
    """Until the violation was met, or in all."""

    seconds: float
    """The same, of real time."""

    @property
    def word(self) -> str:
        if not self.is_taken:
            return "not taken"
        return "missed" if self.violation is None else "found"

    def as_dict(self) -> dict[str, Any]:
        given = {**self._asdict(), "row": name_of(self.number), "result": self.word}
        return {name: round(value, 1) if name == "seconds" else value for name, value in given.items()}


HEAD = f"{'removal':10} {'faults':>7} {'seconds':>8}  row"


def line(mutant: Mutant) -> str:
    """In the columns of ``HEAD``."""
    if not mutant.is_taken:
        return f"{mutant.word:10} {'':7} {'':8}  {name_of(mutant.number)}"
    return f"{mutant.word:10} {mutant.faults:7,} {mutant.seconds:8.1f}  {name_of(mutant.number)}"


def summary(mutants: Iterable[Mutant]) -> str:
    """How many removals were found, missed, and of rows that are not taken."""
    words = [mutant.word for mutant in mutants]
    found, missed, rest = (words.count(word) for word in ("found", "missed", "not taken"))
    return f"{found} removals found, {missed} missed, {rest} of rows that these worlds do not take"


def try_all(seed: int, seconds: float, shape: Shape | None, faults: int, words: str = "") -> Iterator[Mutant]:
    """Leave out each row in turn, and run those worlds that take it until one goes wrong.

    :param seconds: of each world, see ``simulate``
    :param faults: after so many faults no further world is begun
    :param words: rows whose name has them, see ``name_of``
    :raises ValueError: a world goes wrong with all rows, so that nothing can be said of those without one
    """
    worlds = list(_whole(seed, seconds, shape, faults))
    for number in ALL:
        if words in name_of(number):
            yield _without(number, [scenario for scenario, taken in worlds if taken[number]])


def _whole(
    seed: int, seconds: float, shape: Shape | None, faults: int
) -> Iterator[tuple[Scenario, Counter[int]]]:
    """Worlds with all rows, each with how often it takes which."""
    report = Report()
    for scenario in Scenario.following(seed, shape, seconds):
        taken: Counter[int] = Counter()
        report.add(scenario.run(counted(ALL, taken)))
        if report.violation is not None:
            raise ValueError(f"with all rows and seed {report.seed}: {report.violation}")
        yield scenario, taken
        if report.faults.total() >= faults:
            break


def _without(number: int, worlds: Sequence[Scenario]) -> Mutant:
    report, rows, began = Report(), rows_of(without(number)), time.monotonic()
    for scenario in worlds:
        report.add(scenario.run(rows))
        if report.violation is not None:
            break
    return Mutant(number, bool(worlds), report.violation, report.faults.total(), time.monotonic() - began)
