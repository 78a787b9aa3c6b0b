# SPDX-License-Identifier: Apache-2.0
"""Starting a template process, as a fork of this one or as a fresh interpreter."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from airflow_dispatch_provider.engines.local import template
from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import Setup, Work

Mode = Literal["fork", "exec"]


def obstacle_to_fork() -> str | None:
    """Why a fork of this process would not be safe; None when it is."""
    if sys.platform == "darwin":
        return "macOS libraries do not survive a fork"
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        return f"threads run in this process: {', '.join(sorted(others))}"
    method = multiprocessing.get_start_method()
    return None if method == "fork" else f"multiprocessing's start method is {method}"


@dataclass
class Link:
    """A template process that was started, and the channel to it."""

    pid: int
    channel: Channel
    popen: subprocess.Popen[bytes] | None = None
    status: int | None = field(default=None, init=False)
    """Exit code or minus a signal, once ``ended`` has seen it."""

    def ended(self) -> bool:
        """Whether the process has ended; does not wait."""
        if self.status is None:
            self.status = self.popen.poll() if self.popen else _exit_status(self.pid)
        return self.status is not None

    def kill(self) -> None:
        """SIGKILL, unless it was seen to end."""
        if not self.ended():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _exit_status(pid: int) -> int | None:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0  # someone else has collected it
    return os.waitstatus_to_exitcode(status) if found else None


def launch(mode: Mode, work: Work) -> Link:
    """Start a template process; raises if ``work`` cannot be pickled. Does not wait until it is ready."""
    body = pickle.dumps(work)
    link = _fork() if mode == "fork" else _exec()
    link.channel.send(Setup(list(sys.path), body))
    return link


def _fork() -> Link:
    parent = os.getpid()
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()  # what is still buffered would be written by both
    pid = os.fork()
    if pid == 0:
        ours.close()
        template.become(theirs, parent)
    theirs.close()
    return Link(pid, Channel(ours))


def _exec() -> Link:
    ours, theirs = socket.socketpair()
    with theirs:
        popen = subprocess.Popen(
            [sys.executable, "-m", template.__name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Link(popen.pid, Channel(ours), popen)
