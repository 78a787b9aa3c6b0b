# SPDX-License-Identifier: Apache-2.0
"""The body of Airflow's Celery task, in a process of the pool: has the workload run by a fork of the process that has
parsed its Dag file, or runs it itself."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import psutil

from airflow_dispatch_provider.bridge.dag_parsing import dag_file_of
from airflow_dispatch_provider.celery_worker.stand_in import Outcome, Request
from airflow_dispatch_provider.engines.local import processes, worker
from airflow_dispatch_provider.engines.local.channel import BUSY_WAIT, Channel
from airflow_dispatch_provider.engines.local.messages import DagFile, Run, Started

log = logging.getLogger(__name__)

ANSWERS_WITHIN = 90.0
"""Seconds for the answer: a parse, and then a fork, may take 30 each until the template process gives them up."""

LEFT_ALONE_FOR = 600.0
"""Seconds for which a template process that has not answered is not asked."""

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals by which Celery and Airflow end or interrupt a task, where they have a handler for them."""


class WarmBody:
    """Called by Celery like Airflow's function, and ends as that would."""

    def __init__(self, address: str, task: Any) -> None:
        """
        :param address: of the template process
        :param task: Airflow's Celery task, with Airflow's function as its body
        """
        self._address, self._task, self._body = address, task, task.run
        self._left_alone_until = 0.0

    def __call__(self, message: str) -> Any:
        stand_in = self._ask(message)
        return self._body(message) if stand_in is None else stand_in.result()

    def _ask(self, message: str) -> StandIn | None:
        file = dag_file_of(message)
        if file is None or time.monotonic() < self._left_alone_until:
            return None
        celery_id = self._task.request.id
        try:
            request = pickle.dumps(Request.of_this_process(celery_id, message))
            return ask(self._address, Run(0, f"task {celery_id}", request, file=DagFile(*file)))
        except (
            OSError,
            pickle.PicklingError,
            AttributeError,
            TypeError,
        ) as error:  # of pickle: the last three
            if isinstance(error, TimeoutError):
                self._left_alone_until = time.monotonic() + LEFT_ALONE_FOR
            log.warning("[%s] The task parses its Dag file itself: %s", celery_id, worker.describe(error))
            return None


class StandIn:
    """A process that was forked for a workload, and waits for the word to go."""

    def __init__(self, control: socket.socket, process: psutil.Process) -> None:
        self._control, self._process = control, process

    def result(self) -> Any:
        """Let it go, and wait for its end; returns or raises what the workload did, and ends as it does."""
        with self._control, forwarding(self._process) as forwarded:
            said = bytearray()
            with suppress(ConnectionError):
                self._control.sendall(worker.GO)
                while chunk := self._control.recv(worker.MAX_ERROR):
                    said += chunk
        outcome = _read(said)
        if forwarded and (outcome is None or isinstance(outcome.error, SystemExit)):
            signal.raise_signal(forwarded[-1])
        return self._die() if outcome is None else outcome.result()

    def _die(self) -> None:
        """As this process would have been killed; the worker's main process notices, and says so."""
        log.error("The process %d, which ran the task, was killed; so this one ends, too", self._process.pid)
        worker.flush_streams()
        os.kill(os.getpid(), signal.SIGKILL)


def _read(said: bytearray) -> Outcome | None:
    """None: it did not come to its end."""
    try:
        return pickle.loads(said)  # type: ignore[no-any-return]
    except (EOFError, pickle.UnpicklingError):
        return None


def ask(address: str, run: Run) -> StandIn | None:
    """Ask the template process for a fork of the process that has parsed the file; None: there is none.

    :raises OSError: it cannot be asked, or does not answer
    """
    deadline = time.monotonic() + ANSWERS_WITHIN
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(ANSWERS_WITHIN)
        asked.connect(address)
        if not is_own(asked):
            raise PermissionError("the template process is that of another user")
        socket.send_fds(asked, [b"c"], [theirs.fileno()])
        answer = _answer(asked, run, deadline)
        process = processes.find(answer.pid, answer.created) if isinstance(answer, Started) else None
        return StandIn(ours.dup(), process) if process else None


def _answer(asked: socket.socket, run: Run, deadline: float) -> Any:
    channel = Channel(asked)
    channel.send(run)
    while not (answers := channel.receive()):
        if channel.closed:
            raise ConnectionResetError("the template process has ended")
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the template process does not answer")
        channel.wait(BUSY_WAIT if channel.pending else left)
        channel.flush()
    return answers[0]


def is_own(connection: socket.socket) -> bool:
    """Whether a process of the same user is at its other end: everybody may connect to, or take, such an address."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())


@contextmanager
def forwarding(process: psutil.Process) -> Iterator[list[int]]:
    """Meanwhile, send that process the signals that this one handles or ignores; gives those that have come."""
    came: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        came.append(number)
        with suppress(psutil.Error):
            process.send_signal(number)

    before = {number: signal.getsignal(number) for number in FORWARDED}
    handled = {n: each for n, each in before.items() if each not in (None, signal.SIG_DFL)}
    try:
        for number in handled:
            signal.signal(number, forward)
        yield came
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
