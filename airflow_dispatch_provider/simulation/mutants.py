# SPDX-License-Identifier: Apache-2.0
"""The table of transitions without one of its rows: whether worlds go wrong for want of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from airflow_dispatch_provider.simulation.coverage import ALL, name_of, without
from airflow_dispatch_provider.simulation.report import Report, simulate
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
    """Leave out each row in turn, and run worlds until one goes wrong.

    :param seconds: of each world, see ``simulate``
    :param faults: after so many faults no further world is begun
    :param words: rows whose name has them, see ``name_of``
    :raises ValueError: a world goes wrong with all rows, so that nothing can be said of those without one
    """

    def goes_on(report: Report) -> bool:
        return report.faults.total() < faults

    whole = simulate(seed, seconds, shape, goes_on)
    if whole.violation is not None:
        raise ValueError(f"with all rows and seed {whole.seed}: {whole.violation}")
    for number in ALL:
        if words not in name_of(number):
            continue
        began = time.monotonic()
        if not whole.taken[number]:
            yield Mutant(number, False, None, 0, 0.0)
            continue
        report = simulate(seed, seconds, shape, goes_on, without(number))
        yield Mutant(number, True, report.violation, report.faults.total(), time.monotonic() - began)
