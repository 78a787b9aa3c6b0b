# SPDX-License-Identifier: Apache-2.0
"""An answer that cannot be written is a failure of its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

BACKENDS = '{"a": {"executor": "LocalExecutor", "slots": 4}}'
ROUTER = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
FULL = ["validate", "backends -o json", "routes", "explain --queue q", "migrate"]
LEFT = ["migrate", "routes -o json"]

# Runs each command in a fork of one process that has imported Airflow, which is what takes long; prints its exit code.
# A fork ends as every Python process does, and buffers as a shell's commands do.
COMMANDS = """
import json, os, sys
from airflow.__main__ import main
from airflow.cli import cli_parser
from airflow_dispatch_provider.cli import commands, migrate

def opened(stdout):
    if stdout == "full":
        return os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing

for number, (command, stdout) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.dup2(opened(stdout), 1)
        os.dup2(os.open(f"{number}.err", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = ["airflow", "dispatch", *command.split()]
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

Outcome = tuple[int, str]
"""The exit code, and what is on stderr."""


def environ(home: Path) -> dict[str, str]:
    names = ("AIRFLOW", "PYTHONUNBUFFERED")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return {
        **inherited,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__EXECUTOR": ROUTER,
        "AIRFLOW__DISPATCH__BACKENDS": BACKENDS,
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-a-test",
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Outcome]:
    """By command and kind of stdout."""
    home = tmp_path_factory.mktemp("output")
    cases = [*((command, "full") for command in FULL), *((command, "left") for command in LEFT)]
    run = [sys.executable, "-c", COMMANDS, json.dumps(cases)]
    done = subprocess.run(
        run, env=environ(home), cwd=home, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    codes = map(int, done.stdout.split())
    return {
        case: (code, (home / f"{number}.err").read_text())
        for number, (case, code) in enumerate(zip(cases, codes, strict=True))
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", FULL)
def test_full_device(command: str, outcomes: Mapping[tuple[str, str], Outcome]) -> None:
    code, err = outcomes[command, "full"]
    assert code == 1
    assert err.splitlines()[-1] == "error: The output cannot be written (No space left on device)."


@pytest.mark.timeout(300)
def test_closed_stdout(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dispatch", "routes"],
        env=environ(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: os.close(1),
    )
    assert (done.returncode, "stdout is closed" in done.stderr) == (1, True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", LEFT)
def test_reader_that_has_gone(command: str, outcomes: Mapping[tuple[str, str], Outcome]) -> None:
    """As with ``| head``: the exit code tells, and nothing is complained about."""
    code, err = outcomes[command, "left"]
    assert (code, "Traceback" in err, "Broken" in err) == (1, False, False)
