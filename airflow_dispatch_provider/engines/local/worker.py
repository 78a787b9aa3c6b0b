# SPDX-License-Identifier: Apache-2.0
"""The process that one workload gets: supervises it, and says why if that was not possible."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow_dispatch_provider.engines.local.messages import Run, Work
from airflow_dispatch_provider.engines.local.supervision import shorten_last_wait

log = logging.getLogger(__name__)

MAX_ERROR = 4096
"""Bytes of a result: what a socket takes at once."""

GO = b"g"

_KNOWN = {
    "Invalid auth token": "The scheduler and the API server need the same [api_auth] jwt_secret.",
    "ConnectError": "No API server answers at [core] execution_api_server_url.",
}
"""The remedy for an error that has these words in it; its traceback would only show Airflow's own calls."""


@dataclass(frozen=True)
class Result:
    """The reason for which a workload was not run to its end; empty, where it was."""

    error: str = ""
    unanswered: bool = False
    """See ``messages.Ended``."""

    def encode(self) -> bytes:
        return f"{int(self.unanswered)}{self.error}".encode("utf-8", "replace")[:MAX_ERROR]


def read_result(control: socket.socket) -> Result:
    """Read the result of a process that has ended, as ``main`` sent it; empty where it could send none."""
    with control, suppress(OSError):
        text = control.recv(MAX_ERROR).decode("utf-8", "ignore")
        return Result(text[1:], text.startswith("1"))
    return Result()


def main(control: socket.socket, run: Run, work: Work) -> NoReturn:
    """
    Wait for the word to go, run the workload, exit with 0 or, with the reason sent on ``control``, 1.

    No word comes if the template process ends first. The executor has not heard of this process then
    and starts the workload elsewhere, so it must not run here.
    """
    code = 1
    try:
        if control.recv(len(GO)) == GO:
            result = attempt(run, work)
            code = 1 if result.error else 0
            control.sendall(result.encode())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def attempt(run: Run, work: Work) -> Result:
    """Run the workload."""
    title = f"{work.title}: {run.name}"
    set_title(title)
    name = run.name
    try:
        shorten_last_wait()
        workload = pickle.loads(run.workload)
        name = full_name(workload, name)
        work.runner(workload, work.conf, title)
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, 0):
            return Result()
        remedy = remedy_for(describe(error))
        reason = f"{describe(error).rstrip('.')}. {remedy}" if remedy else describe(error)
        log.error("%s could not be run to its end: %s", name, reason, exc_info=not remedy)
        return Result(reason, _is_unanswered(error))
    return Result()


def _is_unanswered(error: BaseException) -> bool:
    """Whether a server could not be reached, or answered that it cannot answer; told by the names of httpx, or
    of httpx2 (Airflow 3.4), which the Task SDK uses, and by the status of its response."""
    while True:
        clients = [cls.__module__ for cls in type(error).__mro__ if cls.__name__ == "TransportError"]
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if any(name.startswith("httpx") for name in clients) or status >= 500 or status == 429:
            return True
        if error.__cause__ is None:
            return False
        error = error.__cause__


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
