# SPDX-License-Identifier: Apache-2.0
"""The thread that does the database work for which a heartbeat must not wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from airflow_dispatch_provider.bridge import task_instances
from airflow_dispatch_provider.engines.outage import OutageLog
from airflow_dispatch_provider.lifecycle.events import Rows
from airflow_dispatch_provider.lifecycle.states import GONE, Row, RowState
from airflow_dispatch_provider.masking import describe, traceback_of

log = logging.getLogger(__name__)

DATABASE = "The database, as asked beside the scheduler's own work"
"""Names it in the log."""

Ids = Mapping[Hashable, UUID]
"""Task instances by the key of their job."""

_STATES = {
    "queued": RowState.QUEUED,
    "running": RowState.RUNNING,
    "restarting": RowState.RUNNING,
}


class Database(Protocol):
    """Requests of the clerk to the database; each call raises what the database raises."""

    def look_up(self, ids: Ids) -> dict[Hashable, Row]: ...

    def put_back(self, ids: Ids, before: float) -> None:
        """
        :param before: POSIX seconds; what was queued later was queued again
        """
        ...

    def restart(self, ids: Ids) -> None: ...

    def refresh(self, ids: Ids) -> None: ...


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
        state = _STATES.get(str(facts.state), RowState.OVER)
        return Row(state, facts.queued_by_job_id == self._job_id, facts.silent)

    def put_back(self, ids: Ids, before: float) -> None:
        task_instances.reschedule_queued(ids.values(), before, self._job_id)

    def restart(self, ids: Ids) -> None:
        task_instances.restart_silent(ids.values(), self._job_id, self._silence)

    def refresh(self, ids: Ids) -> None:
        task_instances.refresh_queued(ids.values(), self._job_id)


class _Question(NamedTuple):
    kind: str
    asked: int
    ids: Ids
    at: float


class Clerk:
    """Does one thing after another, in the order in which it is asked. What fails is dropped and said once: whoever
    asked asks again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._answers: SimpleQueue[Rows] = SimpleQueue()
        self._outage = OutageLog(log, DATABASE)
        self._thread = threading.Thread(target=self._run, name="dispatch-clerk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Finish what was asked, for so many seconds at most. Harmless when called again."""
        self._questions.put(None)
        self._thread.join(timeout)

    def look_up(self, asked: int, ids: Ids) -> None:
        self._ask("look_up", asked, ids)

    def put_back(self, asked: int, ids: Ids) -> None:
        self._ask("put_back", asked, ids)

    def restart(self, asked: int, ids: Ids) -> None:
        self._ask("restart", asked, ids)

    def refresh(self, ids: Ids) -> None:
        self._ask("refresh", 0, ids)

    def _ask(self, kind: str, asked: int, ids: Ids) -> None:
        self._questions.put(_Question(kind, asked, ids, time.time()))

    def answers(self) -> list[Rows]:
        """Those that have come since; never waits."""
        answers: list[Rows] = []
        while True:
            try:
                answers.append(self._answers.get_nowait())
            except Empty:
                return answers

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                self._answer(question)
                self._outage.over()
            except Exception as error:
                self._outage.failed(f"{question.kind} failed: {describe(error)}", traceback_of(error))

    def _answer(self, question: _Question) -> None:
        if question.kind == "refresh":
            self._database.refresh(question.ids)
            return
        if question.kind == "put_back":
            self._database.put_back(question.ids, question.at)
        elif question.kind == "restart":
            self._database.restart(question.ids)
        self._answers.put(Rows(question.asked, self._database.look_up(question.ids)))
