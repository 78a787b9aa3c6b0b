# SPDX-License-Identifier: Apache-2.0
"""Configurations as they are found, each in a folder of ``cases`` with what the command says of it in
``expected.txt``.

A folder has an ``airflow.cfg``; ``environment`` may set variables, ``dags`` may have Dags. After a change that is
meant, write ``expected.txt`` anew with the command in that folder.
"""

from __future__ import annotations

from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from airflow_dispatch_provider.settings.source import SettingsSource
from tests.unit.cli.conftest import Outcome
from tests.unit.settings.fakes import FakeConf

CASES = sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir())

Run = Callable[..., Outcome]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a case, which is the current one; its variables are set."""
    folder: Path = request.param
    monkeypatch.chdir(folder)
    variables = folder / "environment"
    for line in variables.read_text().splitlines() if variables.exists() else ():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    return folder


def arguments(case: Path) -> list[str]:
    return ["--config", "airflow.cfg", *(["--dags", "dags"] if (case / "dags").exists() else [])]


def test_there_are_ten() -> None:
    """The number of configurations that stand for those in use does not shrink."""
    assert len(CASES) >= 10


def test_says_what_is_expected(case: Path, run: Run) -> None:
    """The whole text, down to the letter."""
    done = run("migrate", *arguments(case))
    assert (done.code, done.err) == (0, "")
    assert done.out == (case / "expected.txt").read_text()


@pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
def test_shows_no_secret(output: str, case: Path, run: Run) -> None:
    """Values of other options than those that decide about executors are in no output."""
    done = run("migrate", *arguments(case), "--output", output)
    assert done.code == 0
    assert "not-to-be-shown" not in done.out + done.err


def test_every_section_is_a_right_configuration(case: Path, run: Run) -> None:
    """What is to be put in passes the settings parser, and parallelism covers its slots."""
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
    assert sections
    assert total <= parser.getint("core", "parallelism")


def test_structured_output_has_what_the_text_has(case: Path, run: Run) -> None:
    """JSON says the same as the text: the lines to put in, every fact, every destination."""
    found = run("migrate", *arguments(case), "--output", "json").json
    text = " ".join((case / "expected.txt").read_text().split())
    facts = [fact[key] for fact in found["changes"] + found["unknown"] for key in ("what", "detail")]
    assert [fact for fact in facts if " ".join(fact.split()) not in text] == []
    assert [row["do"] for row in found["dags"] if f"to do: {row['do']}" not in text] == []
    assert " ".join((found["configuration"] or "").split()) in text
