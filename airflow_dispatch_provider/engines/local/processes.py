# SPDX-License-Identifier: Apache-2.0
"""Process trees: who belongs to one, whether it still lives, how it is ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

TASK_TITLE = "airflow worker -- "
"""Airflow's title of the process in which a task runs, before its id."""

_CLOCK_SLACK = 2.0
"""Seconds by which two readings of one process's start time may differ: the boot time is re-read."""


def find(pid: int, created: float) -> psutil.Process | None:
    """The live process of that pid, unless the pid has been given to another one since ``created``."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) <= _CLOCK_SLACK
    except psutil.Error:
        return None
    return process if same and not has_ended(process) else None


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, a zombie, or its pid belongs to another process by now."""
    try:
        if not process.is_running():
            return True
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
    except psutil.Error:
        return True
    except OSError:
        return False  # it cannot be told now
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # orphans of a template may have become our children
    return True


class Watchlist:
    """Processes by number that are not ours to wait for. Asking costs nothing for those that live, where the kernel has
    descriptors for processes (Linux)."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}
        self._numbers: dict[int, int] = {}
        """By descriptor."""

        self._asked: set[int] = set()
        """Without a descriptor: asked one by one."""

        self._epoll: select.epoll | None = None

    def __len__(self) -> int:
        return len(self._processes)

    def __contains__(self, number: object) -> bool:
        return number in self._processes

    def __iter__(self) -> Iterator[psutil.Process]:
        return iter(self._processes.values())

    def pid(self, number: int) -> int:
        return int(self._processes[number].pid)

    def add(self, number: int, process: psutil.Process) -> None:
        self._processes[number] = process
        descriptor = _descriptor_of(process)
        if descriptor is None:
            self._asked.add(number)
            return
        self._epoll = self._epoll or select.epoll()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._numbers[descriptor] = number

    def take_ended(self) -> list[tuple[int, int]]:
        """Number and pid of those that have ended; they are forgotten."""
        if self._epoll is not None and self._numbers:
            for descriptor, _ in self._epoll.poll(0):
                self._asked.add(self._close(self._epoll, descriptor))
        ended = [number for number in self._asked if has_ended(self._processes[number])]
        self._asked.difference_update(ended)
        return [(number, self._processes.pop(number).pid) for number in ended]

    def _close(self, epoll: select.epoll, descriptor: int) -> int:
        epoll.unregister(descriptor)
        os.close(descriptor)
        return self._numbers.pop(descriptor)

    def clear(self) -> None:
        for descriptor in list(self._numbers):
            if self._epoll is not None:
                self._close(self._epoll, descriptor)
        self._processes.clear()
        self._asked.clear()


def _descriptor_of(process: psutil.Process) -> int | None:
    """Readable once it has ended; None where there is none, or where the pid is another's by now."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    if has_ended(process):
        os.close(descriptor)
        return None
    return descriptor


def tree(pid: int) -> list[psutil.Process]:
    """The process, its descendants, and whoever else is in the session that it leads or led."""
    found = set(_session_members(pid))
    for root in _process(pid):
        found.add(root)
        with suppress(psutil.Error):
            found.update(root.children(recursive=True))
    return list(found)


def survivors(leader: int) -> list[psutil.Process]:
    """
    Who is left of the session of a leader that has ended.

    Nobody, if a live process has that pid: the kernel gives it away only once the session is empty.
    """
    if any(not has_ended(process) for process in _process(leader)):
        return []
    return [process for process in _session_members(leader) if process.pid != leader]


def title_of(process: psutil.Process) -> str:
    """Empty for a zombie, and for what may not be looked at."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def runs_task(pid: int) -> bool:
    """Whether a process that supervises a task runs it: from soon after the Execution API has let it begin, until
    nothing is left but its log. Never on macOS, which has no titles."""
    try:
        process = psutil.Process(pid)
        members = [process, *process.children(recursive=True)]
    except psutil.Error:
        return False
    return any(title_of(each).startswith(TASK_TITLE) for each in members)


def _session_members(leader: int) -> list[psutil.Process]:
    return [member for pid in psutil.pids() if _session(pid) == leader for member in _process(pid)]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _process(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.Error:
        return []


def signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal those that still are who they were."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


@dataclass
class _Terminating:
    deadline: float
    processes: list[psutil.Process]


class KillList:
    """Trees that were asked to end and are killed when their grace is over."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._terminating: dict[int, _Terminating] = {}

    def __contains__(self, pid: object) -> bool:
        return pid in self._terminating

    def __len__(self) -> int:
        return len(self._terminating)

    def add(self, pid: int, grace: float) -> None:
        """SIGTERM to the tree now, SIGKILL after ``grace`` seconds; at once if that is 0."""
        processes = tree(pid)
        if grace > 0:
            signal_all(processes, signal.SIGTERM)
        self._terminating[pid] = _Terminating(self._clock() + grace, processes)
        self.tick()

    def tick(self) -> None:
        """Kill what is due. To be called now and then."""
        now = self._clock()
        for pid in [pid for pid, each in self._terminating.items() if each.deadline <= now]:
            with suppress(OSError):  # out of descriptors, say: once more, later
                kill_trees(self._terminating[pid].processes)
                del self._terminating[pid]


def kill_trees(roots: Iterable[psutil.Process]) -> None:
    """SIGKILL those that still are who they were, with what they have started meanwhile."""
    processes: set[psutil.Process] = set()
    for root in roots:
        with suppress(psutil.Error):
            if root.is_running():
                processes.add(root)
                processes.update(root.children(recursive=True))
    signal_all(processes, signal.SIGKILL)


def end_quickly(processes: list[psutil.Process], grace: float) -> None:
    """SIGTERM, wait at most ``grace`` seconds, SIGKILL the rest."""
    signal_all(processes, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and not all(map(has_ended, processes)):
        time.sleep(0.01)
    kill_trees(processes)


def release_inherited_streams(keep: Container[int]) -> None:
    """
    Let go of every stream socket above standard error, except ``keep``; for a freshly forked process.

    A copy in a process that outlives the scheduler would hold the scheduler's database connection, and
    with it the locks of its transaction, open. The descriptor number stays taken, by /dev/null: an
    object that still has it can then harm no socket that is opened later.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in _open_descriptors():
        if fd > 2 and fd not in keep and fd != null and _is_stream_socket(fd):
            os.dup2(null, fd, inheritable=False)
    os.close(null)


def _open_descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/dev/fd")]


def _is_stream_socket(fd: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            return duplicate.type == socket.SOCK_STREAM
    except OSError:
        return False
