# SPDX-License-Identifier: Apache-2.0
"""Adds to the report of a pod's end what Airflow's database has of the task, off the scheduler's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes.model import Ended

log = logging.getLogger(__name__)

Rows = Mapping[WorkloadKey, Stored]

PAUSE = 2.0
"""Seconds after which a database that has not answered is asked again."""


class Ends:
    """Many ends that come together are looked up together. For the thread of the API calls."""

    def __init__(
        self, look_up: Callable[[Sequence[WorkloadKey]], Rows], report: Callable[[Ended], None]
    ) -> None:
        """
        :param look_up: called on a thread of its own; may raise
        :param report: is given each end, with its row where there is one
        """
        self._look_up, self._report = look_up, report
        self._waiting: list[Ended] = []
        self._work = asyncio.Event()
        self._busy = False

    @property
    def open(self) -> bool:
        """Whether there are ends that have not been reported yet."""
        return self._busy or bool(self._waiting)

    def put(self, ended: Ended) -> None:
        self._waiting.append(ended)
        self._work.set()

    async def run(self) -> None:
        """Goes on until it is cancelled, and then waits for no query: the database may hang."""
        thread = ThreadPoolExecutor(1, "dispatch-kubernetes database")
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                ends, self._waiting = self._waiting, []
                self._busy = True
                await self._report_all(thread, ends)
                self._busy = False
        finally:
            thread.shutdown(wait=False)

    async def _report_all(self, thread: ThreadPoolExecutor, ends: Sequence[Ended]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                rows = await loop.run_in_executor(thread, self._look_up, [ended.key for ended in ends])
                break
            except Exception as error:
                log.warning("%d ends of pods wait for the database: %s", len(ends), error)
                await asyncio.sleep(PAUSE)
        for ended in ends:
            self._report(replace(ended, row=rows.get(ended.key)))
