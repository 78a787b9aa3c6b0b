# SPDX-License-Identifier: Apache-2.0
"""A real MariaDB server from Debian's packages ``mariadb-server-core`` and ``mariadb-client-core``.

It stands in for MySQL, of which neither Debian nor a package index for Python has a server.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess

import pymysql

from devkit.servers.process import ServerProcess

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
# Fast rather than durable: the data is thrown away.
_SETTINGS = ("--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M")


def is_installed() -> bool:
    """Whether both packages are there."""
    return all(shutil.which(name, path=_PATH) for name in ("mariadbd", "mariadb-install-db"))


class MariaDbServer(ServerProcess):
    """A server whose administrator is ``root``, without a password."""

    name = "MariaDB"
    poll_interval = 0.1

    @property
    def url(self) -> str:
        """SQLAlchemy URL, without a database."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self._data}",
            f"--user={getpass.getuser()}",
        ]
        done = subprocess.run(
            [*install, "--auth-root-authentication-method=normal", "--skip-test-db"],
            env={**os.environ, "PATH": _PATH},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{install[0]} failed: {done.stdout}{done.stderr}")

    def _command(self) -> tuple[list[str], dict[str, str]]:
        program = shutil.which("mariadbd", path=_PATH) or "mariadbd"
        # As root it runs only where it is told so.
        own = [f"--user={getpass.getuser()}", f"--datadir={self._data}", f"--socket={self.folder}/socket"]
        address = ["--bind-address=127.0.0.1", f"--port={self.port}", f"--pid-file={self.folder}/pid"]
        return [program, "--no-defaults", *own, *address, *_SETTINGS], dict(os.environ)

    def _answers(self) -> bool:
        try:
            pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=5).close()
        except pymysql.err.OperationalError:
            return False
        return True
