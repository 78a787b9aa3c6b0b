# SPDX-License-Identifier: Apache-2.0
"""An answer that cannot be written is a failure of its command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

BACKENDS = '{"a": {"executor": "LocalExecutor", "slots": 4}}'
ROUTER = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
COMMANDS = ["validate", "backends -o json", "routes", "explain --queue q", "migrate"]


def run(home: Path, command: str, stdout: IO[Any] | int | None, **more: Any) -> tuple[int, str]:
    """The exit code, and what is on stderr. Buffers as a shell's commands do."""
    names = ("AIRFLOW", "PYTHONUNBUFFERED")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    options = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__EXECUTOR": ROUTER,
        "AIRFLOW__DISPATCH__BACKENDS": BACKENDS,
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-a-test",
    }
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dispatch", *command.split()],
        env={**inherited, **options},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
        **more,
    )
    return done.returncode, done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", COMMANDS)
def test_full_device(command: str, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        code, err = run(tmp_path, command, full)
    assert code == 1
    assert err.splitlines()[-1] == "error: The output cannot be written (No space left on device)."


@pytest.mark.timeout(300)
def test_closed_stdout(tmp_path: Path) -> None:
    code, err = run(tmp_path, "routes", None, preexec_fn=lambda: os.close(1))
    assert (code, "stdout is closed" in err) == (1, True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["migrate", "routes -o json"])
def test_reader_that_has_gone(command: str, tmp_path: Path) -> None:
    """As with ``| head``: the exit code tells, and nothing is complained about."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, err = run(tmp_path, command, writing)
    finally:
        os.close(writing)
    assert (code, "Traceback" in err, "Broken" in err) == (1, False, False)
