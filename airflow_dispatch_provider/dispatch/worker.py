# SPDX-License-Identifier: Apache-2.0
"""Threads of the dispatch loop that outlive whatever they are asked to do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from airflow_dispatch_provider.engines.outage import OutageLog
from airflow_dispatch_provider.masking import LateTraceback, describe

DATABASE = "The database, as asked beside the scheduler's own work (%s)"
"""Names a kind of questions in the log."""


class Attempts:
    """Things that are tried again and again, of some kinds: one kind may fail for as long as the others succeed."""

    def __init__(self, log: logging.Logger, name: Callable[[str], str] = DATABASE.__mod__) -> None:
        """
        :param name: of a kind, in the log
        """
        self._log, self._name = log, name
        self._outages: dict[str, OutageLog] = {}

    def attempt(self, kind: str, call: Callable[[], None]) -> bool:
        """Whether it could be done; said once, until it can. Whatever a driver or a hook raises, the thread lives
        on."""
        try:
            call()
        except BaseException as error:
            outage = self._outages.setdefault(kind, OutageLog(self._log, self._name(kind)))
            outage.failed(describe(error), LateTraceback(error))
            return False
        if (over := self._outages.get(kind)) is not None:
            over.over()
        return True


class Worker:
    """A thread that does what it is asked, in order. It begins when it is asked first, and ends with the process:
    nothing that it does has to be done."""

    def __init__(self, name: str, log: logging.Logger) -> None:
        """
        :param name: of the thread
        """
        self._asked: SimpleQueue[tuple[str, Callable[[], None]]] = SimpleQueue()
        self._attempts = Attempts(log)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def do(self, kind: str, call: Callable[[], None]) -> None:
        """Do it after what else was asked; never waits. For one thread.

        :param kind: names it in the log
        """
        if self._thread.ident is None:
            self._thread.start()
        self._asked.put((kind, call))

    def _run(self) -> None:
        while True:
            self._attempts.attempt(*self._asked.get())
