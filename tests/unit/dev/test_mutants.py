# SPDX-License-Identifier: Apache-2.0
"""./dev/mutants: what counts as a change, and what is printed of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "dev" / "lib"))
import mutants
from mutants import Mutant

import airflow_dispatch_provider

pytestmark = pytest.mark.once

MUTATED = """
class Room:
    def x_free__mutmut_orig(self, slots):
        return slots - 1, "free"
    def x_free__mutmut_1(self, slots):
        return slots + 1, "free"
    def x_free__mutmut_2(self, slots):
        return slots - 1, "XXfreeXX"
"""


def test_a_change_of_nothing_but_a_text_is_left_out(tmp_path: Path) -> None:
    """Of the others there is a diff, without the names that mutmut gives."""
    source = tmp_path / "mutants" / mutants.PACKAGE / "routing" / "room.py"
    source.parent.mkdir(parents=True)
    source.write_text(MUTATED)
    names = [f"airflow_dispatch_provider.routing.room.x_free__mutmut_{number}" for number in (1, 2)]
    meta = source.with_name("room.py.meta")
    meta.write_text(json.dumps({"exit_code_by_key": dict.fromkeys(names)}))
    diff = "-     return (slots - 1, 'free')\n+     return (slots + 1, 'free')"
    assert mutants._changes(meta) == {names[0]: ("routing/room.py", diff)}


@pytest.mark.parametrize(("end", "noticed"), [(0, False), (33, False), (1, True), (-24, True), (3, True)])
def test_a_mutant_is_noticed_unless_its_tests_passed_or_there_were_none(end: int, noticed: bool) -> None:
    """Whoever ran out of time did not pass."""
    assert mutants._is_noticed(end) is noticed


def test_a_mutant_that_was_not_run_is_no_result() -> None:
    with pytest.raises(mutants.DevError, match="has not run all"):
        mutants._is_noticed(None)


def test_the_table_has_a_row_for_each_module_and_the_diffs_of_what_was_not_noticed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = [
        Mutant("a.x_f__mutmut_1", "a.py", True, "-1"),
        Mutant("b.x_g__mutmut_2", "b.py", False, "- 2\n+ 3"),
    ]
    mutants._show(tried, 7)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["a.py", "1", "1", "100%"],
        ["b.py", "1", "0", "0%"],
        ["all", "(seed", "7)", "2", "1", "50%"],
    ]
    assert lines[5:] == ["not noticed: b.py (x_g__mutmut_2)", "- 2", "+ 3"]


def test_every_file_that_is_named_exists() -> None:
    """A file that has moved would silently be left out."""
    package = Path(airflow_dispatch_provider.__file__).parent
    assert all(list(package.glob(module)) for module in mutants.PURE)
