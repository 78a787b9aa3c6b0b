# SPDX-License-Identifier: Apache-2.0
"""Scripts that are ended while what they have started runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support import wait_until

pytestmark = [pytest.mark.integration("postgres"), pytest.mark.once]

DEV = Path(__file__).parents[3] / "dev"


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def runs(process: subprocess.Popen[bytes], command: str) -> bool:
    """Whether a descendant has that in its command line."""
    lines: list[str] = []
    for each in descendants(process):
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(each.cmdline()))
    return any(command in line for line in lines)


def test_a_benchmark_leaves_no_server_behind() -> None:
    """PostgreSQL and an API server would go on for ever."""
    command = [DEV / "bench", "scheduler-outages", "--tasks", "100"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        wait_until(lambda: runs(bench, "postgres") and runs(bench, "airflow scheduler"), timeout=180)
        started = descendants(bench)
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(120) == 130
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_tests_that_are_ended_stop_their_servers(send: Callable[[int, int], None], tmp_path: Path) -> None:
    """As with Ctrl-C, which pytest would get as well; also where they were started in the background, and where the
    signal is for the whole group."""
    test = tmp_path / "test_long.py"
    test.write_text(
        "import subprocess, pytest\n"
        "@pytest.fixture\n"
        "def server():\n"
        "    process = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "    yield process\n"
        "    process.kill()\n"
        "def test_long(server):\n"
        "    server.wait()\n"
    )
    in_background = ["sh", "-c", 'trap "" INT; exec "$0" "$@"']  # as a shell starts it
    command = [*in_background, DEV / "test", str(test), "-p", "no:cacheprovider"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as tests:
        wait_until(lambda: runs(tests, "sleep 600"))
        started = descendants(tests)
        send(tests.pid, signal.SIGTERM)
        assert tests.wait(60) == 130
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
