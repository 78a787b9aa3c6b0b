# SPDX-License-Identifier: Apache-2.0
"""The Celery engine on the simulation's broker, and on real ones, behind the same few words. The test is the worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from types import SimpleNamespace
from typing import Any, Protocol

from integration.sides import Engines, VirtualTime, said
from support import wait_until

from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.lifecycle.events import Room
from airflow_dispatch_provider.simulation.messages import MessageBroker, TaskAlreadyRunningError
from airflow_dispatch_provider.simulation.places import CELERY
from airflow_dispatch_provider.simulation.schedulers import Instance, Workload
from airflow_dispatch_provider.testing.workloads import make_task
from devkit.servers.valkey import ValkeyServer

from .engines import Hand, running
from .publishing import new_queue
from .test_engine_valkey import app_of

ERRORS: dict[str, type[Exception]] = {"refused": TaskAlreadyRunningError, "crashed": RuntimeError}
"""Met by a worker: the execution API refuses the task; something else."""


class Side(Protocol):
    """One of them."""

    def submit(self, number: int = 1) -> list[int]:
        """So many tasks; returns their dispatches."""
        ...

    def submit_spoilt(self) -> int:
        """One of which no message can be made."""
        ...

    def store(self, dispatch: int, state: str, error: str = "") -> None:
        """A worker says so of what was sent.

        :param error: a key of ``ERRORS``
        """

    def adopt(self, dispatch: int | None) -> int:
        """By another scheduler; None: one of which no worker knows. Returns its dispatch there."""
        ...

    def revoke(self, dispatch: int) -> None: ...

    def hears(self, dispatch: int, kind: type[Any], heir: bool = False) -> list[Any]:
        """All that is said of it, up to the first event of that kind.

        :param heir: by the other scheduler's engine
        """
        ...

    def kill(self) -> None:
        """The broker."""

    def restart(self, empty: bool) -> None: ...

    def wait_until(self, condition: Callable[[], bool]) -> None: ...

    def room(self) -> Room: ...


class ModelSide:
    """See ``Side``."""

    def __init__(self) -> None:
        self.world = VirtualTime()
        self.broker = MessageBroker(self.world, "x", CELERY)
        self.broker.idle = True
        self.engines = [self.broker.engine(1000), self.broker.engine(1000)]
        for engine in self.engines:
            engine.start("1")
        self._both = Engines(self.world, *self.engines)
        self._numbers = count(1)

    def submit(self, number: int = 1) -> list[int]:
        return [self._submit(False) for _ in range(number)]

    def submit_spoilt(self) -> int:
        return self._submit(True)

    def _submit(self, is_spoilt: bool) -> int:
        task, number = self.world.queued(), next(self._numbers)
        if is_spoilt:
            task.spoilt_until = float("inf")
        self.engines[0].submit([Job(number, task.key, Workload(task, task.id))])
        return number

    def store(self, dispatch: int, state: str, error: str = "") -> None:
        self.broker.results[self._id_of(dispatch)] = state, ERRORS[error]() if error else None

    def _id_of(self, dispatch: int) -> str:
        (sent,) = (event for event in self._both.said_of(dispatch) if said(event)[0] == "Sent")
        return str(sent.info)

    def adopt(self, dispatch: int | None) -> int:
        task, number = self.world.queued(), next(self._numbers)
        task.external_executor_id = "nobody" if dispatch is None else self._id_of(dispatch)
        self.engines[1].adopt([Found(number, task.key, Instance(task, task.id), True)])
        return number

    def revoke(self, dispatch: int) -> None:
        self.engines[0].revoke(dispatch)

    def hears(self, dispatch: int, kind: type[Any], heir: bool = False) -> list[Any]:
        return self._both.hears(dispatch, kind, heir)

    def kill(self) -> None:
        self.broker.go_away(empties=False)

    def restart(self, empty: bool) -> None:
        if empty:
            self.broker.go_away(empties=True)
        self.broker.up = True

    def wait_until(self, condition: Callable[[], bool]) -> None:
        self._both.until(condition)

    def room(self) -> Room:
        return self.engines[0].room()


class RealSide:
    """See ``Side``."""

    def __init__(self, broker: Any, results: ValkeyServer, stack: ExitStack) -> None:
        self._broker = broker
        self._app = app_of(broker.url(), results.url(1))
        self._queue = new_queue()
        self._hands: list[Hand] = [
            stack.enter_context(running(self._app, timeout=1.0)),
            stack.enter_context(running(app_of(broker.url(), results.url(1)), timeout=1.0)),
        ]

    def submit(self, number: int = 1) -> list[int]:
        return self._hands[0].submit(number, self._queue)

    def submit_spoilt(self) -> int:
        def fail() -> str:
            raise ValueError("cannot be written")

        task = make_task(queue=self._queue)
        spoilt = SimpleNamespace(ti=task.ti, model_dump_json=fail)
        self._hands[0].engine.submit([Job(900, "spoilt", spoilt)])
        return 900

    def _id_of(self, dispatch: int) -> str:
        (sent,) = (event for event in self._hands[0].said_of(dispatch) if said(event)[0] == "Sent")
        return str(sent.info)

    def store(self, dispatch: int, state: str, error: str = "") -> None:
        result = ERRORS[error](error) if error else None
        self._app.backend.store_result(self._id_of(dispatch), result, state)

    def adopt(self, dispatch: int | None) -> int:
        return self._hands[1].adopt("nobody" if dispatch is None else self._id_of(dispatch))

    def revoke(self, dispatch: int) -> None:
        self._hands[0].engine.revoke(dispatch)

    def hears(self, dispatch: int, kind: type[Any], heir: bool = False) -> list[Any]:
        hand = self._hands[heir]
        hand.hears(kind, [dispatch])
        return hand.said_of(dispatch)

    def kill(self) -> None:
        self._broker.kill()

    def restart(self, empty: bool) -> None:
        self._broker.restart(empty=empty)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition)

    def room(self) -> Room:
        return self._hands[0].room()
