# SPDX-License-Identifier: Apache-2.0
"""Which environments ./dev/check_resolves makes, and what it says of them."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from devkit.checks import resolves as check_resolves
from devkit.checks.resolves import (
    PYTHONS,
    Case,
    Result,
    chosen_cases,
    requirements,
    verdict_on_caps,
    without_upper_bound,
)
from devkit.environment import AIRFLOW_VERSIONS, DEFAULT_AIRFLOW_VERSION
from devkit.installation import find_interpreter

pytestmark = pytest.mark.once

UNCAPPED = Case(DEFAULT_AIRFLOW_VERSION, "3.11", "uncapped", False)


def chosen(**options: Any) -> list[Case]:
    given = {"python": None, "resolution": None, "airflow_version": None, "tests": "some", **options}
    return chosen_cases(Namespace(**given))


def test_the_gate_resolves_each_way_on_each_python_and_newest_for_each_airflow():
    cases = {(case.airflow_version, case.python, case.resolution) for case in chosen()}
    ways = ("locked", "newest", "lowest")
    assert {(DEFAULT_AIRFLOW_VERSION, python, way) for python in PYTHONS for way in ways} <= cases
    assert {case[0] for case in cases if case[2] == "newest"} == set(AIRFLOW_VERSIONS)


def test_the_gate_runs_the_unit_tests_on_each_python_and_for_each_way():
    tested = [case for case in chosen() if case.tests]
    assert {case.python for case in tested} == set(PYTHONS)
    assert {case.resolution for case in tested} == {"locked", "newest", "lowest"}


def test_one_environment_can_be_asked_for():
    assert chosen(python=["3.12"], resolution=["newest"], airflow_version=["3.1.8"], tests="none") == [
        Case("3.1.8", "3.12", "newest", False)
    ]


def test_every_requirement_has_a_lower_bound():
    assert [str(each) for each in requirements() if ">=" not in str(each.specifier)] == []


def test_upper_bounds_are_taken_off():
    assert str(without_upper_bound(Requirement("celery>=5.5,<5.7,!=5.6.1"))) == "celery!=5.6.1,>=5.5"


@pytest.mark.parametrize(
    ("installed", "problem", "words"),
    [
        ({"celery": "5.7.0"}, "", "The upper bound can go: celery<5.7,>=5.5 (5.7.0 works)"),
        ({"celery": "5.6.3"}, "", "Nothing newer to try"),
        (
            {},
            "Traceback\nImportError: no retry\n",
            "Still needed: celery<5.7,>=5.5. Without: ImportError: no retry",
        ),
    ],
)
def test_what_is_said_of_upper_bounds(installed: dict[str, str], problem: str, words: str, monkeypatch):
    monkeypatch.setattr(
        check_resolves, "requirements", lambda: [Requirement("celery>=5.5,<5.7"), Requirement("kombu>=5")]
    )
    assert words in verdict_on_caps(Result(UNCAPPED, {"kombu": "9", **installed}, problem, 1.0))


def test_a_python_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    """As the shims of pyenv may be."""
    shim, real = (
        tmp_path / "shims" / "python3.99",
        tmp_path / "root" / "versions" / "3.99.1" / "bin" / "python",
    )
    for path, text in ((shim, "exit 127"), (real, "echo 3.99")):
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "root"))
    assert find_interpreter("3.99") == str(real)
    assert find_interpreter("3.98") is None
