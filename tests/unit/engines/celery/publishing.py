# SPDX-License-Identifier: Apache-2.0
"""A broker that tests of the publisher steer, and what they do with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from support import wait_until

from airflow_dispatch_provider.engines.celery.brokers import Refusal, SendFailed
from airflow_dispatch_provider.engines.celery.message import Outgoing
from airflow_dispatch_provider.engines.celery.publisher import Failed, Publisher, Sent

DOWN = ConnectionError("is down")


class FakeBroker:
    """Keeps what it is sent, by receipt. ``errors`` are raised by the methods of these names, of which those in
    ``breaks`` fail once; ``outcomes`` are those of the next sends; a closed gate holds a method until it is opened.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.batches: dict[str, list[str]] = {}
        self.revoked: list[str] = []
        self.asked: list[list[str]] = []
        self.errors: dict[str, BaseException] = {}
        self.breaks: set[str] = set()
        self.outcomes: list[Callable[[Sequence[Outgoing]], SendFailed]] = []
        self.forgetful = False
        self.threads: set[threading.Thread] = set()
        self._gates: dict[str, threading.Event] = {}

    def close_gate(self, name: str) -> None:
        self._gates[name] = threading.Event()

    def open_gates(self) -> None:
        for gate in self._gates.values():
            gate.set()

    def count(self, name: str) -> int:
        return self.calls.count(name)

    @property
    def arrived(self) -> list[str]:
        return [celery_id for batch in self.batches.values() for celery_id in batch]

    def _enter(self, name: str) -> None:
        self.threads.add(threading.current_thread())
        self.calls.append(name)
        if name in self._gates:
            assert self._gates[name].wait(60)
        if name in self.breaks:
            self.breaks.remove(name)
            raise DOWN
        if error := self.errors.get(name):
            raise error

    def connect(self) -> None:
        self._enter("connect")

    def send(self, batch: Sequence[Outgoing], receipt: str) -> list[Refusal]:
        self._enter("send")
        outcome = self.outcomes.pop(0)(batch) if self.outcomes else SendFailed(DOWN)
        rejected = [refusal.outgoing for refusal in outcome.refusals]
        gone = {*outcome.unsent, *outcome.unknown, *rejected}
        if kept := [outgoing.celery_id for outgoing in batch if outgoing not in gone]:
            self.batches[receipt] = kept
        if outcome.unsent or outcome.unknown:
            raise outcome
        return outcome.refusals

    def missing(self, receipts: Sequence[str]) -> set[str] | None:
        self._enter("missing")
        self.asked.append(list(receipts))
        return None if self.forgetful else {receipt for receipt in receipts if receipt not in self.batches}

    def revoke(self, celery_ids: Sequence[str]) -> None:
        self._enter("revoke")
        self.revoked += celery_ids

    def check(self) -> None:
        self._enter("check")

    def probe(self) -> None:
        self._enter("probe")

    def close(self) -> None:
        self.calls.append("close")


def ids(batch: Any) -> list[str]:
    return [outgoing.celery_id for outgoing in batch]


def make(*names: str) -> list[Outgoing]:
    return [Outgoing(name, ("key of", name), None, "q") for name in names]


def numbered(count: int) -> list[Outgoing]:
    return make(*(f"{number:05}" for number in range(count)))


def outcome(rejected: slice = slice(0), **parts: slice) -> Callable[[Sequence[Outgoing]], SendFailed]:
    """Of a send: which of its batch are ``unsent``, ``unknown`` and ``rejected``; it fails if it has one of the
    first two."""
    return lambda batch: SendFailed(
        DOWN,
        refusals=[Refusal(outgoing, "no good") for outgoing in batch[rejected]],
        **{name: batch[part] for name, part in parts.items()},
    )


def sent(publisher: Publisher, count: int) -> list[str]:
    """Wait for so many reports, all of them good ones; gives the ids."""
    reports: list[Sent | Failed] = []
    wait_until(lambda: reports.extend(publisher.drain()) or len(reports) >= count)
    assert all(isinstance(report, Sent) for report in reports)
    return ids(report.outgoing for report in reports)


def started(publisher: Publisher, broker: FakeBroker, *batch: Outgoing) -> None:
    """Wait until it is connected and has sent these."""
    publisher.submit(batch)
    publisher.start()
    assert sent(publisher, len(batch)) == ids(batch)
    wait_until(lambda: broker.count("connect") and publisher._busy_since is None)


def reconnect(publisher: Publisher, broker: FakeBroker) -> None:
    """Break its connection, and wait until it has a new one and has noted what the broker has."""
    broker.revoked.clear()
    broker.breaks.add("revoke")
    publisher.revoke("nobody")
    wait_until(lambda: broker.revoked == ["nobody"] and publisher.problem is None)


def provoke(publisher: Publisher, broker: FakeBroker, method: str, batch: list[Outgoing]) -> None:
    """Have the thread call a method of the broker."""
    if method == "send":
        publisher.submit(batch)
    elif method != "check":
        broker.breaks |= {"revoke"} - {method}
        publisher.revoke("x")


def in_background(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def use(publisher: Publisher) -> None:
    """All methods that may not block."""
    publisher.submit(make("p", "q"))
    assert publisher.withdraw("p")
    assert not publisher.withdraw("a") or not publisher._sending
    publisher.settled("a")
    publisher.revoke("r")
    assert publisher.unsent >= 1
    assert publisher.problem is None or "redis" in publisher.problem
    assert "q" in ids(publisher.withdraw_all())
    publisher.drain()


class ImpatientCondition(threading.Condition):
    """Does not wait before the next attempt, and takes note of how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        if timeout and timeout < 60:
            self.delays.append(timeout)
            timeout = 0
        return super().wait_for(predicate, timeout)
