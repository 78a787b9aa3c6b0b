# SPDX-License-Identifier: Apache-2.0
"""Which rows of the table of transitions a run takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_dispatch_provider.lifecycle.transitions import TABLE, Case, Rows, rows_of

ALL: Mapping[int, Case] = dict(enumerate(TABLE))
"""Every row, by its number."""


def without(number: int) -> Mapping[int, Case]:
    """All rows but that one."""
    return {other: case for other, case in ALL.items() if other != number}


def counted(cases: Mapping[int, Case], taken: Counter[int]) -> Rows:
    """Rows that count, by number, how often they are taken: a row whose guard holds is."""
    return rows_of({number: _counting(number, case, taken) for number, case in cases.items()})


def _counting(number: int, case: Case, taken: Counter[int]) -> Case:
    holds = case.when

    def when(ledger: Any, job: Any, event: Any) -> bool:
        if holds is not None and not holds(ledger, job, event):
            return False
        taken[number] += 1
        return True

    return case._replace(when=when)


def name_of(number: int) -> str:
    """The row in short, e.g. ``held Decision: dispatched``."""
    case = TABLE[number]
    return f"{case.state} {case.event.__name__}: {case.words}"


def not_taken(taken: Counter[int]) -> Iterator[str]:
    """Names of the rows that were never taken, in the order of the table."""
    return (name_of(number) for number in ALL if not taken[number])
