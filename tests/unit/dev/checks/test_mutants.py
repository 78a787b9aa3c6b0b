# SPDX-License-Identifier: Apache-2.0
"""./dev/mutants: what counts as a change, and what is printed of it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import airflow_dispatch_provider
from devkit.checks import mutants
from devkit.checks.mutants import Mutant

pytestmark = pytest.mark.once

BEFORE = """
import logging

log = logging.getLogger(__name__)


class Room:
    def free(self, slots):
        log.info("Free: %d", slots)
        if slots < 0:
            raise ValueError(slots)
        if not list(zip(slots, slots, strict=True)):
            return False
        return slots - 1, "free"
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("slots - 1", "slots + 1", True),
        ("slots < 0", "slots <= 0", True),
        ('"free"', "None", True),
        ('"free"', '"XXfreeXX"', False),
        ("%d", "%s", False),
        ('"Free: %d", slots', '"Free: %d", ', False),
        ("ValueError(slots)", "ValueError(None)", False),
        ("strict=True", "strict=False", False),
        ("return False", "return None", False),
        ("return False", "return True", True),
    ],
)
def test_a_change_of_nothing_but_words_is_left_out(tmp_path: Path, old: str, new: str, counts: bool) -> None:
    """Of the others there are the line in the file, and a diff without the names that mutmut gives."""
    before, mutated = (
        tmp_path / folder / mutants.PACKAGE / "routing" / "room.py" for folder in ("", "mutants")
    )
    for file in (before, mutated):
        file.parent.mkdir(parents=True)
    before.write_text(BEFORE)
    head, _, method = BEFORE.partition("    def free(")
    versions = {"orig": method, "1": method.replace(old, new)}
    mutated.write_text(
        head + "\n".join(f"    def xǁRoomǁfree__mutmut_{key}({text}" for key, text in versions.items())
    )
    name = "airflow_dispatch_provider.routing.room.xǁRoomǁfree__mutmut_1"
    meta = mutated.with_name("room.py.meta")
    meta.write_text(json.dumps({"exit_code_by_key": {name: None}}))
    line = next(number for number, text in enumerate(BEFORE.splitlines(), 1) if old in text)
    found = {key: (mutant.module, mutant.line) for key, mutant in mutants._changes(meta).items()}
    assert found == ({name: ("routing/room.py", line)} if counts else {})


def test_what_runs_as_its_module_is_imported_is_left_out() -> None:
    """By then no mutant has been chosen."""
    module = ast.parse("TABLE = [row(1)]\n\ndef row(number):\n    return later(number)\n")
    assert mutants._called_at_import(module) == {"x_row"}


@pytest.mark.parametrize(("end", "noticed"), [(0, False), (33, False), (1, True), (-24, True), (3, True)])
def test_a_mutant_is_noticed_unless_its_tests_passed_or_there_were_none(end: int, noticed: bool) -> None:
    """Whoever ran out of time did not pass."""
    assert mutants._is_noticed(end) is noticed


def test_a_mutant_that_was_not_run_is_no_result() -> None:
    with pytest.raises(mutants.DevError, match="has not run all"):
        mutants._is_noticed(None)


def test_the_table_has_a_row_for_each_module_and_room_and_the_diffs_of_what_was_not_noticed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And a last row for all of them."""
    tried = [
        Mutant("p.a.x_f__mutmut_1", "room/a.py", 3, True, "-1"),
        Mutant("p.b.x_g__mutmut_2", "room/b.py", 14, False, "- 2\n+ 3"),
    ]
    mutants._show(tried, 7)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["room/a.py", "1", "1", "100%"],
        ["room/b.py", "1", "0", "0%"],
        [],
        ["room", "2", "1", "50%"],
        ["all", "(seed", "7)", "2", "1", "50%"],
    ]
    assert lines[7:] == ["not noticed: room/b.py:14", "- 2", "+ 3"]


def test_every_file_that_is_named_exists() -> None:
    """A file that has moved would silently be left out."""
    package = Path(airflow_dispatch_provider.__file__).parent
    assert all(list(package.glob(module)) for module in mutants.PURE)
