# SPDX-License-Identifier: Apache-2.0
"""The part of a kubelet's HTTPS server that the API server asks for a container's log."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_POLL = 0.1


@dataclass(frozen=True)
class ContainerLog:
    """A file that grows until ``complete()``; it may not be there yet."""

    path: Path
    complete: Callable[[], bool]

    async def read(self, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Its content, from the last ``tail`` lines on; with ``follow`` also what is added."""
        position = 0
        while True:
            last = not follow or self.complete()  # asked first, so that nothing written before is missed
            if self.path.exists():
                with self.path.open("rb") as log:
                    log.seek(position)
                    text = log.read()
                position += len(text)
                if tail is not None:
                    text, tail = b"".join(text.splitlines(keepends=True)[-tail:] if tail else ()), None
                if text:
                    yield text
            if last:
                return
            await asyncio.sleep(_POLL)


Find = Callable[[str, str, str], ContainerLog | None]
"""The log of (namespace, pod, container); None when there is no such container."""


@asynccontextmanager
async def log_server(find: Find) -> AsyncIterator[int]:
    """Serve on a free port of 127.0.0.1; gives the port."""

    async def handle(request: web.Request) -> web.StreamResponse:
        names = request.match_info
        log = find(names["namespace"], names["pod"], names["container"])
        if log is None:
            raise web.HTTPNotFound(text=f"no container {names['container']} of pod {names['pod']}")
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        tail = request.query.get("tailLines")
        async for text in log.read(int(tail) if tail else None, request.query.get("follow") == "true"):
            await answer.write(text)
        return answer

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_self_signed()).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _self_signed() -> ssl.SSLContext:
    """The API server does not verify a kubelet unless it is told an authority for kubelets."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test-node")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(private + certificate.public_bytes(encoding))
        file.flush()
        context.load_cert_chain(file.name)
    return context
