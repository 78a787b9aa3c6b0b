# SPDX-License-Identifier: Apache-2.0
"""As much of a Kubernetes client as the node agent needs: JSON in, JSON out, through any outage of the server."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Json = dict[str, Any]

_FINAL = frozenset({400, 401, 403, 404, 405, 409, 410, 422})
_TIMEOUT = aiohttp.ClientTimeout(total=20)
_LONGEST_PAUSE = 1.0
_WATCH_SECONDS = 240
# The server sends a bookmark about every minute; a watch that is silent for longer has lost its server.
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_read=90)


class Refused(Exception):
    """The server answered, and will answer so again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True)
class Access:
    """Where a cluster is, and who asks: what a context of a kubeconfig with a token says."""

    server: str
    tls: ssl.SSLContext
    token: str

    @classmethod
    def load(cls, path: Path, context: str | None = None) -> Access:
        """Read a kubeconfig; the current context when none is named."""
        config = yaml.safe_load(path.read_text())
        chosen = _named(config, "context", context or config["current-context"])
        cluster = _named(config, "cluster", chosen["cluster"])
        user = _named(config, "user", chosen["user"])
        if "token" not in user:
            raise ValueError(f"user {chosen['user']} of {path} has no `token`, the only credential used here")
        return cls(cluster["server"].rstrip("/"), _tls(cluster), user["token"])


def _named(config: Mapping[str, Any], kind: str, name: str) -> Json:
    for entry in config.get(f"{kind}s") or ():
        if entry["name"] == name:
            return dict(entry[kind])
    raise ValueError(f"the kubeconfig has no {kind} {name}")


def _tls(cluster: Mapping[str, Any]) -> ssl.SSLContext:
    data = cluster.get("certificate-authority-data")
    return ssl.create_default_context(
        cafile=cluster.get("certificate-authority"),
        cadata=base64.b64decode(data).decode() if data else None,
    )


class KubeClient:
    """Requests to one API server over a few connections."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def open(cls, access: Access, connections: int = 8) -> AsyncIterator[KubeClient]:
        connector = aiohttp.TCPConnector(ssl=access.tls, limit=connections + 1)  # and the watch
        headers = {"Authorization": f"Bearer {access.token}"}
        async with aiohttp.ClientSession(access.server, connector=connector, headers=headers) as session:
            yield cls(session)

    async def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send a request until the server has done it or refused it; PATCH sends a merge patch."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = json.dumps(body).encode() if body is not None else None
        pause = 0.05
        while True:
            try:
                async with self._session.request(
                    method, path, data=data, headers={"Content-Type": kind}, timeout=_TIMEOUT
                ) as answer:
                    return await _read(answer)
            except (TimeoutError, aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def watch(self, path: str, version: str) -> AsyncIterator[Json]:
        """Events after this resource version, until the watch ends or breaks; Refused when it is too old."""
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        buffer = bytearray()
        try:
            async with self._session.get(path, params=query, timeout=_WATCH_TIMEOUT) as answer:
                if answer.status != 200:
                    await _read(answer)
                async for chunk in answer.content.iter_any():
                    buffer += chunk
                    *lines, rest = buffer.split(b"\n")
                    buffer = rest
                    for line in lines:
                        yield _event(line)
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            return


async def _read(answer: aiohttp.ClientResponse) -> Json:
    if answer.status < 300:
        return dict(json.loads(await answer.read()))
    if answer.status in _FINAL:
        raise Refused(answer.status, await answer.text())
    answer.raise_for_status()
    raise aiohttp.ClientPayloadError(f"unexpected status {answer.status}")


def _event(line: bytes | bytearray) -> Json:
    event: Json = json.loads(line)
    if event["type"] == "ERROR":
        raise Refused(event["object"].get("code", 500), event["object"].get("message", ""))
    return event
