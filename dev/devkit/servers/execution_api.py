# SPDX-License-Identifier: Apache-2.0
"""A server in place of the Execution API, which lets tasks start or does not."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

from airflow.sdk.api import client
from airflow.sdk.api.datamodels import _generated


class ExecutionApi:
    """Its address is taken from the start on; it answers from ``serve`` on."""

    def __init__(self) -> None:
        self.status = 200
        """The answer to who asks for leave to start a task."""

        self.asked = threading.Event()
        self.answering = threading.Event()
        self.answering.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/execution/"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                starting = self.path.endswith("/run")
                if starting:
                    api.asked.set()
                    api.answering.wait()
                self._answer(api.status if starting else 204, start_context() if starting else b"")

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self._answer(204, b"")

            do_GET = do_POST = do_PUT

            def _answer(self, status: int, body: bytes) -> None:
                body = body if status == 200 else b"{}" if status != 204 else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    def serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()


def start_context() -> bytes:
    """The server's answer to a task that it lets start, with the fields that this version knows."""
    now = "2026-01-01T00:00:00Z"
    run: dict[str, Any] = {
        "dag_id": "dag",
        "run_id": "run",
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        "partition_key": None,
        "end_date": None,
        "data_interval_start": None,
        "data_interval_end": None,
        **dict.fromkeys(("logical_date", "start_date", "run_after"), now),
    }
    known = {name: value for name, value in run.items() if name in _generated.DagRun.model_fields}
    return json.dumps({"dag_run": known, "max_tries": 0, "should_retry": False}).encode()


def let_start() -> None:
    """Ask for leave to start, as Airflow's supervisor does, with the answer at hand."""
    answering = SimpleNamespace(patch=lambda *args, **kwargs: SimpleNamespace(read=start_context))
    client.TaskInstanceOperations(cast(Any, answering)).start(uuid4(), os.getpid(), datetime.now(tz=UTC))
