# SPDX-License-Identifier: Apache-2.0
"""./dev/bench start: what is made of the marks of one task."""

from __future__ import annotations

from pathlib import Path

import pytest

from devkit.bench import start_marks
from devkit.bench.start import parts
from devkit.bench.start_marks import Mark, keep_in, mark, marks

SUPERVISOR, TASK, OTHER = 1, 2, 3


def made(name: str, pid: int, when: float, cpu: float = 0.0) -> Mark:
    return Mark(name, pid, when, cpu)


STORY = [
    made(start_marks.SUPERVISED, SUPERVISOR, 10.01, 5.0),
    made(start_marks.ASKED, SUPERVISOR, 10.03),
    made(start_marks.ANSWERED, SUPERVISOR, 10.06),
    made(start_marks.PARSES, TASK, 10.10, 0.02),
    made(start_marks.PARSED, TASK, 10.15, 0.05),
    made(start_marks.FIRST_LINE, TASK, 10.21),
    made(start_marks.TASK_OVER, TASK, 10.22, 0.07),
    made(start_marks.OVER, SUPERVISOR, 10.23, 5.04),
]


def test_the_parts_add_up_to_the_first_line() -> None:
    """From mark to mark, in ms."""
    found = parts(10.0, STORY, 10.31)
    steps = ("supervisor", "fork", "answer", "before parse", "parse", "before line")
    assert [found[name] for name in steps] == pytest.approx([10, 20, 30, 40, 50, 60])
    assert found["first line"] == pytest.approx(210)
    assert found["over"] == pytest.approx(100)


def test_cpu_is_told_by_process() -> None:
    """A worker of Airflow's has run others before: only what it has used since counts."""
    found = parts(10.0, STORY, 10.31)
    assert [found[f"cpu {of}"] for of in ("parse", "task", "supervisor")] == pytest.approx([30, 70, 40])


def test_a_parse_ahead_of_the_task_is_not_its_own() -> None:
    """A template parses the file at any time, in a process of its own."""
    ahead = [made(start_marks.PARSES, OTHER, 10.11), made(start_marks.PARSED, OTHER, 10.14)]
    assert parts(10.0, [*STORY[:5], *ahead, *STORY[5:]], 10.31) == parts(10.0, STORY, 10.31)


def test_marks_are_read_in_the_order_in_which_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a line of its own."""
    monkeypatch.setenv("BENCH_MARKS", "")
    keep_in(tmp_path / "marks")
    for name in ("one", "two"):
        mark(name)
    assert [each.name for each in marks()] == ["one", "two"]
