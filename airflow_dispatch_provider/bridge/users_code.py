# SPDX-License-Identifier: Apache-2.0
"""Code and commands of users that run at the scheduler's start or in ``airflow dispatch``: how long they may take, and
what they may not end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException

from airflow_dispatch_provider.bridge.slow_failures import SlowFailures
from airflow_dispatch_provider.exceptions import EndsProcess, TookTooLong

NOTICE = 10.0
"""Seconds until it is said what is waited for, or a quarter of what it may take."""

_LIMIT = 30.0
"""Airflow's default of that option."""

_OURS = 120.0
"""Seconds for modules that are no users'."""

log = logging.getLogger(__name__)

_too_slow: dict[str, Exception] = {}
"""Modules that were given up on. Each try would take as long again, on the scheduler's thread."""

_slow = SlowFailures()
_slow_failed: dict[str, Exception] = {}
"""Modules that have raised, by name; each is tried again, but not before ``_slow`` says so."""

_failed: ContextVar[dict[str, Exception] | None] = ContextVar("_failed", default=None)
"""Modules that have raised; None: each is tried again, as a scheduler does."""


class _Interrupt(BaseException):
    """Passes the ``except Exception`` of the code that is interrupted."""


def limit() -> float:
    """Seconds that code of a user's may take: what Airflow gives the file of a Dag; 0 is no limit."""
    try:
        return conf.getfloat("core", "dagbag_import_timeout", fallback=_LIMIT)
    except (AirflowConfigException, ValueError):
        return _LIMIT


@contextmanager
def bounded(what: str, seconds: float | None = None) -> Iterator[None]:
    """Say after a while what is waited for, and interrupt it where it takes too long. Only the main thread can be
    interrupted, and native code not before it returns to the interpreter.

    :param what: in words, e.g. ``the import of my_company.celery``
    :param seconds: None: see ``limit``; 0: no limit
    :raises TookTooLong: it was interrupted
    :raises EndsProcess: in place of a SystemExit that is no answer to a signal
    """
    seconds = limit() if seconds is None else seconds
    most = f"{seconds:g} s" if seconds else "none"
    notice = threading.Timer(max(NOTICE, seconds / 4), _say, [what, most])
    notice.daemon = True
    interrupt = _Interrupt()
    notice.start()
    try:
        with _raised_after(seconds, interrupt):
            yield
    except BaseException as error:
        if error is interrupt:
            raise TookTooLong(what, seconds) from None
        if isinstance(error, Exception | _Interrupt) or is_for_the_process(error):
            raise
        raise EndsProcess(type(error).__name__).with_traceback(error.__traceback__) from None
    finally:
        notice.cancel()
        notice.join(1.0)  # executors fork


def bounded_executor(backend: str) -> AbstractContextManager[None]:
    """``bounded`` for the making and the checks of a backend's executor, within which it may import a module."""
    return bounded(f"the executor of the backend {backend!r}", 2 * limit())


@contextmanager
def _raised_after(seconds: float, interrupt: BaseException) -> Iterator[None]:
    """By the timer of the process, whose other user has it back afterwards, and keeps it where it is due earlier."""
    due, _ = signal.getitimer(signal.ITIMER_REAL)
    on_main = threading.current_thread() is threading.main_thread()
    if not seconds or not on_main or 0 < due <= seconds:
        yield
        return

    def handler(*args: Any) -> None:
        raise interrupt

    before = signal.signal(signal.SIGALRM, handler)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if delay:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, delay - seconds + left), interval)


def _say(what: str, most: str) -> None:
    """In the log, or on stderr in a command of Airflow's, where logging is off."""
    if log.isEnabledFor(logging.WARNING):
        log.warning("Waiting for %s (limit: %s).", what, most)
    else:
        print(f"Waiting for {what} (limit: {most}).", file=sys.stderr)


@contextmanager
def imported_once() -> Iterator[None]:
    """Around a command, which asks for the same executors in several places: what fails to be imported is not tried
    again."""
    token = _failed.set({})
    try:
        yield
    finally:
        _failed.reset(token)


def import_users_module(name: str) -> ModuleType:
    """Import it, as ``bounded`` has it; raises whatever it raises.

    :raises TookTooLong: it takes too long, or has taken too long before in this process
    """
    if name in sys.modules:
        return import_module(name)
    failed = _failed.get()
    rests = None if _slow.may_try(name) else _slow_failed.get(name)
    if error := _too_slow.get(name) or (failed or {}).get(name) or rests:
        raise error.with_traceback(None)
    # Modules of Airflow's and of this package are no users', but run the commands that give options of Airflow's.
    least = _OURS if name.partition(".")[0] in ("airflow", "airflow_dispatch_provider") else 0
    try:
        with _slow.timed(name), bounded(f"the import of {name}", limit() and max(limit(), least)):
            return import_module(name)
    except TookTooLong as error:
        _too_slow[name] = error
        raise
    except Exception as error:
        _slow_failed[name] = error
        if failed is not None:
            failed[name] = error
        raise


def import_users_object(path: str) -> Any:
    """The object at an import path, None where its module has nothing of that name. Raises as ``import_users_module``:
    a module may import what it has on demand."""
    module_name, _, name = path.rpartition(".")
    module = import_users_module(module_name)
    with bounded(f"the import of {path}"):
        return getattr(module, name, None)


def error_of(action: Callable[[], object]) -> BaseException | None:
    """The error that an action raises, unless that is to end the process: then it is raised."""
    try:
        action()
    except BaseException as error:
        if is_for_the_process(error):
            raise
        return error
    return None


def is_for_the_process(error: BaseException) -> bool:
    """Whether it is meant to end the process: Ctrl-C, or what the handler of a signal raises. Any other SystemExit is a
    fault of the code that it comes from."""
    if isinstance(error, KeyboardInterrupt):
        return True
    if isinstance(error, Exception):
        return False
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _code_of(handler: Any) -> Any:
    return getattr(getattr(handler, "__func__", handler), "__code__", None)
