# SPDX-License-Identifier: Apache-2.0
"""./dev/test: what it says about its runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from devkit import run_tests
from devkit.environment import AIRFLOW_VERSIONS, DEFAULT_AIRFLOW_VERSION, REPO
from devkit.run_tests import Result, Suite, counted, skip_lines

pytestmark = pytest.mark.once

REPORT = """<testsuites><testsuite tests="5" failures="1" errors="0" skipped="3">
<testcase><skipped message="no broker"/></testcase>
<testcase><skipped message="no broker"/></testcase>
<testcase><skipped message="too old"/></testcase>
</testsuite></testsuites>"""

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="no broker")
def test_one(): pass

@pytest.mark.skipif(True, reason="no broker")
def test_two(): pass

def test_three(): pytest.skip("too old")

def test_four(): pass
"""


def test_results_are_counted_from_the_report() -> None:
    result = counted(Result("3.1.8", 1), ElementTree.fromstring(REPORT))
    assert (result.passed, result.failed, result.skipped) == (1, 1, 3)
    assert result.skips == {"no broker": 2, "too old": 1}


def test_skips_of_all_versions_are_one_line_for_each_reason() -> None:
    results = [counted(Result(version, 0), ElementTree.fromstring(REPORT)) for version in ("3.3.2", "3.1.8")]
    assert skip_lines(results) == ["    4  no broker (3.1.8, 3.3.2)", "    2  too old (3.1.8, 3.3.2)"]


def test_skips_of_a_run_are_one_line_for_each_reason(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_terminal_summary")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-rfExX", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if "no broker" in line or "too old" in line] == [
        "    2  no broker",
        "    1  too old",
    ], done.stdout


UNSTEADY = """
import pathlib, pytest

def test_steady(): pass

@pytest.mark.parametrize("number", range({number}))
def test_unsteady(number):
    seen = pathlib.Path(__file__).with_name(f"seen-{{number}}")
    first = not seen.exists()
    seen.touch()
    assert not first or {passes_first}

def test_broken(): assert {is_whole}
"""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run tests that are written as said, as a run with all versions does."""

    def pytest_here(version: str, arguments: list[str], output: BinaryIO) -> int:
        command = [sys.executable, "-m", "pytest", "-q", *arguments]
        return subprocess.run(command, cwd=tmp_path, stdout=output, check=False).returncode

    def run(**said: object) -> Result:
        text = UNSTEADY.format(**{"number": 1, "passes_first": False, "is_whole": True, **said})
        (tmp_path / "test_it.py").write_text(text)
        return run_tests._measured("3.3.2", "tests", [str(tmp_path)])

    monkeypatch.setattr(run_tests, "_pytest", pytest_here)
    return run


def test_a_failure_that_does_not_come_again_is_named_and_fails_nothing(
    measured: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    result = measured()
    assert result.ok
    assert (result.passed, result.failed) == (3, 0)
    assert run_tests.unsteady_lines([result]) == ["  test_it.test_unsteady[0] (3.3.2)"]
    assert "assert not first or False" in capsys.readouterr().out


@pytest.mark.parametrize("said", [{"is_whole": False}, {"number": run_tests.AGAIN + 1}])
def test_what_fails_again_and_what_are_too_many_fail_the_run(
    measured: Callable[..., Result], said: dict[str, object]
) -> None:
    result = measured(**said)
    assert not result.ok
    assert result.failed > 0
    assert result.unsteady == ()


def test_where_everything_passes_nothing_is_run_again(
    measured: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured(passes_first=True).ok
    assert "again" not in capsys.readouterr().out


def test_deployments_run_one_by_one_beside_all_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one goes on until everything else has ended; no other has begun by then."""
    began: list[str] = []
    first_began, others_ended = threading.Event(), threading.Event()

    def run(version: str, suite: Suite) -> Result:
        began.append(suite.what)
        if suite.what == "acceptance":
            first_began.set()
            assert others_ended.wait(10)
        elif len(began) - began.count("acceptance") == 2 * len(AIRFLOW_VERSIONS) + 3:
            assert first_began.wait(10)
            assert began.count("acceptance") == 1
            others_ended.set()
        return Result(version, 0, passed=1, what=suite.what)

    monkeypatch.setattr(run_tests, "_run", run)
    results = run_tests._everything()
    assert began.count("acceptance") == len(AIRFLOW_VERSIONS)
    assert len(results) == len(began)


def test_where_no_deployment_is_left_three_others_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for much of their time."""
    three = threading.Barrier(3, timeout=10)
    began: list[str] = []

    def run(version: str, suite: Suite) -> Result:
        if suite.what != "acceptance":
            began.append(suite.what)
            if len(began) <= 3:
                three.wait()
        return Result(version, 0, passed=1, what=suite.what)

    monkeypatch.setattr(run_tests, "_run", run)
    assert len(run_tests._everything()) == 3 * len(AIRFLOW_VERSIONS) + 3
    assert not three.broken


def test_integration_tests_of_the_default_version_are_all_in_one_of_two_suites(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One leaves out all that the other is given; every other version has one suite for all of them."""
    suites: dict[str, list[list[str]]] = {}

    def run(version: str, suite: Suite) -> Result:
        if suite.what.startswith("integration"):
            suites.setdefault(version, []).append(suite.arguments)
        return Result(version, 0, passed=1, what=suite.what)

    monkeypatch.setattr(run_tests, "_run", run)
    run_tests._everything()
    engines, others = suites.pop(DEFAULT_AIRFLOW_VERSION)
    (every,) = suites.pop(AIRFLOW_VERSIONS[0])
    assert [*every, *(f"--ignore={room}" for room in engines)] == others
    assert all((run_tests.REPO / room).is_dir() for room in engines)
    assert {len(each) for each in suites.values()} == {1}
