# SPDX-License-Identifier: Apache-2.0
"""./dev/simulate --reverted: fixes that can still be taken out, and what is printed of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import airflow_dispatch_provider
from devkit import reverted
from devkit.environment import DevError
from devkit.reverted import Fix, Plan, Replacement, Tried, fixes, lines, revert

PACKAGE = Path(airflow_dispatch_provider.__file__ or "").parent
FIX = Fix("doors", "K1", "They were open.", (Replacement("doors.py", "closed = 1\n", ""),))


def tried(fix: Fix, violation: str | None) -> Tried:
    return Tried(fix, violation, seed=7, worlds=3, faults=1234, seconds=5.6, as_today=0)


@pytest.mark.parametrize("fix", fixes(), ids=lambda fix: fix.name)
def test_what_holds_a_fix_is_there_once_and_what_is_left_compiles(fix: Fix, tmp_path: Path) -> None:
    """Else nobody would see that the list has drifted."""
    files = {each.file for each in fix.holds}
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text((PACKAGE / file).read_text())
    revert(fix, tmp_path)
    for file in files:
        text = (tmp_path / file).read_text()
        compile(text, file, "exec")
        assert text != (PACKAGE / file).read_text()


def test_the_fixes_are_many_and_are_told_apart() -> None:
    found = fixes()
    assert len({fix.name for fix in found}) == len(found) >= 20
    assert all(fix.was.endswith(".") and fix.kind for fix in found)


def test_words_choose_by_name_kind_and_fault() -> None:
    assert {fix.kind for fix in fixes("K2")} == {"K2"}
    assert not fixes("no fix has these words")


@pytest.mark.parametrize("text", ["", "closed = 1\nclosed = 1\n"])
def test_what_is_not_there_once_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "doors.py").write_text(text)
    with pytest.raises(DevError, match=r"doors: doors\.py has this [02] times"):
        revert(FIX, tmp_path)


def test_the_copy_is_what_runs(tmp_path: Path) -> None:
    """Here it is not."""
    with pytest.raises(DevError, match="not the copy"):
        reverted.worlds(tmp_path, Plan(1, 60.0, 0.0))


def test_the_table_is_aligned_and_counts_what_was_found() -> None:
    found, missed = tried(FIX, "completes twice"), tried(FIX, None)
    assert lines([found, missed]) == [
        "reverted fix  kind  found            worlds  faults  seconds",
        "doors         K1    completes twice       3    1234      5.6",
        "doors         K1    missed                3    1234      5.6",
        "1 of 2 found",
    ]
    assert found.as_dict()["name"] == "doors"


class Runs:
    """Answers of the worlds with and without a fix."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wrong: set[int], wrong_today: set[int]) -> None:
        self._wrong = wrong
        monkeypatch.setattr(reverted, "_run", self._run)
        monkeypatch.setattr(reverted, "_goes_wrong_today", lambda seed, plan: seed in wrong_today)

    def _run(self, fix: Fix, folder: Path, plan: Plan) -> dict[str, object]:
        seed = min(seed for seed in self._wrong | {99} if seed >= plan.seed)
        violation = None if seed == 99 else f"goes wrong with {seed}"
        return {"worlds": 1, "faults": 10, "seconds": 20.0, "seed": seed, "violation": violation}


def test_what_goes_wrong_today_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Runs(monkeypatch, wrong={3, 5}, wrong_today={3})
    found = reverted._try(FIX, tmp_path, Plan(1, 60.0, 1.0))
    assert (found.violation, found.seed, found.worlds, found.faults) == ("goes wrong with 5", 5, 2, 20)
    assert found.as_today == 1


def test_a_fix_that_no_world_misses_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its time is over as today's code goes wrong."""
    Runs(monkeypatch, wrong=set(), wrong_today=set())
    assert reverted._try(FIX, tmp_path, Plan(1, 60.0, 1.0)).violation is None
    Runs(monkeypatch, wrong={1, 2, 3, 4}, wrong_today={1, 2, 3, 4})
    assert reverted._try(FIX, tmp_path, Plan(1, 60.0, 0.5)).violation is None
