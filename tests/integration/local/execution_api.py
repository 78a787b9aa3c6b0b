# SPDX-License-Identifier: Apache-2.0
"""A server in place of the Execution API, which lets tasks start or does not."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow.sdk.api import client

httpx: Any = vars(client).get("httpx2") or vars(client)["httpx"]


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
                self._answer(api.status if starting else 204, _context(self.path) if starting else b"")

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


def _context(path: str) -> bytes:
    """The answer of Airflow's client to itself, when it has no server."""
    body: bytes = client.noop_handler(httpx.Request("PATCH", f"http://api{path}")).read()
    return body
