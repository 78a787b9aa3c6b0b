# SPDX-License-Identifier: Apache-2.0
"""
The template process: has imported what tasks need, and forks one process per workload.

Runs as a fork of the scheduler (``become``) or as ``python -m`` this module with a descriptor number.
It ends when its executor does, after the last workload that it started.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from multiprocessing.connection import wait
from typing import Any, NoReturn

import psutil

from airflow_dispatch_provider.engines.local import processes, worker
from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import (
    Began,
    Ended,
    Kill,
    NotStarted,
    Ready,
    Run,
    Setup,
    Slots,
    Started,
    Withdraw,
    Work,
)

log = logging.getLogger(__name__)

_IDLE_WAIT = 2.0
"""Seconds after which the template looks whether its parent lives: a copy of the socket may hide its end."""

_BUSY_WAIT = 0.1
"""Seconds to wait while something is due: a kill, or messages that the executor has not taken."""


@dataclass
class _Child:
    number: int
    control: socket.socket
    released: bool = False
    said: bytes = b""
    heard: bool = False
    """It has begun, or will never begin: nothing more is of interest before its end."""

    def fileno(self) -> int:
        return self.control.fileno()

    @property
    def begun(self) -> bool:
        return worker.read_report(self.said).begun

    def hear(self) -> bool:
        """Take in what it has said; whether that it has begun is among the news."""
        knew = self.begun
        with suppress(BlockingIOError):
            while chunk := self._receive():
                self.said += chunk
            self.heard = True
        begun = self.begun
        self.heard = self.heard or begun
        return begun and not knew

    def _receive(self) -> bytes:
        try:
            return self.control.recv(worker.MAX_ERROR)
        except ConnectionError:
            return b""


class Template:
    """The loop of a template process. Single-threaded, as a process that forks has to be."""

    def __init__(self, channel: Channel, work: Work, parent: int) -> None:
        self._channel = channel
        self._work = work
        self._parent = parent
        self._children: dict[int, _Child] = {}
        self._slots = inf
        self._waiting: dict[int, Run] = {}
        """Not started yet, in the order in which they came. They end with the executor."""

        self._kills = processes.KillList(time.monotonic)
        self._wake, self._wakeup = _sigchld_pipe()

    def serve(self, messages: list[Any]) -> None:
        """Work until the executor is gone and the last child has ended."""
        self._channel.send(Ready())
        self._handle(messages)
        self._start_waiting()
        while not self._channel.closed or self._children or self._kills:
            self._release()
            ready = wait(self._sources(), self._patience())
            self._drain_wakeup()
            for child in ready:
                if isinstance(child, _Child):
                    self._hear(child)
            self._handle(self._channel.receive() if not self._channel.closed else [])
            self._reap()
            self._kills.tick()
            if os.getppid() != self._parent and not self._channel.closed:
                self._channel.close()
            self._start_waiting()

    def _sources(self) -> list[Any]:
        if self._channel.closed:
            return [self._wake]
        unheard = [child for child in self._children.values() if not child.heard]
        return [self._wake, self._channel.fileno(), *unheard]

    def _patience(self) -> float:
        return _BUSY_WAIT if self._kills or self._channel.pending else _IDLE_WAIT

    def _drain_wakeup(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._wake, 4096):
                pass

    def _hear(self, child: _Child) -> None:
        if child.hear():
            self._tell(Began(child.number))

    def _tell(self, message: Any) -> None:
        if not self._channel.closed:
            self._channel.send(message)

    def _handle(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Run):
                self._waiting[message.number] = message
            elif isinstance(message, Slots):
                self._slots = message.number
            else:
                self._take_back(message)

    def _take_back(self, message: Kill | Withdraw) -> None:
        """One that waits is forgotten, whichever it is; of those that have started, Kill alone means anything."""
        if self._waiting.pop(message.number, None) is not None:
            self._tell(NotStarted(message.number))
        elif isinstance(message, Kill):
            self._kill(message)

    def _kill(self, message: Kill) -> None:
        for pid, child in self._children.items():
            if child.number == message.number:
                self._hear(child)
                if not (message.unless_begun and child.begun):
                    self._kills.add(pid, message.grace)

    def _start_waiting(self) -> None:
        """Fill the slots that are free by now."""
        while self._waiting and len(self._children) < self._slots and not self._channel.closed:
            self._start(self._waiting.pop(min(self._waiting, key=lambda number: self._waiting[number].rank)))

    def _start(self, run: Run) -> None:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._refuse(run, error)
            return
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._refuse(run, error)
            return
        if pid == 0:
            self._become_worker(ours, theirs, run)
        theirs.close()
        ours.setblocking(False)
        self._children[pid] = _Child(run.number, ours)
        self._channel.send(Started(run.number, pid, psutil.Process(pid).create_time()))

    def _refuse(self, run: Run, error: OSError) -> None:
        self._channel.send(Ended(run.number, 1, f"no process could be started: {error}"))

    def _become_worker(self, ours: socket.socket, theirs: socket.socket, run: Run) -> NoReturn:
        try:
            os.setsid()
            self._waiting.clear()  # with the tokens of others
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._channel.close()
            for held in (ours, *(child.control for child in self._children.values())):
                held.close()
            for fd in (self._wake, self._wakeup):
                os.close(fd)
            worker.main(theirs, run, self._work)
        finally:
            os._exit(1)

    def _release(self) -> None:
        """Let children begin once the executor is sure to hear of them; never if it is gone."""
        self._channel.flush()
        if self._channel.pending:
            return
        for child in self._children.values():
            if not child.released:
                child.released = True
                with suppress(OSError):
                    if self._channel.closed:
                        child.control.shutdown(socket.SHUT_WR)
                    else:
                        child.control.send(worker.GO)

    def _reap(self) -> None:
        for pid, status in _ended_children():
            child = self._children.pop(pid, None)
            if child is None:
                continue
            if status < 0 and pid not in self._kills:
                processes.kill_trees(processes.survivors(pid))
            self._hear(child)
            child.control.close()
            self._tell(_end_of(child, status))


def _end_of(child: _Child, status: int) -> Ended:
    report = worker.read_report(child.said)
    result = report.result
    failing = result.api is worker.Api.FAILING
    return Ended(child.number, status, result.error, result.unanswered, failing, report.began)


def _ended_children() -> list[tuple[int, int]]:
    ended = []
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def _sigchld_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing is written to the pipe
    return read, write


def become(sock: socket.socket, parent: int) -> NoReturn:
    """Turn this fresh fork of the scheduler into its template process."""
    try:
        gc.freeze()  # first: a collection would copy the pages that are shared with the scheduler
        os.setsid()
        _reset_signals()
        processes.release_inherited_streams({sock.fileno()})
        run(sock, parent)
        os._exit(0)
    except BaseException:
        log.exception("The template process failed")
    finally:
        os._exit(1)


def _reset_signals() -> None:
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def run(sock: socket.socket, parent: int) -> None:
    """Be a template process on that socket until the executor is gone and all work is done."""
    channel = Channel(sock)
    messages = channel.receive()
    while not messages and not channel.closed:
        channel.wait()
        messages = channel.receive()
    if not messages:
        return
    setup: Setup = messages.pop(0)
    sys.path[:] = setup.sys_path
    work: Work = pickle.loads(setup.body)
    worker.set_title(f"{work.title}: template")
    _preload(work)
    Template(channel, work, parent).serve(messages)


def _preload(work: Work) -> None:
    for module in work.preload:
        try:
            importlib.import_module(module)
        except Exception:
            log.warning(
                "%s cannot be imported ahead; tasks that need it import it themselves", module, exc_info=True
            )
    try:
        work.warm_up(work.conf)
    except Exception:
        log.warning("The template process could not be warmed up; tasks start a little later", exc_info=True)
    gc.freeze()
    if threading.active_count() > 1:
        names = sorted(thread.name for thread in threading.enumerate())
        log.warning(
            "A module imported ahead has started threads, and tasks are forked beside them: %s", names
        )


if __name__ == "__main__":
    run(socket.socket(fileno=int(sys.argv[1])), os.getppid())
