# SPDX-License-Identifier: Apache-2.0
"""``airflow`` commands, each in a fork of one process that has imported the larger part of Airflow, which is what takes
long. What reads options while it is imported, and this package, is left to the fork."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# As `python -m airflow` from here on: a fork ends, and buffers its output, as every Python process does.
_SERVER = """
import json, os, runpy, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Airflow 3.2 logs to standard output while it is imported
import airflow.executors.executor_loader, airflow.models.taskinstance, airflow.providers_manager, airflow.settings
import argcomplete, libcst, rich.console

def stdout_of(kind):
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    if kind == "left":
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    return os.open("out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

for line in sys.stdin:
    arguments, environ, kind = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout_of(kind), 1)
        os.dup2(os.open("err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = ["airflow", *arguments]
        runpy.run_module("airflow", run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
"""


class AirflowForks:
    """Runs commands one after the other.

    :param folder: where they run; not used by anything else
    :param environ: of the process that is forked; AIRFLOW_HOME is that of all commands
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            env=environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> AirflowForks:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(
        self, *arguments: str, env: Mapping[str, str], stdout: str = "file"
    ) -> subprocess.CompletedProcess[str]:
        """``airflow <arguments>``.

        :param stdout: ``full``: a device without room; ``left``: a pipe whose reader has gone
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps([arguments, dict(env), stdout]), file=self._server.stdin, flush=True)
        code = int(self._server.stdout.readline())
        out = (self._folder / "out").read_text() if stdout == "file" else ""
        return subprocess.CompletedProcess(arguments, code, out, (self._folder / "err").read_text())
