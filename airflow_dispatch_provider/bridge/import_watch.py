# SPDX-License-Identifier: Apache-2.0
"""Watching code while it is imported: the files that it reads, and what it does to its process; by Python's audit
events, and by looking before and after."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

REACHES_OUT = {
    "socket.connect": "it opened a connection",
    "socket.sendto": "it sent a datagram",
    "subprocess.Popen": "it started a program",
    "os.system": "it started a program",
    "os.posix_spawn": "it started a program",
    "os.fork": "it forked",
    "sqlite3.connect": "it opened an SQLite database",
}
"""Audit events by which what is parsed depends on more than files, or takes something along that cannot be shared."""

_READS = frozenset({"open", "os.listdir", "os.scandir"})
_IMPORT_SYSTEM = ("<frozen importlib", "<frozen zipimport")
_WRITES = os.O_WRONLY | os.O_RDWR
_SET_BY_AIRFLOW = (signal.SIGALRM, signal.SIGSEGV)
"""While it parses."""

_KEPT_BY_THE_KERNEL = ("/dev/", "/proc/", "/sys/")

_current: Watch | None = None
_hooked = False


class Watch:
    """One import, from ``watch`` on: the files and folders that were read, and why its process cannot be forked."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.reasons: list[str] = []
        self.modules: dict[str, ModuleType] = {}
        """Those that were loaded, by name; known afterwards."""

        self.exits: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []
        """Functions given to ``atexit.register``, which were not registered: they are for the process of a task."""

    def refuse(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in REACHES_OUT:
            self.refuse(REACHES_OUT[event])
        elif event in _READS and isinstance(path := args[0] if args else None, str | bytes | os.PathLike):
            writes = event == "open" and isinstance(flags := args[2], int) and flags & _WRITES
            if not writes and not _by_import_system():
                self.read.add(os.path.abspath(os.fsdecode(path)))

    def _note_exit(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Callable[..., object]:
        self.exits.append((function, args, kwargs))
        return function


def _by_import_system() -> bool:
    """Modules are known by ``sys.modules``; the folders in which they are looked for change for many reasons."""
    reader = sys._getframe(3)  # behind the hook, its caller here, and this function
    return reader.f_code.co_filename.startswith(_IMPORT_SYSTEM)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _current is not None:
        _current._hear(event, args)


@contextmanager
def watch() -> Iterator[Watch]:
    """Watch what this process does meanwhile. Once used, it leaves an audit hook that does nothing."""
    global _current, _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    watched = Watch()
    modules = dict(sys.modules)
    handlers, descriptors, folder = _signal_handlers(), _descriptors(), os.getcwd()
    register, atexit.register = atexit.register, watched._note_exit  # type: ignore[assignment]
    _current = watched
    try:
        yield watched
    finally:
        _current = None
        atexit.register = register
    watched.modules = {
        name: module for name, module in sys.modules.items() if modules.get(name) is not module
    }
    watched.read |= set(_files(watched.modules.values()))
    for reason in _left_behind(handlers, descriptors, folder):
        watched.refuse(reason)


def signature(paths: Iterable[str]) -> dict[str, tuple[int, int, int] | None]:
    """Time, size and inode of each; None: it is not there."""
    found: dict[str, tuple[int, int, int] | None] = {}
    for path in paths:
        found[path] = None
        if not path.startswith(_KEPT_BY_THE_KERNEL):
            with suppress(OSError):
                stat = os.stat(path)
                found[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return found


def _files(modules: Iterable[ModuleType]) -> Iterator[str]:
    for module in modules:
        file = getattr(module, "__dict__", {}).get("__file__")  # some modules load others when they are asked
        if isinstance(file, str):
            yield os.path.abspath(file)


def _left_behind(handlers: dict[int, Any], descriptors: set[tuple[str, str]], folder: str) -> Iterator[str]:
    """Reasons for which a fork of this process would not be as good as a new one."""
    for number in _SET_BY_AIRFLOW:
        signal.signal(number, handlers[number] or signal.SIG_DFL)
    if _signal_handlers() != handlers:
        yield "it sets signal handlers"
    if os.getcwd() != folder:
        yield "it changes the working directory"
    opened = {target for _, target in _descriptors() - descriptors if not target.startswith("/dev/")}
    if opened:
        yield f"it left open: {', '.join(sorted(opened)[:3])}"
    if threads := [thread for thread in threading.enumerate() if thread is not threading.main_thread()]:
        yield f"threads run: {', '.join(sorted(thread.name for thread in threads))}"
    elif _native_threads() > 1:
        _fork_once()
        if _native_threads() > 1:
            yield "a library runs threads"


def _signal_handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one by which the folder was read
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def _native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _fork_once() -> None:
    """Libraries that are made for forks end their threads before one, OpenBLAS for example."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
