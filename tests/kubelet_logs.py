# SPDX-License-Identifier: Apache-2.0
"""The part of a kubelet's HTTPS server that the API server asks for a container's log."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_POLL = 0.1

Find = Callable[[str, str, str], Path | None]
"""The log file of (namespace, pod, container); None when there is no such pod."""
Ended = Callable[[str, str], bool]
"""Whether nothing will be added to the logs of (namespace, pod)."""


@asynccontextmanager
async def log_server(find: Find, ended: Ended) -> AsyncIterator[int]:
    """Serve on a free port of 127.0.0.1; gives the port."""

    async def handle(request: web.Request) -> web.StreamResponse:
        names = request.match_info
        path = find(names["namespace"], names["pod"], names["container"])
        if path is None:
            raise web.HTTPNotFound(text=f"no container {names['container']} of pod {names['pod']}")
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        follow = request.query.get("follow") == "true"
        async for chunk in _chunks(path, request.query.get("tailLines"), follow, ended, names):
            await answer.write(chunk)
        return answer

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_self_signed())
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _chunks(path, tail, follow, ended, names):  # placeholder
    yield b""


def _self_signed() -> ssl.SSLContext:
    return ssl.SSLContext()
