# SPDX-License-Identifier: Apache-2.0
"""The thread that hands workloads to the broker, and what it tells the scheduler's thread.

An outage costs time and nothing else: what is not with the broker stays here, or is given back, and what may
or may not be there is asked for, where the broker can tell, before anything is sent again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, SendFailed, Why
from airflow_dispatch_provider.engines.celery.brokers import Broker
from airflow_dispatch_provider.masking import describe
from airflow_dispatch_provider.routing.circuit import growing_delay

log = logging.getLogger(__name__)

MAX_BATCH = 500
"""Messages in one batch."""

CHECK_INTERVAL = 5.0
"""Seconds after which the connection is looked at again."""

HUNG_AFTER = 10.0
"""Seconds that the thread may be in one call before the broker counts as hung."""

RETRY_DELAYS = 0.5, 30.0
"""Seconds until the first, and at most until any later attempt to connect."""

JOIN_TIMEOUT = 2.0
"""Seconds that ``stop`` waits for the thread after the work is done or given back."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker has it."""

    outgoing: Outgoing


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be sent, for a reason of its own."""

    outgoing: Outgoing
    reason: str


class Publisher:
    """Sends what is submitted, in order. All public methods are for the scheduler's thread, and none blocks."""

    def __init__(self, broker: Broker, name: str) -> None:
        """
        :param name: of the broker, without its password, for the log
        """
        self.name = name
        self._broker = broker
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        # All below is shared between the threads, under the condition's lock.
        self._waiting: dict[str, Outgoing] = {}
        self._sending: dict[str, Outgoing] = {}
        self._revoked: list[str] = []
        self._reports: deque[Sent | Failed] = deque()
        self._receipts: dict[str, dict[str, Outgoing]] = {}
        self._receipt_of: dict[str, str] = {}
        self._kept_since: float | None = None
        self._error: str | None = None
        self._error_since = 0.0
        self._busy_since: float | None = None
        self._stopping = False
        # The thread's own.
        self._checked = 0.0

    # For the scheduler's thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"celery-publisher {self.name}", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """The trouble with the broker, and for how long; None: no trouble."""
        now = time.monotonic()
        busy_since, error = self._busy_since, self._error
        if error is not None:
            return f"The broker {self.name} cannot be used since {now - self._error_since:.0f} s: {error}"
        if busy_since is not None and now - busy_since > HUNG_AFTER:
            return f"The broker {self.name} has not answered for {now - busy_since:.0f} s."
        return None

    @property
    def unsent(self) -> int:
        """How many are on their way."""
        return len(self._waiting) + len(self._sending)

    @property
    def kept_since(self) -> float | None:
        """Since when the broker has lost nothing, in POSIX seconds; None where it cannot tell, or not yet."""
        return self._kept_since

    def submit(self, batch: Iterable[Outgoing]) -> None:
        with self._changed:
            self._waiting.update((outgoing.celery_id, outgoing) for outgoing in batch)
            self._changed.notify()

    def withdraw(self, celery_id: str) -> bool:
        """Take one back; False where it is with the broker, or may be."""
        with self._changed:
            return self._waiting.pop(celery_id, None) is not None

    def withdraw_all(self) -> list[Outgoing]:
        """Take back everything that is certainly not with the broker."""
        with self._changed:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        return waiting

    def revoke(self, celery_id: str) -> None:
        """Have the workers told to drop it, when the broker can be reached."""
        with self._changed:
            self._settle(celery_id)
            self._revoked.append(celery_id)
            self._changed.notify()

    def settled(self, celery_id: str) -> None:
        """A worker has it, or is done with it: it need not be sent again, whatever the broker loses."""
        with self._changed:
            self._settle(celery_id)

    def drain(self) -> list[Sent | Failed]:
        """Outcomes of messages since the last call."""
        with self._changed:
            reports = list(self._reports)
            self._reports.clear()
        return reports

    def stop(self, timeout: float) -> list[Outgoing]:
        """Send what is left, for at most ``timeout`` seconds, and end the thread; returns what was not sent.
        The one method that waits."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(
                lambda: not self.unsent or self._error, max(0.0, deadline - time.monotonic())
            )
            self._stopping = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(JOIN_TIMEOUT)
        return self.withdraw_all()

    # The thread

    def _run(self) -> None:
        attempts = 0
        connected = False
        while not self._stopping:
            try:
                if not connected:
                    self._connect()
                    connected = True
                self._work()
                self._note_success()
                attempts = 0
            except BaseException as error:
                connected = False
                self._note_failure(error)
                self._pause(attempts)
                attempts += 1
        self._broker.close()

    def _connect(self) -> None:
        self._busy_since = time.monotonic()
        self._kept_since = self._broker.connect()
        self._account_for_batches()
        self._checked = time.monotonic()

    def _account_for_batches(self) -> None:
        """After a new connection: send again what the broker does not have, or has lost."""
        with self._changed:
            receipts = list(self._receipts)
        missing = self._broker.missing(receipts) if receipts else set()
        if missing is None:
            self._trust_broker()
            return
        with self._changed:
            lost = {
                celery_id: outgoing
                for receipt in receipts
                if receipt in missing
                for celery_id, outgoing in self._receipts.pop(receipt, {}).items()
            }
            for celery_id in lost:
                del self._receipt_of[celery_id]
            arrived = [outgoing for celery_id, outgoing in self._sending.items() if celery_id not in lost]
            self._reports.extend(Sent(outgoing) for outgoing in arrived)
            self._sending = {}
            self._waiting = {**lost, **self._waiting}
        if lost:
            log.warning("The broker %s does not have %d messages: they are sent again.", self.name, len(lost))

    def _trust_broker(self) -> None:
        """It cannot tell what it has, and two copies are worse than a wait: what may have arrived counts as sent.
        If it has not, Airflow finds the task stuck in queued."""
        with self._changed:
            doubtful, self._sending = self._sending, {}
            self._reports.extend(Sent(outgoing) for outgoing in doubtful.values())
        if doubtful:
            message = (
                "The broker %s may not have got %d messages; [scheduler] task_queued_timeout will tell: %s"
            )
            log.warning(message, self.name, len(doubtful), ", ".join(islice(doubtful, 10)))

    def _work(self) -> None:
        """One round: a batch, revocations, and now and then a look at the connection. The first one after an
        outage waits for nothing."""
        with self._changed:
            self._busy_since = None
            idle = not self._changed.wait_for(
                lambda: self._waiting or self._revoked or self._stopping,
                CHECK_INTERVAL if self._error is None else 0.0,
            )
            self._busy_since = now = time.monotonic()
            batch = list(islice(self._waiting.values(), MAX_BATCH))
            for outgoing in batch:
                del self._waiting[outgoing.celery_id]
            self._sending = {outgoing.celery_id: outgoing for outgoing in batch}
            revoked = self._revoked.copy()
        if batch:
            self._send(batch)
        if revoked:
            self._broker.revoke(revoked)
            with self._changed:
                del self._revoked[: len(revoked)]
        if idle or now - self._checked >= CHECK_INTERVAL:
            self._broker.check()
            self._checked = now

    def _send(self, batch: Sequence[Outgoing]) -> None:
        receipt = uuid.uuid4().hex
        try:
            refusals = self._broker.send(batch, receipt)
        except SendFailed as failed:
            self._note_batch(batch, receipt, failed)
            raise
        except BaseException as error:
            self._note_batch(batch, receipt, SendFailed(error, unknown=batch))
            raise
        self._note_batch(batch, receipt, SendFailed(Exception(), refusals=refusals))
        if full := [refusal.reason for refusal in refusals if refusal.why is Why.FULL]:
            raise SendFailed(RuntimeError(full[0]))

    def _note_batch(self, batch: Sequence[Outgoing], receipt: str, outcome: SendFailed) -> None:
        failed = [refusal for refusal in outcome.refusals if refusal.why is not Why.FULL]
        full = [refusal.outgoing for refusal in outcome.refusals if refusal.why is Why.FULL]
        rejected = {refusal.outgoing.celery_id for refusal in failed}
        with self._changed:
            # Without what was settled meanwhile.
            unsent = _still(self._sending, [*full, *outcome.unsent])
            unknown = _still(self._sending, outcome.unknown)
            sent = _still(self._sending, (o for o in batch if o.celery_id not in rejected | unsent.keys()))
            self._reports.extend(Failed(refusal.outgoing, refusal.reason) for refusal in failed)
            self._reports.extend(Sent(outgoing) for key, outgoing in sent.items() if key not in unknown)
            if sent:
                self._receipts[receipt] = sent
                self._receipt_of.update(dict.fromkeys(sent, receipt))
            self._waiting = {**unsent, **self._waiting}
            self._sending = unknown
            self._changed.notify_all()

    def _settle(self, celery_id: str) -> None:
        self._waiting.pop(celery_id, None)
        self._sending.pop(celery_id, None)
        receipt = self._receipt_of.pop(celery_id, None)
        if receipt is None:
            return
        batch = self._receipts[receipt]
        del batch[celery_id]
        if not batch:
            del self._receipts[receipt]

    def _note_success(self) -> None:
        if self._error is not None:
            lasted = time.monotonic() - self._error_since
            log.info("The broker %s is back after %.0f s.", self.name, lasted)
            self._error = None

    def _note_failure(self, error: BaseException) -> None:
        reason = str(error) if isinstance(error, SendFailed) else describe(error)
        news = self._error is None
        with self._changed:
            if news:
                self._error_since = time.monotonic()
            self._error = reason
            self._changed.notify_all()
        level = logging.WARNING if news else logging.DEBUG
        log.log(level, "The broker %s cannot be used; tasks for it wait. %s", self.name, reason)

    def _pause(self, attempts: int) -> None:
        """Before the next attempt to connect."""
        first, most = RETRY_DELAYS
        delay = growing_delay(attempts, first, most) * random.uniform(0.5, 1.0)
        with self._changed:
            self._busy_since = None
            self._changed.wait_for(lambda: self._stopping, delay)


def _still(ids: Container[str], batch: Iterable[Outgoing]) -> dict[str, Outgoing]:
    return {outgoing.celery_id: outgoing for outgoing in batch if outgoing.celery_id in ids}
