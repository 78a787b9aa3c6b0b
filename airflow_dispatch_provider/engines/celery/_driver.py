# SPDX-License-Identifier: Apache-2.0
"""The thread that talks to the broker: it does the steps of an outbox. No method but ``stop`` waits for a server."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_dispatch_provider.engines.celery._outbox import (
    Answer,
    Check,
    Connect,
    Count,
    Doubt,
    Lost,
    Outbox,
    Probe,
    Send,
    Step,
    Tell,
    Untold,
    Wait,
)
from airflow_dispatch_provider.engines.celery.brokers import Broker
from airflow_dispatch_provider.masking import LateTraceback, describe

log = logging.getLogger(__name__)

LAST_STEP = 2.0
"""Seconds that ``stop`` gives the thread to end, once all is sent or given back."""


def do(step: Step, broker: Broker) -> Answer:
    """Raises what the broker raises.

    :param step: not ``Wait``
    """
    match step:
        case Connect(receipts):
            broker.connect()
            return Answer(missing=broker.missing(receipts) if receipts else ())
        case Probe():
            broker.probe()
        case Send(batch, receipt):
            return Answer(refusals=broker.send(batch, receipt))
        case Tell(celery_ids):
            broker.revoke(celery_ids)
        case Count(queues):
            return Answer(counts=broker.waiting(queues))
        case Check():
            broker.check()
    return Answer()


class Driver:
    """One outbox and one broker."""

    def __init__(
        self, outbox: Outbox, broker: Broker, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        :param name: of the backend
        """
        self._outbox, self._broker, self._clock = outbox, broker, clock
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"celery-broker {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_dead(self) -> bool:
        """Whether the thread has ended though nobody has told it to."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping

    @contextmanager
    def outbox(self, wake: bool = False) -> Iterator[Outbox]:
        """The outbox, for the calling thread alone. The driver's own holds the lock only while it computes.

        :param wake: there may be something new to do
        """
        with self._changed:
            yield self._outbox
            if wake:
                self._changed.notify_all()

    def stop(self, deadline: float) -> list[int]:
        """Have sent what is left, and end the thread; returns the dispatches that were not sent.

        :param deadline: monotonic seconds
        """
        with self._changed:
            self._changed.wait_for(
                lambda: not self._outbox.unsent or self._outbox.trouble, max(0.0, deadline - self._clock())
            )
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, min(LAST_STEP, deadline - self._clock())))
        with self._changed:
            return self._outbox.take_waiting()

    # The thread

    def _run(self) -> None:
        while (step := self._next()) is not None:
            try:
                answer = do(step, self._broker)
            except BaseException as error:
                log.debug("%s failed.%s", type(step).__name__, LateTraceback(error))
                answer = Answer(error, describe(error))
            self._done(step, answer)
        self._broker.close()

    def _next(self) -> Step | None:
        with self._changed:
            while not self._stopping:
                now = self._clock()
                step = self._outbox.next(now)
                if not isinstance(step, Wait):
                    return step
                self._changed.wait(max(0.0, step.until - now))
        return None

    def _done(self, step: Step, answer: Answer) -> None:
        with self._changed:
            self._outbox.done(self._clock(), step, answer, random.random())
            notes, self._outbox.notes = self._outbox.notes, []
            self._changed.notify_all()
        for note in notes:
            self._log(note)

    def _log(self, note: Lost | Doubt | Untold) -> None:
        name = self._outbox.broker
        match note:
            case Lost(number):
                message = "The broker %s does not have %d messages: their tasks are sent again, unless they have begun."
                log.warning(message, name, number)
            case Doubt(celery_ids):
                message = (
                    "The broker %s may not have got %d messages; "
                    "their queues, or [scheduler] task_queued_timeout, will tell: %s"
                )
                log.warning(message, name, len(celery_ids), ", ".join(celery_ids[:10]))
            case Untold(number, reason):
                log.warning("Workers cannot be told to drop %d tasks: %s", number, reason)
