# SPDX-License-Identifier: Apache-2.0
"""The children of a template process: their ends, and whose they become when one dies."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def sigchld_pipe() -> tuple[int, int]:
    """Reading and writing end of a pipe that has something to read once a child of this process has ended."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing is written to the pipe
    return read, write


def drain(pipe: int) -> None:
    """Read all of it, for it to wake its reader again."""
    with suppress(BlockingIOError):
        while os.read(pipe, 4096):
            pass


def ended_children() -> list[tuple[int, int]]:
    """Pid and exit code, or minus the signal, of those that have ended and are forgotten now."""
    ended = []
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def first_ended_child() -> tuple[int, int] | None:
    """The same of one that is kept: for ``os.waitpid``, or for who inherits it if this process dies."""
    with suppress(ChildProcessError):
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            return ended.si_pid, ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return None


def leave_sigchld(pipe: tuple[int, int]) -> None:
    """In a fork: let its own children end as in any process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd in pipe:
        os.close(fd)


def inherit_orphans() -> bool:
    """Make the descendants of this process its children when their parents end; whether that can be had (Linux)."""
    if sys.platform != "linux":
        return False
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends, whatever it does then (Linux); its children are not."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def can_end_with_peer() -> bool:
    """Whether ``ending_with_peer`` is possible: not all kernels on which Linux programs run are Linux."""
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        fcntl.fcntl(sock, fcntl.F_SETSIG, signal.SIGKILL)
        return True
    return False


@contextmanager
def ending_with_peer(sock: socket.socket) -> Iterator[None]:
    """Meanwhile, have this process killed when the other end of that socket is closed, whatever either does then
    (Linux); its children are not, whether or not they have the socket, too. The other end may send nothing."""
    flags = fcntl.fcntl(sock, fcntl.F_GETFL)
    fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sock, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(sock, fcntl.F_SETFL, flags | os.O_ASYNC)
    with suppress(BlockingIOError):
        if not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            os._exit(1)
    try:
        yield
    finally:
        fcntl.fcntl(sock, fcntl.F_SETFL, flags)


def _prctl(*arguments: int) -> int:
    return int(ctypes.CDLL(None)["prctl"](*arguments))
