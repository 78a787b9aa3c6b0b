# SPDX-License-Identifier: Apache-2.0
"""An API server of Airflow with our plugin over made-up answers, and users of the simple auth manager."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from support import wait_until

from ..database import prepare

TESTS = Path(__file__).parents[2]
USERS = {"reader": "viewer", "author": "user", "operator": "op", "boss": "admin", "nobody": ""}
"""Their roles by name: readers and authors may not change pools."""

HELD = 100_000
"""Tasks that wait; 1,000 of them are named."""


@dataclass(frozen=True)
class Answered:
    """One answer of the server."""

    code: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Server:
    """An API server that is ready."""

    url: str
    process: subprocess.Popen[str]

    def token(self, user: str) -> str:
        body = {"username": user, "password": f"{user}-password"}
        answer = self.send("/auth/token", None, body)
        assert answer.code in (200, 201), answer
        return str(answer.json["access_token"])

    def send(self, path: str, token: str | None, body: Any = None) -> Answered:
        """A GET, or a POST of this body."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urlopen(request, timeout=60) as response:
                return Answered(response.status, response.read().decode())
        except HTTPError as error:
            return Answered(error.code, error.read().decode())

    def asked(self) -> dict[str, int]:
        """How often each question has been asked so far."""
        found: dict[str, int] = self.send("/asked", None).json
        return found


@contextmanager
def serving(
    folder: Path,
    env: dict[str, str],
    path: str = "",
    users: Mapping[str, str] = USERS,
    held: int | str = HELD,
) -> Iterator[Server]:
    """
    :param folder: a new one
    :param path: below which Airflow is on its host
    :param users: their roles by name
    :param held: 0: nothing is made up; ``pictures``: as the documentation's pictures show it
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({user: f"{user}-password" for user in users}))
    settings = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{user}:{role}" for user, role in users.items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}{path}",
        "AIRFLOW__API__SECRET_KEY": "of-a-test",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-a-test-and-long-enough-for-every-algorithm-that-there-is-today",
        "PYTHONPATH": str(TESTS),
        **env,
    }
    log = (folder / "server.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("server.py")), str(port), str(held)],
        env={**os.environ, **settings},
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(f"http://127.0.0.1:{port}{path}", process)
    try:
        wait_until(lambda: _is_ready(server, log.name))
        yield server
    finally:
        process.kill()
        process.wait()
        log.close()


def _is_ready(server: Server, log: str) -> bool:
    assert server.process.poll() is None, Path(log).read_text()
    try:
        return server.send("/api/v2/version", None).code == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with two Dags, and a run of each."""
    folder = tmp_path_factory.mktemp("operate")
    url = f"sqlite:///{folder}/airflow.db"
    prepare(url, folder)
    return url


@pytest.fixture(scope="session")
def server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url}
    with serving(tmp_path_factory.mktemp("server"), env) as found:
        yield found
