# SPDX-License-Identifier: Apache-2.0
"""Processes that serve clients on a port of this machine, and are gone with their data at the end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago. It is none of those that Linux gives to outgoing connections
    by itself, of which one would have it by the time that a server has started."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Startable(ABC):
    """Runs within a ``with``, and leaves nothing behind where its start fails."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ServerProcess(Startable):
    """A server on one port of 127.0.0.1 that can be killed, frozen, and started again on that port.

    Everything it writes goes to a temporary folder, which ``stop`` removes.
    """

    name: str
    start_timeout = 30.0
    """Seconds."""

    poll_interval = 0.02
    """Seconds between two questions whether it serves clients."""

    stop_signal = signal.SIGKILL
    restart_signal = signal.SIGTERM
    user: int | None = None
    group: int | None = None
    """Whose process it is; those of this process when None."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> None:
        """Write the settings; everything but the data folder."""

    @abstractmethod
    def _command(self) -> tuple[list[str], dict[str, str]]:
        """The command to run, as the process itself and not as its parent, and the environment for it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether a client is served."""

    def start(self) -> None:
        """Start it with empty data, and wait until it serves clients."""
        self.stop()
        self._folder = Path(tempfile.mkdtemp(prefix=f"dispatch-{self.name.lower()}-"))
        self._prepare()
        self._launch()

    def stop(self) -> None:
        """End it and delete everything it wrote; harmless when called again."""
        self._end(self.stop_signal)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """SIGKILL; its data stay as they are."""
        self._end(signal.SIGKILL)

    def restart(self, empty: bool = False) -> None:
        """Start it again on the same port, with the data it had or without; shuts it down first if it runs."""
        self._end(self.restart_signal)
        if empty:
            shutil.rmtree(self._data)
        self._launch()

    def pause(self) -> None:
        """Freeze it: connections are still accepted, and nothing is ever answered."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    @property
    def folder(self) -> Path:
        if not self._folder:
            raise RuntimeError(f"{self.name} was not started")
        return self._folder

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _running(self) -> subprocess.Popen[bytes]:
        if not self._process:
            raise RuntimeError(f"{self.name} does not run")
        return self._process

    def _launch(self) -> None:
        self._data.mkdir(exist_ok=True)
        command, env = self._command()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
                group=self.group,
            )
        self._wait_until_ready()

    def _end(self, number: signal.Signals, timeout: float = 20) -> None:
        """Signal the process, SIGKILL it after the time-out, and wait until it is gone."""
        if process := self._process:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)  # a frozen process takes no other signal but SIGKILL
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
            process.kill()
            process.wait()
            self._process = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while not self._answers():
            ended = self._running().poll() is not None
            if ended or time.monotonic() > deadline:
                problem = "ended" if ended else f"is not ready after {self.start_timeout:.0f} s"
                raise RuntimeError(f"{self.name} {problem}; its log: {self._log.read_text(errors='replace')}")
            time.sleep(self.poll_interval)
