# SPDX-License-Identifier: Apache-2.0
"""The command's reports on the configurations in ``cases``.

After a change that is meant, run these tests with ``REWRITE_EXPECTED=1`` set, and read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from airflow_dispatch_provider.settings.source import SettingsSource
from tests.unit.cli.conftest import Outcome
from tests.unit.cli.migrate.cases import CASES, arguments
from tests.unit.settings.fakes import FakeConf

Run = Callable[..., Outcome]


def test_there_are_enough() -> None:
    """The number of configurations that stand for those in use does not shrink."""
    assert len(CASES) >= 25


@pytest.mark.once
def test_says_what_is_expected(case: Path, run: Run) -> None:
    """The whole text, down to the letter."""
    done = run("migrate", *arguments(case))
    assert (done.code, done.err) == (_code(done.out), "")
    if "REWRITE_EXPECTED" in os.environ:
        (case / "expected.txt").write_text(done.out)
    assert done.out == (case / "expected.txt").read_text()


def _code(text: str) -> int:
    return int("is not known, since they are computed" in text)


@pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
def test_shows_no_secret(output: str, case: Path, run: Run) -> None:
    """Values of other options than those that decide about executors are in no output."""
    done = run("migrate", *arguments(case), "--output", output)
    assert done.code in (0, 1)
    assert "not-to-be-shown" not in done.out + done.err


def test_every_section_is_a_right_configuration(case: Path, run: Run) -> None:
    """The options to put in pass the settings parser, and parallelism covers their slots."""
    text = run("migrate", *arguments(case), "--output", "json").json["configuration"]
    if text is None:
        pytest.skip("the router is configured already")
    parser = ConfigParser()
    parser.read_string(text)
    sections = [name for name in parser.sections() if name.rpartition("=")[2] == "dispatch"]
    total = 0
    for name in sections:
        options = dict(parser[name])
        settings = SettingsSource(FakeConf(options), lambda options=options: options).load()
        total += sum(backend.configured_slots for backend in settings.backends.values())
    if not sections:
        pytest.skip("the router is configured already")
    assert total <= parser.getint("core", "parallelism")


def test_structured_output_has_what_the_text_has(case: Path, run: Run) -> None:
    """JSON says the same as the text: the lines to put in, every fact, every option, every destination."""
    found = run("migrate", *arguments(case), "--output", "json").json
    text = " ".join(run("migrate", *arguments(case)).out.split())
    said = [*found["changes"], *found["unknown"], *(row["option"] for row in found["options"])]
    assert [fact for fact in said if " ".join(fact.split()) not in text] == []
    assert [row["do"] for row in found["dags"] if f"to do: {row['do']}" not in text] == []
    assert " ".join((found["configuration"] or "").split()) in text
