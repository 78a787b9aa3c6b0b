# SPDX-License-Identifier: Apache-2.0
"""Whether Airflow's Execution API answers, asked of a real one, and of one that is broken in each way."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from airflow.configuration import conf

from airflow_dispatch_provider.bridge.airflow_api import reach_execution_api
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.process import free_port
from tests.support import wait_until

APP = "airflow.api_fastapi.execution_api.app:create_task_execution_api_app"


def reached(timeout: float = 10.0) -> bool:
    with contextlib.suppress(Exception):
        reach_execution_api(conf, timeout)
        return True
    return False


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of the real one's server."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", APP, "--factory", "--lifespan", "off", "--port", str(port)]
    output = tmp_path_factory.mktemp("api") / "output.txt"
    with output.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"http://127.0.0.1:{port}/")
                wait_until(lambda: reached() or server.poll() is not None)
            assert server.poll() is None, output.read_text()
            yield port
        finally:
            server.terminate()


@pytest.fixture
def proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """In front of it, where the configuration says that it is."""
    with FaultyProxy("127.0.0.1", port) as proxy:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"http://127.0.0.1:{proxy.port}/")
        yield proxy


@pytest.mark.parametrize("mode", ["refuse", "reset", "hang"])
def test_an_answer_is_an_answer_and_everything_else_is_raised(proxy, mode):
    """It is asked once each time, and is there again as soon as it answers."""
    assert reached()
    proxy.mode = mode
    assert not reached(timeout=0.5)
    proxy.mode = "forward"
    assert reached()


@pytest.mark.parametrize(("status", "is_reached"), [(401, True), (404, True), (500, False), (503, False)])
def test_an_error_of_the_server_itself_is_no_answer(status, is_reached, monkeypatch):
    """A proxy in front of servers that are away says 502 or 503; what needs a token, or has another version of the
    address, is there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", url)
        pool.submit(server.handle_request)
        assert reached() is is_reached
