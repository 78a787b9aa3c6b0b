# SPDX-License-Identifier: Apache-2.0
"""Backends that cost next to nothing: what is measured over them is the router's share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.executors.standalone import Standalone
from airflow_dispatch_provider.lifecycle.events import Ended, Room, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import InMemoryExecutor


class InMemoryEngine:
    """Has sent at once what it is given; all of it ends when ``finish_all`` is called."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._out: dict[int, Job] = {}
        self._events: list[Event] = []

    def start(self, scheduler_id: str) -> None:
        pass

    def room(self) -> Room:
        return Room(self.slots)

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._out[job.dispatch] = job
            self._events.append(Sent(job.dispatch))

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        return set()

    def revoke(self, dispatch: int, over: bool = False) -> None:
        self.forget(dispatch)

    def forget(self, dispatch: int) -> None:
        self._out.pop(dispatch, None)

    def adopt(self, found: Sequence[Found]) -> None:
        pass

    def poll(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def stop(self, deadline: float) -> set[int]:
        return set()

    def finish_all(self) -> None:
        self._events += [Ended(dispatch, Outcome.SUCCESS, True) for dispatch in self._out]
        self._out.clear()


class EngineExecutor(Standalone):
    """A backend of an engine."""

    made: ClassVar[list[InMemoryEngine]] = []

    def make_engine(self, name: str, slots: int, *, counts_workers: bool = False) -> InMemoryEngine:
        engine = InMemoryEngine(slots)
        self.made.append(engine)
        return engine


class PlainExecutor(InMemoryExecutor):
    """An executor of somebody else that queues as Airflow's base class does, as most of them do."""

    queue_workload: Any = BaseExecutor.queue_workload

    def finish_all(self) -> None:
        super().finish_all()
        self.given.clear()
