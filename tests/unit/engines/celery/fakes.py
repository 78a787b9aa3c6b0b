# SPDX-License-Identifier: Apache-2.0
"""A broker and a result backend that tests steer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed
from airflow_dispatch_provider.engines.celery.results import Result

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

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, 0)

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


class FakeWatcher:
    """Knows no result by itself."""

    problem: str | None = None
    outages = 0

    def __init__(self) -> None:
        self.looked: list[str] = []
        self.watched: list[str] = []
        self.forgotten: list[str] = []
        self.results: list[Result] = []

    def start(self, wait: bool = True) -> None:
        """Nothing to start."""

    def look(self, celery_id: str) -> None:
        self.looked.append(celery_id)

    def watch(self, celery_id: str) -> None:
        self.watched.append(celery_id)

    def forget(self, celery_id: str) -> None:
        self.forgotten.append(celery_id)

    def drain(self) -> list[Result]:
        results, self.results = self.results, []
        return results

    def stop(self, timeout: float) -> None:
        """Nothing to stop."""


def outcome(rejected: slice = slice(0), **parts: slice) -> Callable[[Sequence[Outgoing]], SendFailed]:
    """Of a send: which of its batch are ``unsent``, ``unknown`` and ``rejected``; it fails if it has one of the
    first two."""
    return lambda batch: SendFailed(
        DOWN,
        refusals=[Refusal(outgoing, "no good") for outgoing in batch[rejected]],
        **{name: batch[part] for name, part in parts.items()},
    )


def in_background(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread
