# SPDX-License-Identifier: Apache-2.0
"""An answer that cannot be written is a failure of its command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devkit.deployments.airflow_forks import AirflowForks

pytestmark = pytest.mark.once

BACKENDS = '{"a": {"executor": "LocalExecutor", "slots": 4}}'
ROUTER = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"

Run = Callable[[str, str], subprocess.CompletedProcess[str]]


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
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A command of ``airflow dispatch``, and what its stdout is: see ``AirflowForks``."""
    home = tmp_path_factory.mktemp("output")
    with AirflowForks(home, environ(home)) as forks:
        yield lambda command, stdout: forks.run(
            "dispatch", *command.split(), env=environ(home), stdout=stdout
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command", ["validate", "backends -o json", "routes", "explain --queue q", "migrate"]
)
def test_full_device(command: str, run: Run) -> None:
    done = run(command, "full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: The output cannot be written (No space left on device)."


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
@pytest.mark.parametrize("command", ["migrate", "routes -o json"])
def test_reader_that_has_gone(command: str, run: Run) -> None:
    """As with ``| head``: the exit code tells, and nothing is complained about."""
    done = run(command, "left")
    assert (done.returncode, "Traceback" in done.stderr, "Broken" in done.stderr) == (1, False, False)
