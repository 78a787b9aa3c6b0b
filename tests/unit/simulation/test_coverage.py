# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of transitions that runs take."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_dispatch_provider.lifecycle.events import BackendRules, Limits, Queued, Revoke, Settings
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.transitions import TABLE
from airflow_dispatch_provider.routing.model import Route, Target, TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.simulation.coverage import ALL, counted, name_of, not_taken, without
from airflow_dispatch_provider.simulation.report import Report

pytestmark = pytest.mark.once

SETTINGS = Settings(RouteTable((), Route(queue="*", to=(Target("a"),)), {}), {"a": BackendRules()}, Limits())


def taken_by(machine: Machine, taken: Counter[int]) -> list[str]:
    """Queue and revoke a task; returns the rows that counted."""
    machine.handle(0.0, Queued("x", TaskRef("q")), Queued("x", TaskRef("q")), Revoke("x"))
    return [name_of(number) for number in taken.elements()]


def test_a_row_counts_each_time_that_it_is_taken() -> None:
    """A row whose guard does not hold counts for nothing."""
    taken = Counter[int]()
    rows = taken_by(Machine(SETTINGS, rows=counted(ALL, taken)), taken)
    assert sorted(rows) == [
        "held Queued: queued again, which replaces it",
        "held Revoke: revoked",
        "new Queued: queued",
        "new Queued: queued",
    ]


def test_a_machine_without_a_row_goes_by_the_others() -> None:
    """The row that was left out is neither taken nor counted."""
    taken = Counter[int]()
    number = next(number for number in ALL if name_of(number) == "held Revoke: revoked")
    machine = Machine(SETTINGS, rows=counted(without(number), taken))
    assert "held Revoke: revoked" not in taken_by(machine, taken)
    assert "x" in machine


def test_a_report_names_the_rows_that_no_run_took() -> None:
    """For people, and for programs."""
    report = Report(taken=Counter(range(1, len(TABLE))))
    lines = "\n".join(report.lines())
    assert f"{len(TABLE) - 1} of {len(TABLE)}" in lines
    assert f"not taken: {name_of(0)}" in lines
    assert list(not_taken(report.taken)) == report.as_dict()["rows_not_taken"] == [name_of(0)]
    assert report.as_dict()["rows_taken"] == len(TABLE) - 1
