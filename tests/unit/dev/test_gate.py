# SPDX-License-Identifier: Apache-2.0
"""The gate says what it does, and how long each step took. Here its commands are fakes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

GATE = Path(__file__).parents[3] / ".ci" / "run"
COMMANDS = (
    "_python",
    "docs",
    "page",
    "check_wheel",
    "check_resolves",
    "kube-build",
    "helm-build",
    "test",
    "demo",
    "simulate",
    "chaos",
)
TOOLS = ("ruff", "mypy", "lint-imports", "python", "mkdocs")
TIMED = re.compile(r"^ +\d+  (.*)$", re.MULTILINE)


def script(path: Path, text: str = "exit 0") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the gate, in which every command succeeds at once and does nothing."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(GATE, tmp_path / ".ci")
    for name in COMMANDS:
        script(tmp_path / "dev" / name)
    for name in (*TOOLS, "apt-get", "chromium", "npm"):
        script(tmp_path / "bin" / name)
    script(tmp_path / "dev" / "env", f"echo '{tmp_path}'")
    (tmp_path / "dist").mkdir()
    script(tmp_path / "bin" / "python", "mkdir dist")
    return tmp_path


def environ(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(checkout / ".ci" / "run"), *arguments]
    return subprocess.run(command, env=environ(checkout), capture_output=True, text=True, check=False)


def test_help_names_every_step_that_is_run(checkout: Path) -> None:
    described, done = run(checkout, "--help"), run(checkout)
    named = re.findall(r"^ +[\d.]+  (.*)$", described.stdout, re.MULTILINE)
    assert described.returncode == done.returncode == 0
    assert len(named) > 10
    assert TIMED.findall(done.stdout) == [*named, "total"]


def test_a_step_that_fails_ends_it_and_is_named(checkout: Path) -> None:
    script(checkout / "dev" / "test", "exit 3")
    done = run(checkout)
    assert done.returncode == 3
    assert "FAILED: tests on all Airflow versions (exit code 3)" in done.stderr
    assert "===== demo" not in done.stdout
    assert "types" in TIMED.findall(done.stdout)


@pytest.mark.parametrize("stopped_by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_where_a_signal_stops_it_not_everything_has_passed(
    checkout: Path, stopped_by: signal.Signals
) -> None:
    script(checkout / "dev" / "test", "echo tests run; exec sleep 600")
    command = [str(checkout / ".ci" / "run")]
    with subprocess.Popen(
        command,
        env=environ(checkout),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as gate:
        assert gate.stdout is not None
        while "tests run" not in (line := gate.stdout.readline()):
            assert line
        os.killpg(gate.pid, stopped_by)
        rest = gate.stdout.read()
    assert "Everything passed" not in rest
    assert "FAILED: tests on all Airflow versions" in rest


def test_a_server_that_cannot_be_built_ends_it_with_the_reason(checkout: Path) -> None:
    script(checkout / "dev" / "helm-build", "echo no Go here; exit 2")
    done = run(checkout)
    assert done.returncode != 0
    assert "no Go here" in done.stdout


def test_an_unknown_option_is_refused(checkout: Path) -> None:
    done = run(checkout, "--fast")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no arguments but --help" in done.stderr
