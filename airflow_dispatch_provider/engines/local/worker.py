# SPDX-License-Identifier: Apache-2.0
"""The process that one workload gets: supervises it, and says why if that was not possible."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from airflow_dispatch_provider.engines.local.messages import Run, Work
from airflow_dispatch_provider.engines.local.supervision import report_start, shorten_last_wait

log = logging.getLogger(__name__)

MAX_ERROR = 4096
"""Bytes of a result: what a socket takes at once."""

GO = b"g"
"""The template process lets this one begin."""

ASKED, BEGUN = b"a", b"b"
"""This process has asked the Execution API whether its task may start; its workload has begun."""

_AWAY = frozenset({429, 502, 503})
"""HTTP statuses with which a server, or what stands before it, says that it answers nobody at the moment."""

_NO_WAY = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})
"""Errors of a client that has not even reached a server; after any other one, others may well be answered."""

_KNOWN = {
    "Invalid auth token": "The scheduler and the API server need the same [api_auth] jwt_secret.",
    "ConnectError": "No API server answers at [core] execution_api_server_url.",
}
"""The remedy for an error that has these words in it; its traceback would only show Airflow's own calls."""


class Api(Enum):
    """The state of the Execution API, as an error tells it, in one digit."""

    NOTHING = "0"
    AWAY = "1"
    """It answers nobody at the moment."""

    FAILING = "2"
    """It has answered with an error of its own (HTTP 500), or was reached and gave this request no answer."""

    REFUSED = "3"
    """It has answered, and the answer is no (HTTP 409, 403 ...)."""


@dataclass(frozen=True)
class Result:
    """The reason for which a workload was not run to its end; empty, where it was."""

    error: str = ""
    api: Api = Api.NOTHING

    def encode(self) -> bytes:
        return f"{self.api.value}{self.error}".encode("utf-8", "replace")[:MAX_ERROR]

    @property
    def unanswered(self) -> bool:
        """See ``messages.Ended``."""
        return self.api in (Api.AWAY, Api.FAILING)


@dataclass(frozen=True)
class Report:
    """All that a process has said of its workload."""

    asked: bool = False
    begun: bool = False
    result: Result = Result()

    @property
    def began(self) -> bool | None:
        """See ``messages.Ended``."""
        if self.begun:
            return True
        return None if self.asked and self.result.api is not Api.REFUSED else False


def read_report(said: bytes) -> Report:
    """Read what ``main`` has sent so far; the result comes last, and in one piece."""
    text = said.decode("utf-8", "ignore")
    result = text.lstrip((ASKED + BEGUN).decode())
    marks = text[: len(text) - len(result)].encode()
    return Report(ASKED in marks, BEGUN in marks, Result(result[1:], Api(result[:1] or "0")))


def main(control: socket.socket, run: Run, work: Work) -> NoReturn:
    """
    Wait for the word to go, run the workload, exit with 0 or, with the reason sent on ``control``, 1.

    No word comes if the template process ends first. The executor has not heard of this process then
    and starts the workload elsewhere, so it must not run here.
    """
    code = 1
    try:
        if control.recv(len(GO)) == GO:
            tell = _teller(control)
            report_start(lambda: tell(ASKED), lambda: tell(BEGUN))
            result = attempt(run, work, lambda: tell(BEGUN))
            code = 1 if result.error else 0
            tell(result.encode())
    finally:
        flush_streams()
        os._exit(code)


def flush_streams() -> None:
    """Before a fork, too: what is still buffered would be written by both processes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _teller(control: socket.socket) -> Callable[[bytes], None]:
    """Sends to the template process, and is silent where that has ended: its workload goes on."""

    def tell(said: bytes) -> None:
        with suppress(OSError):
            control.sendall(said)

    return tell


def attempt(run: Run, work: Work, begins: Callable[[], object] = lambda: None) -> Result:
    """Run the workload.

    :param begins: called for a workload that needs nobody's leave to start
    """
    title = f"{work.title}: {run.name}"
    set_title(title)
    name = run.name
    try:
        shorten_last_wait()
        workload = pickle.loads(run.workload)
        name = full_name(workload, name)
        if getattr(workload, "ti", None) is None:
            begins()
        work.runner(workload, work.conf, title)
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, 0):
            return Result()
        remedy = remedy_for(describe(error))
        reason = f"{describe(error).rstrip('.')}. {remedy}" if remedy else describe(error)
        log.error("%s could not be run to its end: %s", name, reason, exc_info=not remedy)
        return Result(reason, _said_by(error))
    return Result()


def _said_by(error: BaseException) -> Api:
    """Told by the names of httpx, or of httpx2 (Airflow 3.4), which the Task SDK uses, and by the status of its
    response."""
    cause: BaseException | None = error
    while cause is not None:
        client = {cls.__name__ for cls in type(cause).__mro__ if cls.__module__.startswith("httpx")}
        status = getattr(getattr(cause, "response", None), "status_code", 0)
        if "TransportError" in client:
            return Api.AWAY if client & _NO_WAY else Api.FAILING
        if status in _AWAY:
            return Api.AWAY
        if status >= 400:
            return Api.FAILING if status >= 500 else Api.REFUSED
        cause = cause.__cause__
    return Api.NOTHING


def full_name(workload: Any, name: str) -> str:
    """A task by its Dag, run and try, which its log and the UI go by; anything else by its short name."""
    ti = getattr(workload, "ti", None)
    if ti is None:
        return name
    index = "" if ti.map_index in (None, -1) else f"[{ti.map_index}]"
    return f"Task {ti.dag_id}.{ti.task_id}{index} of run {ti.run_id}, try {ti.try_number}, id {name},"


def describe(error: BaseException) -> str:
    """The exception in one line of text, whatever its own ``str`` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def remedy_for(reason: str) -> str:
    """The remedy for an error that a new deployment meets first; empty for any other."""
    return next((remedy for words, remedy in _KNOWN.items() if words in reason), "")


def set_title(title: str) -> None:
    """Show ``title`` in the process list; not on macOS, where that is not safe after a fork."""
    if sys.platform != "darwin":
        from setproctitle import setproctitle

        setproctitle(title)
