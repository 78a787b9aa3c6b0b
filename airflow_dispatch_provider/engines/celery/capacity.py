# SPDX-License-Identifier: Apache-2.0
"""How many tasks the live workers can run at once, for backends whose slots are ``"workers"``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from celery import Celery

from airflow_dispatch_provider.engines.celery.brokers import broker_for
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between two rounds of asking."""

ANSWER = 2.0
"""Seconds that workers have for an answer."""

MISSES = 3
"""Rounds that a worker may miss before it counts as gone: a busy one answers late."""


@dataclass(frozen=True)
class Roll:
    """The workers that have answered lately. A value: each round makes a new one."""

    concurrency: Mapping[str, int] = field(default_factory=dict)
    """How many tasks each can run at once, by the worker's name."""

    missed: Mapping[str, int] = field(default_factory=dict)
    """How many rounds in a row each has missed."""

    @property
    def slots(self) -> int | None:
        """None where there is no worker."""
        return sum(self.concurrency.values()) if self.concurrency else None

    def after(self, answers: Mapping[str, int]) -> Roll:
        """The roll after one more round."""
        missed = {name: 0 if name in answers else self.missed[name] + 1 for name in self.concurrency}
        missed |= dict.fromkeys(answers, 0)
        present = {name: number for name, number in missed.items() if number < MISSES}
        known = {**self.concurrency, **answers}
        return Roll({name: known[name] for name in present}, present)


def concurrency_of(stats: Mapping[str, Any], queues: Mapping[str, Any]) -> dict[str, int]:
    """How many tasks each worker can run, from Celery's ``inspect`` commands ``stats`` and ``active_queues``. One
    that has been told to listen to no queue runs none."""
    return {
        name: int(report.get("pool", {}).get("max-concurrency") or 1)
        for name, report in stats.items()
        if isinstance(report, Mapping) and queues.get(name)
    }


class WorkerCensus:
    """A thread that asks the workers again and again. The last answer stands while the broker cannot be used."""

    def __init__(
        self, app: Celery, timeout: float, interval: float = INTERVAL, answer: float = ANSWER
    ) -> None:
        """
        :param timeout: seconds that any single network call may take
        """
        self._app, self._interval, self._answer = app, interval, answer
        self._connect = broker_for(app, timeout).new_connection
        self._roll = Roll()
        self._has_asked = False
        self._stopping = Event()
        self._thread: Thread | None = None
        self._failing = False

    @property
    def slots(self) -> int | None:
        """How many tasks all live workers together can run; None while none is known. Does not wait."""
        return self._roll.slots

    @property
    def has_none(self) -> bool:
        """Whether the broker could be used in the last round, and no worker has answered lately."""
        return self._has_asked and not self._failing and self._roll.slots is None

    def start(self) -> None:
        self._thread = Thread(target=self._run, name="dispatch-celery-workers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after its round; does not wait for it."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._take()
                self._failing = False
            except Exception as error:
                level = logging.DEBUG if self._failing else logging.WARNING
                log.log(level, "The Celery workers cannot be counted: %s", describe(error))
                self._failing = True
            self._stopping.wait(self._interval)

    def _take(self) -> None:
        """One round."""
        with self._connect() as connection:
            inspect = self._app.control.inspect(timeout=self._answer, connection=connection)
            answers = concurrency_of(inspect.stats() or {}, inspect.active_queues() or {})
        roll = self._roll.after(answers)
        if roll.slots != self._roll.slots:
            message = "%d Celery workers can run %d tasks at once."
            log.info(message, len(roll.concurrency), roll.slots or 0)
        self._roll, self._has_asked = roll, True
