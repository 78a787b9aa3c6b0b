# SPDX-License-Identifier: Apache-2.0
"""The table in which a benchmark shows Airflow's executor and this package's side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Figures = Mapping[str, float]
"""Figures of one run of one subject, by row."""

_WIDTH = 10


def show(title: str, rows: Mapping[str, str], subjects: Mapping[str, Sequence[Figures]]) -> None:
    """Print a line for each row and subject: smallest, median, largest, and the medians' ratio to the first subject's.

    :param rows: titles, by the names that the figures have
    :param subjects: the runs of each
    """
    wide = max(map(len, [title, *rows.values()])) + 2
    names = max(map(len, subjects)) + 2
    head = "".join(f"{column:>{_WIDTH}}" for column in ("min", "median", "max", "ratio"))
    print(f"\n{title:{wide}}{'subject':{names}}{head}")
    for row, text in rows.items():
        base = None
        for subject, runs in subjects.items():
            values = [run[row] for run in runs]
            median = statistics.median(values)
            base = median if base is None else base
            print(f"{text:{wide}}{subject:{names}}{_numbers(values)}{_ratio(median, base):>{_WIDTH}}")
            text = ""


def show_bound(text: str, values: Sequence[float], base: float) -> None:
    """A line for what neither subject is: smallest, median, largest, and the median's ratio to ``base``."""
    print(f"{text:40}{_numbers(values)}{_ratio(statistics.median(values), base):>{_WIDTH}}")


def _numbers(values: Sequence[float]) -> str:
    figures = (min(values), statistics.median(values), max(values))
    return "".join(f"{value:{_WIDTH}.2f}" for value in figures)


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3f}" if base else "-"
