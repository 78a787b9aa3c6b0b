# SPDX-License-Identifier: Apache-2.0
"""Looks for the processes of tasks whose scheduler has died, on a thread: there may be thousands on this machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

import psutil

from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.engines.local.processes import TASK_TITLE, title_of
from airflow_dispatch_provider.engines.outage import OutageLog
from airflow_dispatch_provider.masking import LateTraceback, describe

log = logging.getLogger(__name__)

T = TypeVar("T")

_AIRFLOWS_OWN = "airflow worker -- LocalExecutor"
"""Start of the title of a process of Airflow's LocalExecutor, which supervises one task after another."""

_RETRY = 5.0
"""Seconds after which the processes of this machine are listed again, where that has failed."""


class Answer(NamedTuple):
    """One that was looked for."""

    found: Found
    process: psutil.Process | None
    """The process to watch; None: this machine has none."""


class Search:
    """Asked and read from one thread, and looks on another, which lives no longer than it has something to look for."""

    def __init__(self, title: str) -> None:
        """
        :param title: start of the titles of this engine's own processes
        """
        self._title = title
        self._questions: SimpleQueue[tuple[Found, str, float]] = SimpleQueue()
        """With the id of the task instance, and the wall time of the question."""

        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._outage = OutageLog(log, "The list of this machine's processes")
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def ask(self, found: Sequence[Found]) -> None:
        """Each is answered once."""
        for each in found:
            self._questions.put((each, str(getattr(each.ti, "id", None)), time.time()))

    def answers(self) -> list[Answer]:
        """Those that have come since; never waits. Sees to it that somebody looks."""
        idle = self._thread is None or not self._thread.is_alive()
        if idle and not self._questions.empty():
            self._thread = threading.Thread(target=self._run, name="local-adoption", daemon=True)
            self._thread.start()
        return _drain(self._answers)

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while (asked := _drain(self._questions)) and not self._stopped.is_set():
            try:
                processes = supervisors({ti_id: at for _, ti_id, at in asked}, self._title)
            except Exception as error:
                self._outage.failed(describe(error), LateTraceback(error))
                for each in asked:
                    self._questions.put(each)
                self._stopped.wait(_RETRY)
                continue
            self._outage.over()
            for found, ti_id, _ in asked:
                self._answers.put(Answer(found, processes.get(ti_id)))


def supervisors(ids: Mapping[str, float], title: str) -> Mapping[str, psutil.Process]:
    """The live process to watch for each of these task instances that has one here.

    :param ids: with the wall time of the question: one that is younger is that of a later dispatch, here or of another
        scheduler, to which the task has gone meanwhile

    Evidence is the title of a process: that of an engine's process names the task from the start, before it asks for
    leave to start it, and is no other executor's. A task of Airflow's LocalExecutor is known by the titles of its own
    process and of its parent. macOS has no titles, so that nothing is found there.
    """
    ours = {f"{title}: {ti_id}": ti_id for ti_id in ids}
    theirs = {f"{TASK_TITLE}{ti_id}": ti_id for ti_id in ids}
    found: dict[str, psutil.Process] = {}
    tasks: dict[str, psutil.Process] = {}
    for process in _all():
        words = title_of(process)
        ti_id = ours.get(words) or theirs.get(words)
        if ti_id is not None and _is_older(process, ids[ti_id]):
            (found if words in ours else tasks)[ti_id] = process
    return {ti_id: task for ti_id, task in tasks.items() if _is_airflows(task)} | found


def _all() -> Iterable[psutil.Process]:
    for pid in psutil.pids():
        with suppress(psutil.Error):
            yield psutil.Process(pid)


def _is_older(process: psutil.Process, moment: float) -> bool:
    with suppress(psutil.Error):
        return process.create_time() < moment
    return False


def _is_airflows(task: psutil.Process) -> bool:
    with suppress(psutil.Error):
        parent = task.parent()
        return parent is not None and title_of(parent).startswith(_AIRFLOWS_OWN)
    return False


def _drain(queue: SimpleQueue[T]) -> list[T]:
    items: list[T] = []
    with suppress(Empty):
        while True:
            items.append(queue.get_nowait())
    return items
