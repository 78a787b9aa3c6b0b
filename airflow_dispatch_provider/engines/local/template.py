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
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from multiprocessing.connection import wait
from typing import Any, NoReturn

import psutil

from airflow_dispatch_provider.engines.local import processes, worker
from airflow_dispatch_provider.engines.local.channel import BUSY_WAIT, IDLE_WAIT, Channel
from airflow_dispatch_provider.engines.local.children import (
    drain,
    ended_children,
    inherit_orphans,
    leave_sigchld,
    sigchld_pipe,
)
from airflow_dispatch_provider.engines.local.messages import (
    Began,
    DagFile,
    Ended,
    Kill,
    NotStarted,
    Ready,
    Reaped,
    Run,
    Setup,
    Slots,
    Started,
    Withdraw,
    Work,
)
from airflow_dispatch_provider.engines.local.warm import Forked, WarmTemplate, WarmTemplates

log = logging.getLogger(__name__)

_TOGETHER = 0.01
"""Seconds within which an executor has sent all tasks of a file that it starts at a time."""


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


@dataclass(frozen=True)
class _Asked:
    run: Run
    warm: WarmTemplate
    control: socket.socket


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

        self._asked: dict[int, _Asked] = {}
        """To be forked by templates of Dag files, which have not told of them yet."""

        self._warm: WarmTemplates | None = None
        self._files: list[DagFile] = []
        """Of tasks that have come since the last look."""

        self._kills = processes.KillList(time.monotonic)
        self._pipe = sigchld_pipe()
        if work.warm_dags and inherit_orphans():
            forked = Forked(work.title, partial(worker.main, work=work))
            self._warm = WarmTemplates(work.warm_dags, time.monotonic, forked)

    def serve(self, messages: list[Any]) -> None:
        """Work until the executor is gone and the last child has ended."""
        self._channel.send(Ready())
        self._handle(messages)
        self._start_waiting()
        while not self._channel.closed or self._children or self._kills:
            self._release()
            ready = wait(self._sources(), self._patience())
            drain(self._pipe[0])
            for each in ready:
                if isinstance(each, _Child):
                    self._hear(each)
                elif isinstance(each, WarmTemplate):
                    self._hear_warm(each)
            self._handle(self._receive())
            self._reap()
            self._kills.tick()
            if os.getppid() != self._parent and not self._channel.closed:
                self._channel.close()
            self._end_old_templates()
            self._start_waiting()

    def _receive(self) -> list[Any]:
        """News of the executor. The first task of a Dag file waits a moment for others that are sent with it."""
        if self._channel.closed:
            return []
        messages = self._channel.receive()
        files = {message.file for message in messages if isinstance(message, Run) and message.file}
        if self._warm and any(map(self._warm.is_new, files)):
            time.sleep(_TOGETHER)
            messages += self._channel.receive()
        return messages

    def _sources(self) -> list[Any]:
        sources = [self._pipe[0], *(self._warm or ())]
        if self._channel.closed:
            return sources
        return [
            *sources,
            self._channel.fileno(),
            *(each for each in self._children.values() if not each.heard),
        ]

    def _patience(self) -> float:
        channels = [self._channel, *(warm.channel for warm in self._warm or ())]
        return BUSY_WAIT if self._kills or any(each.pending for each in channels) else IDLE_WAIT

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
                if message.file is not None:
                    self._files.append(message.file)
            elif isinstance(message, Slots):
                self._slots = message.number
            else:
                self._take_back(message)

    def _take_back(self, message: Kill | Withdraw) -> None:
        """One that waits is forgotten, whichever it is; of those that have started, Kill alone means anything."""
        asked = self._asked.pop(message.number, None)
        if asked is not None:
            asked.control.close()
        if asked or self._waiting.pop(message.number, None) is not None:
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
        files, self._files = self._files, []
        while files and self._warm and not self._channel.closed:
            self._warm.ask(files.pop(), self._let_go)
        while len(self._children) + len(self._asked) < self._slots and not self._channel.closed:
            numbers = [number for number, run in self._waiting.items() if not self._has_to_wait(run)]
            if not numbers:
                return
            self._start(self._waiting.pop(min(numbers, key=lambda number: self._waiting[number].rank)))

    def _has_to_wait(self, run: Run) -> bool:
        return self._warm is not None and self._warm.parses(run.file)

    def _start(self, run: Run) -> None:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._refuse(run, error)
            return
        with theirs:
            warm = self._warm.of(run.file) if self._warm else None
            if warm is None or not self._ask(warm, run, ours, theirs):
                self._fork(run, ours, theirs)

    def _fork(self, run: Run, ours: socket.socket, theirs: socket.socket) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            self._refuse(run, error)
            return
        if pid == 0:
            self._become_worker(ours, theirs, run)
        theirs.close()  # first: the next line may need its descriptor
        self._enter(Started(run.number, pid, psutil.Process(pid).create_time()), ours)

    def _enter(self, started: Started, control: socket.socket) -> None:
        control.setblocking(False)
        self._children[started.pid] = _Child(started.number, control)
        self._channel.send(started)

    def _refuse(self, run: Run, error: OSError) -> None:
        self._channel.send(Ended(run.number, 1, f"no process could be started: {error}"))

    def _become_worker(self, ours: socket.socket, theirs: socket.socket, run: Run) -> NoReturn:
        try:
            os.setsid()
            ours.close()
            self._let_go()
            worker.main(theirs, run, self._work)
        finally:
            os._exit(1)

    def _let_go(self) -> None:
        """In a fork of this process: of what belongs to this process and its other children."""
        leave_sigchld(self._pipe)
        self._channel.close()
        for child in self._children.values():
            child.control.close()
        for asked in self._asked.values():
            asked.control.close()
        self._waiting.clear()  # with the tokens of others
        self._asked.clear()
        if self._warm:
            self._warm.close()

    # Templates of Dag files

    def _ask(self, warm: WarmTemplate, run: Run, ours: socket.socket, theirs: socket.socket) -> bool:
        """Have it forked by the template of its file; whether that could be asked."""
        try:
            warm.start(run, theirs)
        except OSError as error:
            log.warning("The process that has parsed %s does not answer: %s", warm.file, error)
            self._end_warm(warm)
            return False
        self._asked[run.number] = _Asked(run, warm, ours)
        return True

    def _hear_warm(self, warm: WarmTemplate) -> None:
        assert self._warm is not None
        for message in self._warm.hear(warm):
            if isinstance(message, Reaped):
                self._end(message.pid, message.status)
            elif isinstance(message, Started):
                asked = self._asked.get(message.number)
                if asked and asked.warm is warm:  # else it was taken back, or is asked of another by now
                    del self._asked[message.number]
                    self._enter(message, asked.control)
            else:
                log.info("Tasks of %s parse it themselves for now: %s", warm.file, message.reason)
                self._end_warm(warm)
        if warm.channel.closed:
            self._ask_back(warm)

    def _end_old_templates(self) -> None:
        if self._warm is None:
            return
        for warm in [*self._warm] if self._channel.closed else self._warm.due():
            self._end_warm(warm)

    def _end_warm(self, warm: WarmTemplate) -> None:
        assert self._warm is not None
        self._warm.end(warm)
        self._ask_back(warm)

    def _ask_back(self, warm: WarmTemplate) -> None:
        """Let wait again for what a template was asked that has ended; a process without its socket runs nothing."""
        for number, asked in [*self._asked.items()]:
            if asked.warm is warm:
                del self._asked[number]
                asked.control.close()
                self._waiting[number] = asked.run

    # Ends

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
        ended = ended_children()
        if ended:  # maybe with their template, which told of their start just before
            for warm in self._warm or ():
                self._hear_warm(warm)
        for pid, status in ended:
            self._end(pid, status)

    def _end(self, pid: int, status: int) -> None:
        child = self._children.pop(pid, None)
        if child is None:
            return
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


def become(sock: socket.socket, parent: int) -> NoReturn:
    """Turn this fresh fork of the scheduler into its template process."""
    try:
        leave_parent({sock.fileno()})
        run(sock, parent)
        os._exit(0)
    except BaseException:
        log.exception("The template process failed")
    finally:
        os._exit(1)


def leave_parent(keep: Container[int]) -> None:
    """In a fresh fork: make it a process of its own, with its own session, and without streams and signal handlers.

    :param keep: descriptors of streams that it needs
    """
    gc.freeze()  # first: a collection would copy the pages that are shared with the parent
    os.setsid()
    _reset_signals()
    processes.release_inherited_streams(keep)


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
    preload(work.preload, partial(work.warm_up, work.conf))
    worker.flush_streams()
    Template(channel, work, parent).serve(messages)


def preload(modules: Iterable[str], warm_up: Callable[[], object]) -> None:
    """Do once what no process that is forked from this one then has to do. Raises nothing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:
            log.warning(
                "%s cannot be imported ahead; tasks that need it import it themselves", module, exc_info=True
            )
    try:
        warm_up()
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
