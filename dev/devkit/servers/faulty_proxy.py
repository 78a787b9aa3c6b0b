# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy in front of a server, which breaks the connections to it in the ways a network does."""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from devkit.servers.process import free_port

Mode = Literal["forward", "refuse", "hang", "reset"]
Direction = Literal["up", "down"]

_AT_ONCE = struct.pack("ii", 1, 0)  # for SO_LINGER: close with RST
_CHUNK = 65536
_RETRY = 0.005  # seconds until a socket with a full buffer is tried again


class FaultyProxy:
    """Forwards a free port of 127.0.0.1 to a server; everything else is asked for while it runs.

    ``mode`` is one of

    - ``forward``: passes everything on. A client whose server cannot be reached is reset.
    - ``refuse``: closes every connection and refuses new ones.
    - ``hang``: accepts and reads, passes nothing on. What it has read goes on when it forwards again.
    - ``reset``: resets every connection, and new ones as soon as they are accepted.

    A change is complete when the assignment returns. Only clients see a reset: the server gets all that was passed
    on to it, and then the end of the connection.

    :ivar delay: seconds that each chunk read from now on waits before it is passed on.
    :ivar cuts: how often ``cut_after`` has cut.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self.port = free_port()
        self.delay = 0.0
        self.cuts = 0
        self._target = (target_host, target_port)
        self._mode: Mode = "forward"
        self._cut: _Cut | None = None
        self._links: list[_Link] = []
        self._calls: queue.SimpleQueue[tuple[Future[None], Callable[[], None]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._call(partial(self._switch, mode))

    def cut_after(self, n_bytes: int, direction: Direction = "up") -> None:
        """Once: let this many bytes pass in a direction, on all connections together, then reset all of them.

        ``up`` is to the server. With 0 the next bytes are not passed on at all: ``cut_after(0, "down")`` loses
        the reply to a request that arrived.
        """
        self._call(partial(setattr, self, "_cut", _Cut(n_bytes, direction)))

    def url(self, url: str) -> str:
        """The URL of a server, changed so that it leads through this proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    def start(self) -> None:
        self._ended = False
        self._mode = "forward"
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, self._obey)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"faulty-proxy-{self.port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close everything and end the thread; harmless when called again."""
        if self._thread:
            self._call(partial(setattr, self, "_ended", True))
            self._thread.join()
            self._thread = None

    def __enter__(self) -> FaultyProxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _call(self, function: Callable[[], None]) -> None:
        """Have the thread call something, and wait until it has."""
        if not self._thread:
            raise RuntimeError("the proxy does not run")
        done: Future[None] = Future()
        self._calls.put((done, function))
        self._waker.send(b"\0")
        done.result(10)

    # Everything below runs in the thread, so that nothing needs a lock.

    def _obey(self) -> None:
        self._woken.recv(_CHUNK)
        while not self._calls.empty():
            done, function = self._calls.get()
            try:
                done.set_result(function())
            except Exception as error:
                done.set_exception(error)

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            for thing in (self._selector, self._woken, self._waker, self._listener):
                stack.callback(thing.close)
            stack.callback(self._close_left)
            stack.callback(self._close_all)
            while not self._ended:
                for key, _ in self._selector.select(self._until_due()):
                    key.data()
                if self._mode == "forward":
                    for link in list(self._links):
                        self._forward(link)

    def _until_due(self) -> float | None:
        """Seconds until something has to be passed on; None when nothing has been read."""
        if self._mode != "forward":
            return None
        dues = [flow.chunks[0][0] for link in self._links for flow in link.flows if flow.chunks]
        return max(_RETRY, min(dues) - time.monotonic()) if dues else None

    def _switch(self, mode: Mode) -> None:
        if mode == "refuse" and self._mode != "refuse":
            self._selector.unregister(self._listener)
            self._listener.shutdown(socket.SHUT_RDWR)  # it stays bound, so nobody else gets the port
            self._close_all()
        if mode != "refuse" and self._mode == "refuse":
            self._listen()
        if mode == "reset":
            self._reset_all()
        self._mode = mode

    def _listen(self) -> None:
        self._listener.listen(128)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            link = _Link(client)
            self._links.append(link)
            if self._mode == "reset":
                self._reset(link)
            else:
                self._add_flow(link, _Flow(client, "up"))

    def _add_flow(self, link: _Link, flow: _Flow) -> None:
        flow.source.setblocking(False)
        flow.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.flows.append(flow)
        self._selector.register(flow.source, selectors.EVENT_READ, partial(self._read, link, flow))

    def _read(self, link: _Link, flow: _Flow) -> None:
        """Read what is there; no bytes are the end of the stream, and are passed on in their turn."""
        if link not in self._links:
            return
        try:
            chunk = flow.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            if flow.direction == "down":
                self._reset(link)
                return
            chunk = b""  # a client that resets has sent all the same what was read before
        if not chunk:
            self._selector.unregister(flow.source)
        flow.chunks.append((time.monotonic() + self.delay, chunk))

    def _forward(self, link: _Link) -> None:
        try:
            if not link.server:
                link.server = socket.create_connection(self._target, 5)
                self._add_flow(link, _Flow(link.server, "down"))
            for flow, sink in zip(link.flows, (link.server, link.client), strict=True):
                self._send_due(link, flow, sink)
            if all(flow.ended for flow in link.flows):
                self._close(link)
        except OSError:
            self._reset(link)

    def _send_due(self, link: _Link, flow: _Flow, sink: socket.socket) -> None:
        """Send what is due, as far as the other end takes it."""
        while link in self._links and flow.chunks and flow.chunks[0][0] <= time.monotonic():
            due, chunk = flow.chunks.popleft()
            if not chunk:
                sink.shutdown(socket.SHUT_WR)
                flow.ended = True
                return
            sent = self._send(sink, chunk, flow.direction)
            if sent < len(chunk):
                flow.chunks.appendleft((due, chunk[sent:]))
                return

    def _send(self, sink: socket.socket, chunk: bytes, direction: Direction) -> int:
        cut = self._cut if self._cut and self._cut.direction == direction else None
        try:
            sent = sink.send(chunk[: cut.left] if cut else chunk)
        except BlockingIOError:
            return 0
        if cut:
            cut.left -= sent
            if not cut.left:
                self._cut = None
                self.cuts += 1
                self._reset_all()
        return sent

    def _reset_all(self) -> None:
        for link in list(self._links):
            self._reset(link)

    def _close_all(self) -> None:
        for link in list(self._links):
            self._close(link)

    def _reset(self, link: _Link) -> None:
        link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._close(link)

    def _close(self, link: _Link) -> None:
        if link in self._links:
            self._links.remove(link)
            for end in filter(None, (link.client, link.server)):
                with contextlib.suppress(KeyError):
                    self._selector.unregister(end)
            link.client.close()
            if link.server:
                self._hang_up(link.server)

    def _close_left(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.fileobj not in (self._woken, self._listener):
                key.fileobj.close()  # type: ignore[union-attr]

    def _hang_up(self, server: socket.socket) -> None:
        """End a server's connection, and read it to its end: a close with something unread resets it, and then the
        server loses what it had not read."""
        try:
            server.shutdown(socket.SHUT_WR)
        except OSError:
            server.close()
        else:
            self._selector.register(server, selectors.EVENT_READ, partial(self._drain, server))

    def _drain(self, server: socket.socket) -> None:
        try:
            left = server.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            left = b""
        if not left:
            self._selector.unregister(server)
            server.close()


@dataclass
class _Cut:
    left: int
    direction: Direction


class _Flow:
    """One direction of a connection: what was read and not yet passed on, each with the time for it."""

    def __init__(self, source: socket.socket, direction: Direction) -> None:
        self.source = source
        self.direction = direction
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.ended = False


class _Link:
    """A client's connection, and the one to the server that belongs to it as soon as there is one."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.flows: list[_Flow] = []
