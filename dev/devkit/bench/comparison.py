# SPDX-License-Identifier: Apache-2.0
"""Airflow's executor and this package's side by side: measured in turn, and shown in one table."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from devkit.arguments import add_output, parser_of
from devkit.environment import say
from devkit.tables import Cell, table

Figures = Mapping[str, float]
"""Figures of one run of one subject, by row."""

_FORMATS = {"ratio": ".3f"}


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """With the arguments that every benchmark has."""
    parser = parser_of(sys.argv[0], description)
    add_output(parser)
    return parser


def in_turn(
    subjects: Iterable[str],
    runs: int,
    rows: Mapping[str, str],
    measure: Callable[[str, int], Figures],
    label: str = "",
) -> dict[str, list[Figures]]:
    """Measure each subject once, then each again, and so on; tell every run on stderr.

    :param measure: called with a subject, and the number of the run from 0 on
    :return: the runs of each subject
    """
    found: dict[str, list[Figures]] = {subject: [] for subject in subjects}
    for run in range(runs):
        for subject, figures in found.items():
            figures.append(measure(subject, run))
            tell(f"{label}run {run + 1} of {runs}, {subject}", rows, figures[-1])
    return found


def tell(what: str, rows: Mapping[str, str], figures: Figures) -> None:
    """On stderr, in one line."""
    say(f"{what}: {', '.join(f'{rows[row]} {value:.2f}' for row, value in figures.items())}")


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Smallest, median, largest."""
    return min(values), statistics.median(values), max(values)


def summary(values: Sequence[float]) -> dict[str, float]:
    """The same, by name."""
    return dict(zip(("min", "median", "max"), spread(values), strict=True))


def lines(
    title: str,
    rows: Mapping[str, str],
    subjects: Mapping[str, Sequence[Figures]],
    bounds: Sequence[tuple[str, Sequence[float], float]] = (),
) -> list[str]:
    """A line for each row and subject: smallest, median, largest, and the medians' ratio to the first subject's.

    :param rows: titles, by the names that the figures have; a subject without such a figure has no line
    :param subjects: the runs of each
    :param bounds: what no subject is: its title, its figures, and what its ratio is to
    """
    shown: list[list[Cell]] = []
    for row, text in rows.items():
        base = None
        for subject, runs in subjects.items():
            if values := [run[row] for run in runs if row in run]:
                base = statistics.median(values) if base is None else base
                shown.append([text, subject, *_figures(values, base)])
                text = ""
    shown += [[text, "", *_figures(values, base)] for text, values, base in bounds]
    return table((title, "subject", "min", "median", "max", "ratio"), shown, _FORMATS)


def _figures(values: Sequence[float], base: float) -> list[Cell]:
    numbers = list(map(float, spread(values)))
    return [*numbers, numbers[1] / base if base else None]
