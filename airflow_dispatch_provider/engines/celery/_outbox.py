# SPDX-License-Identifier: Apache-2.0
"""The machine of the thread that talks to the broker: told what came of a step, it says what to do next.

Pure: it knows no clock, no thread, no broker and no random number. Times are monotonic seconds, and given.

1. What was possibly sent is never sent again here, and counts as sent. Where the broker keeps receipts, a batch that it
   does not have is reported as ended, so that the database is asked before anybody sends it again.
2. A message that fails alone, while the broker answers a neutral request, fails alone. After a failure that says not
   what it is about, one message is tried at a time.
3. A queue that is full, or may not be used, is closed by itself, and tried again after delays that grow.
4. The broker counts as unusable when a neutral request fails (a connection, a probe), or hangs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed, Why
from airflow_dispatch_provider.engines.celery._receipts import Receipts
from airflow_dispatch_provider.engines.engine import Event
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.lifecycle.events import Broken, Ended, Recovered, Rejected, Returned, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome

MAX_BATCH = 500
"""Messages in one batch."""

CHECK_EVERY = 5.0
"""Seconds after which an idle connection is looked at."""

HUNG_AFTER = 10.0
"""Seconds that one step may take before the broker counts as hung."""

_REMEMBERED = 300.0
"""Seconds after which a queue that nobody has tried again is forgotten, with its delays."""

LOST = "the broker does not have its message"


class Connect(NamedTuple):
    """Open a new connection, and ask which of these batches the broker does not have; answered by ``missing``."""

    receipts: Sequence[str]


class Probe(NamedTuple):
    """Find out whether the broker takes messages at all."""


class Send(NamedTuple):
    """Hand a batch over; answered by refusals, or ``SendFailed``."""

    batch: Sequence[Outgoing]
    receipt: str


class Tell(NamedTuple):
    """Tell all workers to drop these."""

    celery_ids: Sequence[str]


class Count(NamedTuple):
    """How many messages wait in each of these queues; answered by ``counts``."""

    queues: Sequence[str]


class Check(NamedTuple):
    """Find out whether the connection still works."""


class Wait(NamedTuple):
    """Nothing to do until then, or until something is submitted."""

    until: float


Step = Connect | Probe | Send | Tell | Count | Check | Wait


class Answer(NamedTuple):
    """The outcome of a step."""

    error: BaseException | None = None
    reason: str = ""
    """The error, in words."""

    missing: Collection[str] | None = None
    """Of ``Connect``; None: the broker cannot tell."""

    refusals: Sequence[Refusal] = ()
    """Of ``Send``."""

    counts: Mapping[str, int] = {}
    """Of ``Count``, by queue."""


class Lost(NamedTuple):
    """To be logged: the broker does not have so many messages that were sent."""

    number: int


class Doubt(NamedTuple):
    """To be logged: the broker may not have got these, and cannot tell."""

    celery_ids: Sequence[str]


class Untold(NamedTuple):
    """To be logged: workers cannot be told to drop so many tasks."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Lane:
    """A queue that was full, or refused, when it was last tried."""

    backoff: Backoff
    reason: str


class Outbox:
    """The messages that are on their way to one broker. Not thread-safe."""

    def __init__(
        self, backend: str, broker: str, most: int, receipts: Receipts, backoff: Backoff | None = None
    ) -> None:
        """
        :param broker: its name in reasons, without passwords
        :param most: how many messages may be on their way at a time
        """
        self.trouble: str | None = None
        """Why the broker cannot be used, since a neutral request has failed; None: it can."""

        self.notes: list[Lost | Doubt | Untold] = []
        self.broker = broker
        self._backend, self._most = backend, most
        self._doubted: list[str] = []
        self._doubts: list[str] = []
        self._waiting: dict[str, Outgoing] = {}
        self._sending: dict[str, Outgoing] = {}
        self._to_tell: dict[str, None] = {}
        self._to_count: dict[str, None] = {}
        self._counts: dict[str, int] = {}
        self._receipts = receipts
        self._lanes: dict[str, _Lane] = {}
        self._lane_backoff = Backoff(1.0, 60.0)
        self._backoff = backoff or Backoff(0.5, 30.0)
        self._again = Backoff(min(0.5, self._backoff.min_delay), min(5.0, self._backoff.max_delay))
        self._events: list[Event] = []
        self._connected = self._doubtful = False
        self._batch_size = MAX_BATCH
        self._failed_step: type[Step] | None = None
        """The last one, with nothing but neutral requests since."""

        self._check_at = 0.0
        self._busy_since: float | None = None

    def __repr__(self) -> str:
        state = "unusable" if self.trouble else "connected" if self._connected else "connecting"
        lanes = f", closed {sorted(self._lanes)}" if self._lanes else ""
        return f"Outbox({self.broker}, {state}, unsent {self.unsent}{lanes})"

    # Being asked

    @property
    def unsent(self) -> int:
        """How many are on their way."""
        return len(self._waiting) + len(self._sending)

    def takes(self) -> int:
        """How many more may be submitted now."""
        return max(0, self._most - self.unsent)

    def closed(self, now: float) -> dict[str, str]:
        """Queues that are not to be used now, and why."""
        return {queue: lane.reason for queue, lane in self._lanes.items() if not lane.backoff.due(now)}

    def unavailable(self, now: float) -> str | None:
        if self.trouble is not None:
            return self.trouble
        hangs = self._busy_since is not None and now - self._busy_since > HUNG_AFTER
        return f"The broker {self.broker} does not answer." if hangs else None

    @property
    def retry_at(self) -> float | None:
        """When it is connected to again, in monotonic seconds; None: it is connected, or at once."""
        return None if self._connected else max(self._backoff.until, self._again.until) or None

    # Told by the engine

    def submit(self, batch: Iterable[Outgoing]) -> None:
        """Their ``key`` is the number of the dispatch."""
        self._waiting.update((outgoing.celery_id, outgoing) for outgoing in batch)
        if self.trouble is not None:
            self._return_waiting(self.trouble)

    def withdraw(self, celery_id: str) -> bool:
        """Take one back; False where it is sent, or may be."""
        return self._waiting.pop(celery_id, None) is not None

    def tell(self, celery_id: str) -> None:
        """Have the workers told to drop it: after it was sent, and when the broker can be reached."""
        self._to_tell[celery_id] = None
        self.settled(celery_id)

    def settled(self, celery_id: str) -> None:
        """A worker has it, or nobody waits for it any more: whether the broker loses it does not matter."""
        self._sending.pop(celery_id, None)
        self._receipts.settled(celery_id)

    def count(self, queues: Collection[str]) -> None:
        """Have it counted what waits in these queues, when the broker can be reached."""
        self._to_count |= dict.fromkeys(queues)

    def take_doubts(self) -> list[str]:
        """Celery ids of messages that may not have arrived, where the broker cannot tell."""
        doubts, self._doubts = self._doubts, []
        return doubts

    def take_counts(self) -> dict[str, int]:
        """Messages that wait, by queue, where they have been counted since the last call."""
        counts, self._counts = self._counts, {}
        return counts

    def take_waiting(self) -> list[int]:
        """Take back everything that is certainly not sent: dispatches."""
        waiting, self._waiting = self._waiting, {}
        return [_dispatch(outgoing) for outgoing in waiting.values()]

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # The steps

    def next(self, now: float) -> Step:
        """The next step to be done; ``done`` has to be called before the next call, unless it is ``Wait``."""
        step = self._choose(now)
        if not isinstance(step, Wait):
            self._busy_since = now
        return step

    def _choose(self, now: float) -> Step:
        if not self._connected:
            due = self.retry_at or 0.0
            return Connect(self._receipts.to_ask_for(now)) if now >= due else Wait(due)
        if self._doubtful:
            return Probe()
        if self._to_tell:
            return Tell(list(self._to_tell))
        if self._to_count:
            return Count(list(self._to_count))
        if now >= self._check_at:
            return Check()
        if self._waiting:
            return self._take_batch()
        return Wait(self._check_at)

    def _take_batch(self) -> Send:
        batch = list(islice(self._waiting.values(), self._batch_size))
        for outgoing in batch:
            del self._waiting[outgoing.celery_id]
        self._sending = {outgoing.celery_id: outgoing for outgoing in batch}
        return Send(batch, self._receipts.new())

    def done(self, now: float, step: Step, answer: Answer, chance: float = 1.0) -> None:
        """Take in what came of a step.

        :param chance: from 0 to 1; spreads delays
        """
        self._busy_since = None
        if isinstance(step, Send):
            self._sent(now, step, answer, chance)
        elif isinstance(step, Tell):
            self._told(step, answer)
        elif isinstance(step, Count):
            self._to_count, self._counts = {}, {**self._counts, **answer.counts}
        if answer.error is not None:
            self._failed(now, step, answer, chance)
        else:
            self._succeeded(now, step, answer)

    # Connecting

    def _succeeded(self, now: float, step: Step, answer: Answer) -> None:
        if isinstance(step, Connect):
            self._connected = self._doubtful = True
            self._account(answer.missing)
        elif isinstance(step, Probe):
            self._doubtful = False
            self._backoff = self._backoff.over()
            if self.trouble is not None:
                self.trouble = None
                self._events.append(Recovered(self._backend))
        else:
            self._again = self._again.over()
        if isinstance(step, Send | Tell):
            self._failed_step = None
        else:
            self._check_at = now + CHECK_EVERY

    def _failed(self, now: float, step: Step, answer: Answer, chance: float) -> None:
        self._connected = False
        self._failed_step = type(step)
        if not isinstance(step, Connect | Probe):
            self._again = self._again.failed(now, chance)
        else:
            self._backoff = self._backoff.failed(now, chance)
            self.trouble = f"The broker {self.broker} cannot be used: {answer.reason}"
            self._events.append(Broken(self._backend, self.trouble))
            self._return_waiting(self.trouble)

    def _return_waiting(self, reason: str) -> None:
        self._events += [Returned(dispatch, reason) for dispatch in self.take_waiting()]

    def _account(self, missing: Collection[str] | None) -> None:
        """After a new connection: which batches the broker never got, or has lost."""
        lost = self._receipts.lost(missing or ())
        self._events += [Ended(dispatch, Outcome.FAILED, None, LOST, mishap=True) for dispatch in lost]
        if lost:
            self.notes.append(Lost(len(lost)))
        if missing is None and self._doubted:
            self.notes.append(Doubt(self._doubted))
            self._doubts += self._doubted
        self._doubted = []

    # Sending

    def _sent(self, now: float, step: Send, answer: Answer, chance: float) -> None:
        failed = answer.error
        if failed is not None and not isinstance(failed, SendFailed):
            failed = SendFailed(failed, unknown=step.batch)
        refusals = failed.refusals if failed else answer.refusals
        unsent = {outgoing.celery_id: outgoing for outgoing in (failed.unsent if failed else ())}
        refused = {refusal.outgoing.celery_id for refusal in refusals}
        sent = [o for o in step.batch if o.celery_id not in unsent and o.celery_id not in refused]
        self._note_sent(now, sent, step.receipt)
        self._doubted += [outgoing.celery_id for outgoing in failed.unknown] if failed else ()
        self._refuse(now, refusals, bool(sent), chance)
        self._note_unsent(step, answer, unsent)
        self._sending = {}

    def _note_sent(self, now: float, sent: Sequence[Outgoing], receipt: str) -> None:
        """Also of what is unknown. What was settled meanwhile needs no receipt."""
        for outgoing in sent:
            self._lanes.pop(outgoing.queue, None)
            if outgoing.celery_id in self._sending:
                self._events.append(Sent(_dispatch(outgoing), outgoing.celery_id))
                self._receipts.add(receipt, outgoing.celery_id, _dispatch(outgoing), now)

    def _note_unsent(self, step: Send, answer: Answer, unsent: Mapping[str, Outgoing]) -> None:
        """They are still on their way, unless it is one alone, and another send failed just before a good probe."""
        self._batch_size = MAX_BATCH if answer.error is None else 1
        wanted = {celery_id: outgoing for celery_id, outgoing in unsent.items() if celery_id in self._sending}
        if len(step.batch) == 1 and self._failed_step is Send:
            self._events += [Rejected(_dispatch(outgoing), answer.reason) for outgoing in wanted.values()]
        else:
            self._waiting = {**wanted, **self._waiting}

    # Refusals

    def _refuse(self, now: float, refusals: Sequence[Refusal], others_sent: bool, chance: float) -> None:
        for refusal in refusals:
            if refusal.why is Why.MESSAGE:
                self._reject(refusal, others_sent)
        for queue, group in _by_queue(refusals).items():
            self._close(now, queue, group, chance)

    def _reject(self, refusal: Refusal, broker_works: bool) -> None:
        if refusal.outgoing.celery_id in self._sending:
            self._events.append(Rejected(_dispatch(refusal.outgoing), refusal.reason))
            if broker_works:
                self._events.append(Recovered(self._backend))

    def _close(self, now: float, queue: str, refusals: Sequence[Refusal], chance: float) -> None:
        """Where a queue may not be used, one of its messages counts that as a failure; the others go back."""
        first = refusals[0]
        self._lanes = {
            name: lane for name, lane in self._lanes.items() if lane.backoff.until > now - _REMEMBERED
        }
        before = self._lanes[queue].backoff if queue in self._lanes else self._lane_backoff
        self._lanes[queue] = _Lane(before.failed(now, chance), f"queue {queue!r}: {first.reason}")
        rest = refusals
        if first.why is Why.QUEUE:
            self._reject(first, broker_works=True)
            rest = refusals[1:]
        returned = [r.outgoing for r in rest if r.outgoing.celery_id in self._sending]
        returned += [outgoing for outgoing in self._waiting.values() if outgoing.queue == queue]
        for outgoing in returned:
            self._waiting.pop(outgoing.celery_id, None)
            self._events.append(Returned(_dispatch(outgoing), self._lanes[queue].reason))

    # Telling workers

    def _told(self, step: Tell, answer: Answer) -> None:
        """Workers that cannot be told twice, with a good probe in between, are not told."""
        if answer.error is None or self._failed_step is Tell:
            for celery_id in step.celery_ids:
                self._to_tell.pop(celery_id, None)
            if answer.error is not None:
                self.notes.append(Untold(len(step.celery_ids), answer.reason))


def _dispatch(outgoing: Outgoing) -> int:
    dispatch = outgoing.key
    assert isinstance(dispatch, int)
    return dispatch


def _by_queue(refusals: Iterable[Refusal]) -> dict[str, list[Refusal]]:
    found: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        if refusal.why is not Why.MESSAGE:
            found.setdefault(refusal.outgoing.queue, []).append(refusal)
    return found
