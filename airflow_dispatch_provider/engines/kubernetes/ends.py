# SPDX-License-Identifier: Apache-2.0
"""Questions and orders to Airflow's database, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes.model import Ended, Over, PutBack, Report
from airflow_dispatch_provider.engines.kubernetes.overdue import Overdue
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

T = TypeVar("T")

Rows = Mapping[WorkloadKey, Stored]

PAUSE = 2.0
"""Seconds after which a database that has not answered is asked again."""

LOOK = 20.0
"""Seconds between two looks at the rows of all tasks that are waited for."""


@dataclass(frozen=True)
class Database:
    """Calls into Airflow's database. The last two may take long, and may raise; each is made on a thread of its own."""

    waited_for: Callable[[], Collection[WorkloadKey]]
    """The tasks whose end the executor waits for; asks nobody."""

    stored: Callable[[Sequence[WorkloadKey]], Rows]
    """Look up the rows of these tasks."""

    put_back: Callable[[Sequence[WorkloadKey]], None]
    """Has those scheduled again, in place, that are queued by this scheduler."""


class Ends:
    """Many questions that come together are asked together. For the thread of the API calls."""

    def __init__(
        self,
        database: Database,
        report: Callable[[Report], None],
        has_started: Callable[[WorkloadKey], bool],
    ) -> None:
        """
        :param report: is given each end, with its row where there is one
        :param has_started: whether a pod of the task is there, and its container is known to have started
        """
        self._database, self._report, self._has_started = database, report, has_started
        self._waiting: list[Ended] = []
        self._to_put_back: list[WorkloadKey] = []
        self._work = asyncio.Event()
        self._busy = False
        self._thread: ThreadPoolExecutor | None = None
        self._overdue = Overdue()

    @property
    def open(self) -> bool:
        """Whether there are ends that have not been reported yet."""
        return self._busy or bool(self._waiting) or bool(self._to_put_back)

    def put(self, ended: Ended) -> None:
        self._waiting.append(ended)
        self._work.set()

    def put_again(self, ended: Ended) -> None:
        """Its row is looked up once more, a while later."""
        asyncio.get_running_loop().call_later(PAUSE, self.put, ended)

    def put_back(self, key: WorkloadKey) -> None:
        """Reports ``PutBack`` when that is done."""
        self._to_put_back.append(key)
        self._work.set()

    async def run(self) -> None:
        """Goes on until it is cancelled, and then waits for no query: the database may hang."""
        self._thread = ThreadPoolExecutor(1, "dispatch-kubernetes database")
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                self._busy = True
                await self._look_up()
                await self._give_back()
                self._busy = False
        finally:
            self._thread.shutdown(wait=False)

    async def look_now_and_then(self) -> None:
        """Finds tasks that are over in Airflow while their pods have not been seen to end. Goes on until it is
        cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            keys = list(self._database.waited_for())
            if not keys or self._thread is None:
                continue
            try:
                rows = await self._ask(lambda keys=keys: self._database.stored(keys))  # type: ignore[misc]
            except Exception as error:
                log.warning("The rows of %d tasks cannot be looked up: %s", len(keys), describe(error))
                continue
            for key in self._overdue.find(time.monotonic(), keys, rows, self._has_started):
                self._report(Over(key, rows[key].state if key in rows else None))

    async def _look_up(self) -> None:
        ends, self._waiting = self._waiting, []
        if ends:
            keys = [ended.key for ended in ends]
            rows = await self._until_done("look up", lambda: self._database.stored(keys), keys)
            for ended in ends:
                self._report(replace(ended, row=rows.get(ended.key)))

    async def _give_back(self) -> None:
        keys, self._to_put_back = self._to_put_back, []
        if keys:
            await self._until_done("put back", lambda: self._database.put_back(keys), keys)
            for key in keys:
                self._report(PutBack(key))

    async def _until_done(self, what: str, call: Callable[[], T], keys: Sequence[WorkloadKey]) -> T:
        while True:
            try:
                return await self._ask(call)
            except Exception as error:
                log.warning("The database cannot %s %d tasks now: %s", what, len(keys), describe(error))
                await asyncio.sleep(PAUSE)

    def _ask(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call)
