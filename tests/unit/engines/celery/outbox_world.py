# SPDX-License-Identifier: Apache-2.0
"""The outbox of a broker, and the time, for tests."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.engines.celery._outbox import (
    Answer,
    Connect,
    Outbox,
    Probe,
    Wait,
)
from airflow_dispatch_provider.engines.celery._outgoing import Outgoing
from airflow_dispatch_provider.engines.celery._receipts import Receipts
from airflow_dispatch_provider.lifecycle.events import Sent

DOWN = ConnectionError("is down")
TROUBLE = "The broker redis://b/0 cannot be used: is down"


class World:
    """An outbox, and the time; connected and probed, unless told otherwise."""

    def __init__(self, most: int = 1000, connected: bool = True) -> None:
        self.now = 1000.0
        self.outbox = Outbox("x", "redis://b/0", most, Receipts("token", 600.0))
        if connected:
            self.connect()

    def step(self) -> Any:
        return self.outbox.next(self.now)

    def done(self, step: Any, answer: Answer | None = None) -> list[Any]:
        self.outbox.done(self.now, step, answer or Answer())
        return self.outbox.take_events()

    def do(self, kind: type[Any], answer: Answer | None = None) -> list[Any]:
        """The next step has to be of this kind."""
        step = self.step()
        assert isinstance(step, kind), step
        return self.done(step, answer)

    def connect(self, missing: Any = None) -> list[Any]:
        return self.do(Connect, Answer(missing=missing)) + self.do(Probe)

    def submit(self, *items: str | int) -> list[Outgoing]:
        """Numbers of dispatches; with a queue where it is not the usual one: ``"7 other"``."""
        batch = []
        for item in items:
            number, _, queue = str(item).partition(" ")
            batch.append(Outgoing(f"id {number}", int(number), None, queue or "q"))
        self.outbox.submit(batch)
        return batch

    def fail(self, kind: type[Any], error: BaseException = DOWN) -> list[Any]:
        return self.do(kind, Answer(error, "is down"))

    def wait(self) -> None:
        step = self.step()
        assert isinstance(step, Wait)
        self.now = step.until


def sent(*numbers: int) -> list[Any]:
    return [Sent(number, f"id {number}") for number in numbers]


def dispatches(step: Any) -> list[Any]:
    return [outgoing.key for outgoing in step.batch]
