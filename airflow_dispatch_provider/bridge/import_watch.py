# SPDX-License-Identifier: Apache-2.0
"""Watching code while it is imported: the files that it reads, and what it does to its process; by Python's audit
events, and by looking before and after."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import source_from_cache
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

Signature = tuple[int, int, int, int]
"""Times of the last change of content and of anything, size, inode."""

_current: Watch | None = None
_hooked = False


class Watch:
    """One import, from ``watch`` on: the files and folders that were read, and why its process cannot be forked."""

    def __init__(self) -> None:
        self.read: dict[str, Signature | None] = {}
        """As they were before they were read first: what changes during the import is out of date at once."""

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
            imports = _by_import_system()
            if not writes and not (imports and event != "open"):
                self.note(_source(os.fsdecode(path)) if imports else os.fsdecode(path))

    def note(self, path: str) -> None:
        """It is read now, unless it was before."""
        path = os.path.abspath(path)
        if path not in self.read:
            self.read[path] = _sign(path)

    def _note_exit(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Callable[..., object]:
        self.exits.append((function, args, kwargs))
        return function


def _by_import_system() -> bool:
    """The folders in which it looks for modules change for many reasons; what it opens counts as for anybody."""
    reader = sys._getframe(3)  # behind the hook, its caller here, and this function
    return reader.f_code.co_filename.startswith(_IMPORT_SYSTEM)


def _source(path: str) -> str:
    """For a module's compiled file, which may be written anew for many reasons, its source."""
    try:
        return source_from_cache(path) if path.endswith(".pyc") else path
    except ValueError:
        return path


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
    descriptors, state = _descriptors(), {reason: look() for reason, look in _STATE.items()}
    register, atexit.register = atexit.register, watched._note_exit  # type: ignore[assignment]  # generic, which mypy cannot tell of a method
    _current = watched
    try:
        yield watched
    finally:
        _current = None
        atexit.register = register
    watched.modules = {
        name: module for name, module in sys.modules.items() if modules.get(name) is not module
    }
    for path in _files(watched.modules.values()):
        watched.note(path)
    for reason in _left_behind(descriptors, state):
        watched.refuse(reason)


def signature(paths: Iterable[str]) -> dict[str, Signature | None]:
    """Of each; None: it is not there."""
    return {path: _sign(path) for path in paths}


def _sign(path: str) -> Signature | None:
    if not path.startswith(_KEPT_BY_THE_KERNEL):
        with suppress(OSError, ValueError):
            stat = os.stat(path)
            return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
    return None


def _files(modules: Iterable[ModuleType]) -> Iterator[str]:
    for module in modules:
        file = getattr(module, "__dict__", {}).get("__file__")  # some modules load others when they are asked
        if isinstance(file, str):
            yield os.path.abspath(file)


def _left_behind(descriptors: set[tuple[str, str]], state: dict[str, Any]) -> Iterator[str]:
    """Reasons for which a fork of this process would not be as good as a new one."""
    for number in _SET_BY_AIRFLOW:
        signal.signal(number, state[_SETS_HANDLERS][number] or signal.SIG_DFL)
    for reason, look in _STATE.items():
        if look() != state[reason]:
            yield reason
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


def _umask() -> int:
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def _limits() -> dict[str, tuple[int, int]]:
    names = [name for name in vars(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def _replaceable() -> tuple[Any, ...]:
    """Names that gevent and its like replace first."""
    return socket.socket, time.sleep, os.fork


def _shared_memory() -> set[str]:
    """Mappings that forks of this process have in common with it, such as locks of ``multiprocessing``."""
    with open("/proc/self/maps", errors="replace") as maps:
        return {line for line in maps if line.split(" ", 2)[1] == "rw-s"}


_SETS_HANDLERS = "it sets signal handlers"
_STATE: dict[str, Callable[[], Any]] = {
    _SETS_HANDLERS: _signal_handlers,
    "it changes the working directory": os.getcwd,
    "it sets the default timeout of sockets": socket.getdefaulttimeout,
    "it sets the umask": _umask,
    "it sets limits of its process": _limits,
    "it replaces functions of Python": _replaceable,
    "it has memory that all its tasks would share": _shared_memory,
}
"""How to look at what a process passes on to its forks, also to supervisors, and the reason if that has changed."""


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
