# SPDX-License-Identifier: Apache-2.0
"""The thread that does the database work for which a heartbeat must not wait, and asks whether the Execution API
answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Hashable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from airflow_dispatch_provider.bridge import schedulers, task_instances
from airflow_dispatch_provider.dispatch.api_probe import ApiProbe
from airflow_dispatch_provider.dispatch.worker import DATABASE, Attempts
from airflow_dispatch_provider.lifecycle.events import Broken, Recovered, Rows, Unanswered
from airflow_dispatch_provider.lifecycle.states import GONE, Row, row_of

log = logging.getLogger(__name__)

API = "The question whether the Execution API answers"

Ids = Mapping[Hashable, UUID]
"""Task instances by the key of their job."""

_NO_ROWS = ("refresh", "living", "api")
"""Questions that are not answered by rows."""


class Database(Protocol):
    """Requests of the clerk to the database; each call raises what the database raises."""

    def look_up(self, ids: Ids) -> dict[Hashable, Row]: ...

    def put_back(self, ids: Ids, before: float) -> None:
        """
        :param before: POSIX seconds; what was queued later was queued again
        """
        ...

    def restart(self, ids: Ids) -> None: ...

    def unstart(self, ids: Ids) -> None: ...

    def refresh(self, ids: Ids) -> None: ...

    def living(self) -> Collection[str]:
        """Ids of the schedulers that live, this one's among them."""
        ...


class AirflowDatabase:
    """Airflow's own, for one scheduler."""

    def __init__(self, job_id: Any, silence: float) -> None:
        """
        :param job_id: the scheduler's, as its executor knows it
        :param silence: seconds after which a process that sends no heartbeat is dead
        """
        self._job_id, self._silence = job_id, silence

    def look_up(self, ids: Ids) -> dict[Hashable, Row]:
        facts = task_instances.row_facts(ids.values())
        return {key: self._row(facts.get(UUID(str(ti_id)))) for key, ti_id in ids.items()}

    def _row(self, facts: task_instances.RowFacts | None) -> Row:
        if facts is None:
            return GONE
        mine = facts.queued_by_job_id == self._job_id
        return row_of(str(facts.state), mine, facts.silent, facts.is_here)

    def put_back(self, ids: Ids, before: float) -> None:
        task_instances.reschedule_queued(ids.values(), before, self._job_id)

    def restart(self, ids: Ids) -> None:
        task_instances.restart_silent(ids.values(), self._job_id, self._silence)

    def unstart(self, ids: Ids) -> None:
        task_instances.unstart_silent(ids.values(), self._job_id, self._silence)

    def refresh(self, ids: Ids) -> None:
        task_instances.refresh_queued(ids.values(), self._job_id)

    def living(self) -> set[str]:
        return schedulers.living() | {str(self._job_id)}


Answer = Rows | Unanswered | Recovered | Broken


class _Question(NamedTuple):
    kind: str
    asked: int
    ids: Ids
    at: float


class Clerk:
    """Does what it is asked, in order. Questions that have waited are put as one, after what was to be changed. What
    fails is dropped and said once: whoever asked asks again."""

    def __init__(self, database: Database, api: ApiProbe) -> None:
        self._database, self._api = database, api
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._living: SimpleQueue[Collection[str]] = SimpleQueue()
        self._try = Attempts(log, lambda kind: API if kind == "api" else DATABASE % kind).attempt
        self._thread = threading.Thread(target=self._run, name="dispatch-clerk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Finish what was asked, for so many seconds at most. Harmless when called again, or before the start."""
        self._questions.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def look_up(self, asked: int, ids: Ids) -> None:
        self._ask("look_up", asked, ids)

    def put_back(self, asked: int, ids: Ids) -> None:
        self._ask("put_back", asked, ids)

    def restart(self, asked: int, ids: Ids) -> None:
        self._ask("restart", asked, ids)

    def unstart(self, asked: int, ids: Ids) -> None:
        self._ask("unstart", asked, ids)

    def refresh(self, ids: Ids) -> None:
        self._ask("refresh", 0, ids)

    def ask_living(self) -> None:
        """Ask which schedulers live."""
        self._ask("living", 0, {})

    def ask_api(self) -> None:
        """Ask whether the Execution API answers."""
        self._ask("api", 0, {})

    def _ask(self, kind: str, asked: int, ids: Ids) -> None:
        self._questions.put(_Question(kind, asked, ids, time.time()))

    def answers(self) -> list[Answer]:
        """Those that have come since; never waits."""
        answers: list[Answer] = []
        while True:
            try:
                answers.append(self._answers.get_nowait())
            except Empty:
                return answers

    def take_living(self) -> Collection[str] | None:
        """The answer to ``ask_living``, once; None: it has not come."""
        return None if self._living.empty() else self._living.get_nowait()

    def _run(self) -> None:
        going = True
        while going:
            self._try("api", self._api.learn)
            waiting, going = self._wait()
            self._work(waiting)

    def _wait(self) -> tuple[list[_Question], bool]:
        """All that has been asked by now, and whether more may come."""
        waiting: list[_Question] = []
        question = self._questions.get()
        while question is not None:
            waiting.append(question)
            try:
                question = self._questions.get_nowait()
            except Empty:
                return waiting, True
        return waiting, False

    def _work(self, waiting: list[_Question]) -> None:
        for each in waiting:
            if each.kind == "put_back":
                self._try(each.kind, partial(self._database.put_back, each.ids, each.at))
            elif each.kind == "restart":
                self._try(each.kind, partial(self._database.restart, each.ids))
            elif each.kind == "unstart":
                self._try(each.kind, partial(self._database.unstart, each.ids))
        refreshed = {
            key: ti_id for each in waiting if each.kind == "refresh" for key, ti_id in each.ids.items()
        }
        if refreshed:
            self._try("refresh", lambda: self._database.refresh(refreshed))
        # Before the rows that are judged by its answer.
        if any(each.kind == "api" for each in waiting):
            self._try("api", self._ask_api)
        questions = [each for each in waiting if each.kind not in _NO_ROWS]
        if questions and not self._try("look_up", lambda: self._look_up(questions)):
            for each in questions:
                for key in each.ids:
                    self._answers.put(Unanswered(each.asked, key))
        if any(each.kind == "living" for each in waiting):
            self._try("living", lambda: self._living.put(self._database.living()))

    def _ask_api(self) -> None:
        if (news := self._api.ask()) is not None:
            self._answers.put(news)

    def _look_up(self, questions: list[_Question]) -> None:
        """One answer for each key, to the last question about it: an answer is a witness once."""
        last = {key: each.asked for each in questions for key in each.ids}
        found = self._database.look_up({key: ti_id for each in questions for key, ti_id in each.ids.items()})
        for each in questions:
            rows = {key: found[key] for key in each.ids if last[key] == each.asked and key in found}
            self._answers.put(Rows(each.asked, rows))
