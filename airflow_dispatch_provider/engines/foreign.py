# SPDX-License-Identifier: Apache-2.0
"""Any Airflow executor as an engine, under Airflow's own contract and whatever it does.

Such an executor speaks of keys and not of dispatches, works on the scheduler's thread, and may raise anywhere. Two
dispatches of one key are told apart by their order alone. What it drops without an event is noticed, and what waits
untouched in the base class's queue can be taken back.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from airflow_dispatch_provider.bridge import airflow_api, executor_classes
from airflow_dispatch_provider.bridge.metrics import count_failure
from airflow_dispatch_provider.bridge.users_code import error_of, is_for_the_process
from airflow_dispatch_provider.bridge.workload import copy_of
from airflow_dispatch_provider.engines._adopting import Adopting
from airflow_dispatch_provider.engines._outstanding import Out, Outstanding
from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.engines.protocols import CountsWorkers
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    CannotRevoke,
    Ended,
    Rejected,
    Returned,
    Room,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.masking import LateTraceback, describe
from airflow_dispatch_provider.routing.model import EXECUTE_TASK

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOKED_AT = 100
"""Dispatches whose keys are looked for at a time, in turn: a poll costs what changes, and not what runs."""

_LOOK_EVERY = 1.0
"""Seconds between two looks."""

_TRIES = 5
"""Failures in a row after which a job that it took in the first of them may be launched elsewhere."""

_MISSED = 2
"""Looks in a row at which the executor must not know a key any more that it had."""


def _whole(number: Any) -> int | None:
    """
    :raises TypeError: it is no number; ValueError and OverflowError likewise
    """
    return None if number is None else int(number)


class ForeignEngine:
    """An executor behind the protocol of ``engine.Engine``."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        slots: int,
        counts_workers: bool = False,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """
        :param make: gives the executor, prepared but not started; called again after each failure to start
        :param counts_workers: its slots are those of its workers, and ``slots`` as long as it knows of none
        """
        self.slots = slots
        self.counts_workers = counts_workers
        self._can_count = False
        """As seen when it had started: to ask takes longer than to count."""

        self._counted: int | None = None
        self._kinds: frozenset[str] = frozenset()
        self._make, self._clock, self._chance = make, clock, chance
        self._executor: Any = None
        self._job_id = ""
        self._backoff = backoff or Backoff()
        self._name = name
        self._trouble: str | None = None
        self._out = Outstanding()
        self._adopting = Adopting(name)
        self._events: list[Event] = []
        self._look_due = 0.0
        self._troubled = self._stopped = False
        self._doubtful: list[Out] = []
        """It took them in a heartbeat that failed, and none has succeeded since."""

        self._one_by_one = False
        """It failed over something that it was given, nobody knows what: it is given one job at a time until one gets
        through."""

    def __len__(self) -> int:
        """How many dispatches it has, or asks about."""
        return len(self._out) + len(self._adopting)

    def __repr__(self) -> str:
        out, unsent = len(self._out), len(self._out.unsent)
        return f"ForeignEngine({self._name!r}, {self._executor!r}, out {out}, unsent {unsent})"

    def start(self, scheduler_id: str) -> None:
        self._job_id = scheduler_id
        self._start()

    def _start(self) -> None:
        executor = self._call("start", self._make, None)
        if executor is None:
            return
        if self._call("start", lambda: (executor.start(), True)[1], False):
            self._executor = executor
            tasks = frozenset({EXECUTE_TASK})
            self._kinds = self._ask(lambda: executor_classes.workload_kinds(executor), tasks)
            can_count = self._ask(lambda: isinstance(executor, CountsWorkers), False)
            self._can_count = self.counts_workers and can_count
            self._works()
        else:
            # Nobody else would end what it has started by then.
            self._ask(executor.terminate, None)

    @property
    def _slots_now(self) -> int:
        return self.slots if self._counted is None else self._counted

    def room(self) -> Room:
        trouble, retry_at = self._trouble, None if self._trouble is None else self._backoff.until
        if self._executor is None:
            return Room(0, unavailable=trouble or "not started", retry_at=retry_at)
        return Room(self._slots_now, self._takes, {}, trouble, self._kinds, retry_at=retry_at)

    @property
    def _takes(self) -> int:
        if self._one_by_one:
            return max(0, 1 - len(self._out.unsent))
        return 1_000_000

    # Giving

    def submit(self, jobs: Sequence[Job]) -> None:
        """One that it does not take keeps none of the others from it; of what cannot be committed it has nothing."""
        executor = self._executor
        if executor is None:
            self._events += [Returned(job.dispatch, "not started") for job in jobs]
            return
        try:
            with executor_classes.session_for(executor) as session:
                for job in jobs:
                    self._submit(executor, job, session)
        except Exception as error:
            self._failed("queue_workload", error)
            self._undo(jobs, describe(error))

    def _undo(self, jobs: Sequence[Job], reason: str) -> None:
        refused = {event.dispatch for event in self._events if isinstance(event, Rejected)}
        for dispatch in (job.dispatch for job in jobs if job.dispatch not in refused):
            if not self._withdraw(dispatch) and (out := self._out.by_dispatch.get(dispatch)):
                self._out.forget(out)
            self._events.append(Returned(dispatch, reason))

    def _submit(self, executor: Any, job: Job, session: Any) -> None:
        child_key, workload = job.key, copy_of(job.workload)
        try:
            child_key = airflow_api.key_elsewhere(executor, job.key, workload)
            with executor_classes.savepoint(session):
                executor.queue_workload(workload, session)
        except BaseException as error:
            if is_for_the_process(error):
                raise
            log.debug("%s refused a workload.%s", self._name, LateTraceback(error))
            if self._out.oldest(child_key) is None:
                self._ask(lambda: airflow_api.forget_queued_key(executor, child_key), False)
            self._events.append(Rejected(job.dispatch, describe(error)))
            return
        self._out.enter(Out(job.dispatch, child_key, workload))

    # Taking back

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        """Workloads that lie in the base class's queues were certainly not sent."""
        return {dispatch for dispatch in dispatches if self._withdraw(dispatch)}

    def _withdraw(self, dispatch: int) -> bool:
        out = self._out.unsent.get(dispatch)
        if out is None:
            return False
        if not self._call(
            "withdrawal", lambda: airflow_api.forget_queued_key(self._executor, out.child_key), False
        ):
            return False
        self._out.forget(out)
        return True

    def revoke(self, dispatch: int, over: bool = False) -> CannotRevoke | None:
        """The contract of ``revoke_task``: when it returns, the executor has forgotten the task. What is over is left
        to the executor, which may still be fetching its log."""
        self._adopting.forget(dispatch)
        out = self._out.by_dispatch.get(dispatch)
        if over and out is not None:
            if not self._withdraw(dispatch):
                self._out.forget(out)
        elif out is None and not over:
            self._events.append(Unknown(dispatch))
        elif out is not None and self._withdraw(dispatch):
            self._events.append(Returned(dispatch))
        elif out is not None:
            return self._revoke(out)
        return None

    def forget(self, dispatch: int) -> None:
        """Not before a later dispatch of its key, whose end its own would be taken for."""
        self._adopting.forget(dispatch)
        out = self._out.by_dispatch.get(dispatch)
        if out is not None and self._out.is_alone(out) and not self._withdraw(dispatch):
            self._out.forget(out)

    def _revoke(self, out: Out) -> CannotRevoke | None:
        try:
            self._stop(out)
        except NotImplementedError:
            return CannotRevoke(out.dispatch)
        except BaseException as error:
            if is_for_the_process(error):
                raise
            self._failed("revoke_task", error)
        else:
            self._out.forget(out)
            self._events.append(Ended(out.dispatch, Outcome.FAILED, None, "revoked"))
        return None

    def _stop(self, out: Out) -> None:
        if out.is_task:
            self._executor.revoke_task(ti=out.ti or executor_classes.TaskOf(out.workload, self._job_id))
        elif hasattr(self._executor, "fail_connection_test"):
            self._executor.fail_connection_test(out.child_key)

    def adopt(self, found: Sequence[Found]) -> None:
        """At the next poll. What it has itself it is not asked about: one that was recalled and began all the same is
        nobody else's, and most executors adopt nothing."""
        here = [each for each in found if each.dispatch in self._out.by_dispatch]
        self._events += [Adopted(each.dispatch) for each in here]
        self._adopting.add([each for each in found if each not in here])

    def _adopt(self) -> None:
        for found, child_key, has in self._adopting.ask(self._executor, self._clock()):
            if has:
                out = Out(found.dispatch, child_key, None, found.ti)
                out.sent = True
                self._out.enter(out)
            self._events.append((Adopted if has else Unknown)(found.dispatch))

    # Working

    def poll(self) -> list[Event]:
        """Its heartbeat, and what came of it; while it fails, it is left alone for longer each time."""
        may = self._backoff.due(self._clock()) and not self._stopped
        if self._executor is None and may:
            self._start()
        if self._executor is not None:
            self._troubled = False
            if may:
                self._beat(self._executor)
            self._take_events(self._executor)
            if may and not self._troubled:
                self._works()
                if self._adopting:
                    self._adopt()
            self._look()
        events, self._events = self._events, []
        return events

    def _beat(self, executor: Any) -> None:
        if self._can_count:
            self._counted = self._call("worker_slots", lambda: _whole(executor.worker_slots()), None)
        executor.parallelism = executor_classes.parallelism_for(executor, self._slots_now)
        given = list(self._out.unsent.values())
        if (error := error_of(executor.heartbeat)) is None:
            self._one_by_one = self._one_by_one and not given
            self._doubtful = []
        else:
            self._find_the_culprit(executor, given, error)

    def _find_the_culprit(self, executor: Any, given: list[Out], error: BaseException) -> None:
        """Its heartbeat has failed with these. Without them it fails again, or they are the trouble: a single one is to
        blame itself, of several each is tried alone, also where only one of them was still waiting. Heartbeats with
        nothing to send prove nothing: where different jobs are rejected and none gets through, it is the backend's
        trouble."""
        taken = [out for out in given if self._take_out(out)]
        again = error_of(executor.heartbeat) if taken else error
        what = Rejected if again is None and len(given) == 1 else Returned
        self._events += [what(out.dispatch, describe(error)) for out in taken]
        self._doubtful += [out for out in given if out.ran]
        if again is not None:
            self._failed("heartbeat", again)
            if self._backoff.failures >= _TRIES:
                self._let_go(describe(again))
            return
        log.debug("%s failed over what it was given.%s", self._name, LateTraceback(error))
        self._one_by_one = True

    def _let_go(self, reason: str) -> None:
        """Whether those have begun, the database knows; without an answer they would wait for it for ever."""
        for out in self._doubtful:
            if self._out.by_dispatch.get(out.dispatch) is out:
                self._out.forget(out)
                self._events.append(Ended(out.dispatch, Outcome.FAILED, None, reason))
        self._doubtful = []

    def _take_out(self, out: Out) -> bool:
        """Whether it was still in the base class's queues. What had left them may be lost: see ``_look``."""
        out.ran = not self._withdraw(out.dispatch)
        return not out.ran

    def _take_events(self, executor: Any) -> None:
        for child_key, value in self._new_events(executor).items():
            out = self._out.oldest(child_key)
            if out is not None:
                self._ask(partial(self._take_event, out, value), None)
        if self._out.unsent:
            nothing: list[Out] = []
            for out in self._ask(lambda: self._sent(executor), nothing):
                self._note_sent(out, None)

    def _sent(self, executor: Any) -> list[Out]:
        """Those that have left the base class's queues."""
        queues = [queue for queue in airflow_api.queues(executor) if queue]
        unsent = list(self._out.unsent.values())
        if queues:
            return [out for out in unsent if not any(out.child_key in queue for queue in queues)]
        return unsent

    def _new_events(self, executor: Any) -> dict[Any, Any]:
        nothing: dict[Any, Any] = {}
        if not self._ask(lambda: executor_classes.may_have_events(executor), True):
            return nothing
        return self._call("get_event_buffer", lambda: dict(executor.get_event_buffer()), nothing)

    def _take_event(self, out: Out, value: Any) -> None:
        """Of two dispatches of one key, the older one's; the scheduler's own events are not among them. Whether a task
        has begun, and all of it is over, its row says: a task that deferred runs twice under one key."""
        state, info = executor_classes.state_of_event(value)
        if executor_classes.is_terminal_state(state):
            how = Outcome.FAILED if state == "failed" else Outcome.SUCCESS
            reason = self._ask(lambda: str(info) if info else "", None)
            kept = value if executor_classes.is_pair(value) and reason is not None else None
            began = True if how is Outcome.SUCCESS and not out.is_task else None
            end = Ended(out.dispatch, how, began, reason or "", kept)
            self._out.forget(out)
            self._events.append(end)
        elif state == "running" and not out.is_task:
            self._note_sent(out, None)
            self._events.append(Began(out.dispatch, info))
        elif state in ("queued", "running"):
            self._note_sent(out, info)

    def _note_sent(self, out: Out, info: Any) -> None:
        self._out.unsent.pop(out.dispatch, None)
        if not out.sent or info is not None:
            out.sent = True
            self._events.append(Sent(out.dispatch, info))

    def _look(self) -> None:
        """A second witness of an end: a key that was running and is known no more. Some executors tell nothing."""
        now = self._clock()
        if now < self._look_due:
            return
        self._look_due = now + _LOOK_EVERY
        for out in self._out.in_turn(_LOOKED_AT):
            self._look_at(out)

    def _look_at(self, out: Out) -> None:
        known = self._ask(lambda: airflow_api.has_key(self._executor, out.child_key), True)
        if known:
            out.ran, out.missed = out.ran or out.sent, 0
        elif out.ran:
            out.missed += 1
        if out.missed >= _MISSED:
            self._out.forget(out)
            self._events.append(
                Ended(out.dispatch, Outcome.FAILED, None, "the executor does not know it any more")
            )

    def stop(self, deadline: float) -> set[int]:
        """Airflow's ``end`` takes no time limit: an executor waits as long as it likes, unless there is no time at all.
        Its last events come from later polls."""
        self._stopped = True
        if self._executor is None:
            return set()
        unsent = self.withdraw(list(self._out.unsent))
        if deadline > self._clock():
            self._call("end", lambda: self._executor.end(), None)
        else:
            self._call("terminate", lambda: self._executor.terminate(), None)
        return unsent

    # Failing

    def _call(self, what: str, action: Callable[[], T], otherwise: T) -> T:
        try:
            return action()
        except BaseException as error:
            if is_for_the_process(error):
                raise
            self._failed(what, error)
            return otherwise

    def _ask(self, question: Callable[[], T], otherwise: T) -> T:
        """A question that has a safe answer where the executor has none."""
        try:
            return question()
        except BaseException as error:
            if is_for_the_process(error):
                raise
            log.debug("Backend %r gives no answer.%s", self._name, LateTraceback(error))
            return otherwise

    def _failed(self, what: str, error: BaseException) -> None:
        self._backoff = self._backoff.failed(self._clock(), self._chance())
        self._note(what, describe(error), LateTraceback(error))

    def _note(self, what: str, reason: str, details: LateTraceback) -> None:
        """It cannot be used now. Said once; what repeats itself until it works is for debugging."""
        news = self._trouble is None
        level = logging.ERROR if news else logging.DEBUG
        message = "Backend %r failed in %s and gets no new work until it works again. %s%s"
        log.log(level, message, self._name, what, reason, details)
        if news:
            count_failure(self._name)
        self._trouble, self._troubled = reason, True

    def _works(self) -> None:
        self._backoff = self._backoff.over()
        if self._trouble is not None:
            log.info("Backend %r works again.", self._name)
            self._trouble = None
