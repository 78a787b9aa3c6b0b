# SPDX-License-Identifier: Apache-2.0
"""Messages over a stream socket, without ever waiting for the other side."""

from __future__ import annotations

import pickle
import socket
import struct
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

_LENGTH = struct.Struct("!I")
_CHUNK = 1 << 16

IDLE_WAIT = 2.0
"""Seconds after which a process that waits for messages looks whether its parent lives: a copy of the socket may hide
its end."""

BUSY_WAIT = 0.1
"""Seconds to wait while something is due: a kill, or messages that the other side has not taken."""


class Channel:
    """
    One end of a socket pair: pickled messages, each behind its length in four bytes.

    ``send`` keeps what the socket does not take; the next ``send`` or ``flush`` tries again.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._outbox = bytearray()
        self._inbox = bytearray()
        self.closed = False
        """The other side is gone, and everything it had sent was received."""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pending(self) -> int:
        """Bytes that the other side has not taken yet."""
        return len(self._outbox)

    def send(self, message: Any) -> None:
        """Queue a message and push what the socket takes. To a peer that is gone it does nothing."""
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._outbox += _LENGTH.pack(len(body)) + body
        self.flush()

    def flush(self) -> None:
        """Push what the socket takes now."""
        while self._outbox:
            try:
                sent = self._socket.send(self._outbox)
            except BlockingIOError:
                return
            except OSError:  # the peer is gone; what it sent before can still be received
                self._outbox.clear()
                return
            del self._outbox[:sent]

    def receive(self) -> list[Any]:
        """Every message that has arrived in full, oldest first; at the end of the stream sets ``closed``."""
        while not self.closed:
            try:
                chunk = self._socket.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            self.closed = not chunk
            self._inbox += chunk
        return self._unpack()

    def _unpack(self) -> list[Any]:
        messages: list[Any] = []
        start = 0
        while len(self._inbox) >= start + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._inbox, start)
            end = start + _LENGTH.size + length
            if len(self._inbox) < end:
                break
            messages.append(pickle.loads(bytes(self._inbox[start + _LENGTH.size : end])))
            start = end
        del self._inbox[:start]
        return messages

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds until ``receive`` has something to look at."""
        return bool(wait([self._socket], timeout))

    def finish(self) -> None:
        """Send nothing more: the other side sees the end, and what it still has to say can be received."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end; nothing can be sent or received afterwards."""
        self.closed = True
        self._socket.close()
        self._inbox.clear()  # what others have sent each other is not for a fork of this process
        self._outbox.clear()
