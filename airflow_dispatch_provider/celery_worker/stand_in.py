# SPDX-License-Identifier: Apache-2.0
"""
The process that runs one workload in place of a process of the pool, and was forked by the template of a Dag file.

It does on a signal what the other one would do, is killed when that ends, and tells it what came of the workload.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from celery.utils.serialization import get_pickleable_exception

from airflow_dispatch_provider.engines.local import worker
from airflow_dispatch_provider.engines.local.children import ending_with_peer
from airflow_dispatch_provider.engines.local.messages import Run
from airflow_dispatch_provider.engines.local.supervision import shorten_last_wait

TITLE = "airflow celery worker"
"""Start of the titles of processes."""


@dataclass(frozen=True)
class Request:
    """A workload that a process of the pool wants to be run in its place."""

    celery_id: str | None
    message: str = field(repr=False)
    """The workload, with its token."""

    handlers: dict[int, Any]
    """Its own of signals, by number."""

    @classmethod
    def of_this_process(cls, celery_id: str | None, message: str) -> Request:
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        return cls(
            celery_id,
            message,
            {n: each for n, each in handlers.items() if each not in (None, signal.SIG_DFL)},
        )


class StandInError(Exception):
    """The traceback of the process that ran the workload, as the cause of the exception that it met."""


@dataclass(frozen=True)
class Outcome:
    """The end of a workload: a value or an exception."""

    value: Any = None
    error: BaseException | None = None
    """The exception that ended it, or the nearest that can be pickled."""

    traceback: str = ""

    @classmethod
    def of(cls, action: Callable[[], Any]) -> Outcome:
        try:
            return cls(value=action())
        except BaseException as error:
            return cls(error=get_pickleable_exception(error), traceback=f"\n{traceback.format_exc()}")

    def result(self) -> Any:
        """Return or raise as the workload did."""
        if self.error is not None:
            raise self.error from StandInError(self.traceback)
        return self.value


def main(control: socket.socket, run: Run, task: Any, body: Callable[[str], Any]) -> NoReturn:
    """
    Wait for the word to go, run the workload, send the outcome on ``control``.

    No word comes if who has asked runs the workload itself by now.

    :param task: Airflow's Celery task
    :param body: Airflow's function for it
    """
    code = 1
    try:
        request: Request = pickle.loads(run.workload)
        for number, handler in request.handlers.items():
            signal.signal(number, handler)
        if control.recv(len(worker.GO)) == worker.GO:
            os.register_at_fork(
                after_in_child=control.close
            )  # its end is to show that this process has ended
            worker.set_title(f"{TITLE}: {run.name}")
            shorten_last_wait()
            with ending_with_peer(control):
                outcome = Outcome.of(partial(_execute, task, body, request))
            worker.flush_streams()
            control.sendall(pickle.dumps(outcome))
            code = 0
    finally:
        worker.flush_streams()
        os._exit(code)


def _execute(task: Any, body: Callable[[str], Any], request: Request) -> Any:
    """As Celery does: Airflow's function asks for the id of the task that runs."""
    task.run = body
    task.push_request(id=request.celery_id)
    return task(request.message)
