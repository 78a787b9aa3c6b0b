# SPDX-License-Identifier: Apache-2.0
"""./dev/shell and the servers that it starts."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.integration("redis"), pytest.mark.once]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_stops_what_it_started_when_it_is_ended(number: signal.Signals) -> None:
    """Also by a terminal that is closed: no server is left."""
    script = Path(__file__).parents[3] / "dev" / "shell"
    command = [
        script,
        "--no-airflow",
        "--integration",
        "redis",
        "--",
        "sh",
        "-c",
        "echo ready; exec sleep 600",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as shell:
        assert shell.stdout is not None
        next(line for line in shell.stdout if line == "ready\n")
        started = psutil.Process(shell.pid).children(recursive=True)
        assert any("valkey" in process.name() for process in started)
        shell.send_signal(number)
        assert shell.wait(60) == 130
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
