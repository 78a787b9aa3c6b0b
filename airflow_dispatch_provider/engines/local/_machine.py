# SPDX-License-Identifier: Apache-2.0
"""The dispatches that a local engine has, and what it means for each when its process starts, begins or ends.

Pure: it knows no process, clock or thread. Times are monotonic seconds, and given.
"""

from __future__ import annotations

import signal
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from airflow_dispatch_provider.engines.engine import Event
from airflow_dispatch_provider.engines.local import messages
from airflow_dispatch_provider.engines.local.messages import Gone, Kill, NotStarted, Started
from airflow_dispatch_provider.lifecycle.events import (
    EXECUTION_API,
    Began,
    Broken,
    Ended,
    Recovered,
    Returned,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome

KILL_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for what has begun: ``on_kill`` of its operator runs in them."""

OVER_GRACE = 60.0
"""At least, in seconds."""

NOT_BEGUN = "Its process has ended, and the Execution API had not let the task start."

UNSEEN = "The process ended after its template process had, so that its result was not seen."


@dataclass(slots=True)
class _Out:
    """A dispatch that has a process, or is about to get one."""

    key: Hashable
    task: Hashable
    """The same for each try of a task."""

    is_task: bool
    begun: bool = False
    pid: int | None = None


class Machine:
    """Of one engine; changed by its engine alone."""

    def __init__(self, name: str, over_grace: float = OVER_GRACE) -> None:
        """
        :param name: the backend's
        :param over_grace: seconds for which a process may go on whose task is over in Airflow
        """
        self._over_grace = over_grace
        self._out: dict[int, _Out] = {}
        self._end_at: dict[int, float] = {}
        """When each is ended that is over in Airflow."""

        self._by_pid: dict[int, int] = {}
        """The dispatch that has each process."""

        self._api = _ApiWitness(name)

    def __len__(self) -> int:
        return len(self._out)

    def __iter__(self) -> Iterator[int]:
        return iter(self._out)

    def __contains__(self, dispatch: object) -> bool:
        return dispatch in self._out

    def key(self, dispatch: int) -> Hashable:
        """The job of a dispatch that is out."""
        return self._out[dispatch].key

    def enter(
        self, dispatch: int, key: Hashable, *, is_task: bool, begun: bool = False, task: str = ""
    ) -> None:
        """It was handed to the template process.

        :param key: differs between jobs; two dispatches of one job may have the same
        :param task: differs between tasks; two tries of one task have the same
        """
        self._out[dispatch] = _Out(key, task or key, is_task, begun)

    def adopt(self, dispatch: int, key: Hashable, pid: int, *, begun: bool) -> list[Event]:
        """The process of a task was found. One that an earlier dispatch of this try has is this one's from now on: what
        the earlier one was let go for, and was to be ended for after a while, is no reason to end this one."""
        events: list[Event] = []
        earlier = self._by_pid.get(pid, dispatch)
        known = self._out.get(earlier)
        if known is not None and known.key == key:
            begun = begun or known.begun
            self._leave(earlier)
            events += [Unknown(earlier)] if earlier != dispatch else []
        self.enter(dispatch, key, is_task=True, begun=begun)
        self._has(dispatch, pid)
        return events

    def _has(self, dispatch: int, pid: int) -> None:
        self._out[dispatch].pid, self._by_pid[pid] = pid, dispatch

    def _leave(self, dispatch: int) -> None:
        pid = self._out.pop(dispatch).pid
        self._end_at.pop(dispatch, None)
        if pid is not None and self._by_pid.get(pid) == dispatch:
            del self._by_pid[pid]

    def clear(self) -> None:
        """Everything was ended from outside, and nobody waits for news."""
        self._out.clear()
        self._end_at.clear()
        self._by_pid.clear()

    def handle(self, *happened: messages.Event) -> list[Event]:
        """Take in news of processes, in their order; those of unknown dispatches are late, and mean nothing."""
        events: list[Event] = []
        for each in happened:
            out = self._out.get(each.number)
            if out is not None:
                events += self._note(each, out)
        return events

    def _note(self, event: messages.Event, out: _Out) -> list[Event]:
        if isinstance(event, Started):
            self._has(event.number, event.pid)
            return [Sent(event.number)]
        if isinstance(event, messages.Began):
            out.begun = True
            recovery = self._api.answered() if out.is_task else []
            return [Began(event.number), *recovery]
        self._leave(event.number)
        if isinstance(event, NotStarted):
            return [Returned(event.number, event.reason)]
        if isinstance(event, Gone):
            return [end_unseen(event.number, is_task=out.is_task, begun=out.begun)]
        trouble = self._api.ended(out.task, event) if out.is_task else []
        return [*trouble, end_of(event, is_task=out.is_task)]

    def notice_run(self, dispatch: int) -> list[Event]:
        """It runs its task, which nobody has heard; nothing, where that is known."""
        out = self._out.get(dispatch)
        return self._note(messages.Began(dispatch), out) if out is not None and not out.begun else []

    def revoke(self, dispatch: int, now: float, *, over: bool, unheard: bool) -> list[Kill]:
        """Stop a process: at once and without grace if it has not begun, as a process that asked for leave to start in
        its grace would leave a task that is RUNNING and runs nowhere.

        :param over: its task is over in Airflow, so that it may still be writing its log
        :param unheard: nobody hears from this process whether it has begun
        """
        out = self._out.get(dispatch)
        if out is None:
            return []
        if over and (out.begun or unheard):
            self._end_at[dispatch] = now + self._over_grace
            return []
        if out.begun:
            return [Kill(dispatch, KILL_GRACE)]
        return [Kill(dispatch, 0.0, unless_begun=out.is_task)]

    def due(self, now: float) -> list[Kill]:
        """Those that were over, and have had the time that they get. The task of one that had not begun then may have
        been queued again since."""
        due = [dispatch for dispatch, moment in self._end_at.items() if moment <= now]
        for dispatch in due:
            del self._end_at[dispatch]
        return [Kill(dispatch, KILL_GRACE, unless_begun=not self._out[dispatch].begun) for dispatch in due]


def end_of(event: messages.Ended, *, is_task: bool) -> Ended:
    """The end of a process that the template process has seen. That of a task which exits with 0 has told the
    Execution API how the task ended; without having begun, it was refused. Nothing runs before the API's answer, and
    its arrival is told before anything runs."""
    if event.status:
        reason = event.error or describe_status(event.status)
        nothing_ran = is_task and event.began is None
        return Ended(event.number, Outcome.FAILED, event.began, reason, nothing_ran=nothing_ran)
    if is_task and not event.began:
        return Ended(event.number, Outcome.FAILED, event.began, NOT_BEGUN)
    return Ended(event.number, Outcome.SUCCESS, True)


def end_unseen(dispatch: int, *, is_task: bool, begun: bool) -> Ended:
    """The end of a process that had no template process any more. A task's true state is in the database: where it had
    begun, Airflow compares it with the success that is reported here. Other workloads have no other witness."""
    if is_task and begun:
        return Ended(dispatch, Outcome.SUCCESS, True, UNSEEN)
    return Ended(dispatch, Outcome.FAILED, True if begun else None, UNSEEN)


def describe_status(status: int) -> str:
    """An exit code, or minus a signal, in words."""
    if status >= 0:
        return f"The supervising process ended with exit code {status}."
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"The supervising process was ended by {name}."


class _ApiWitness:
    """Whether the Execution API answers, as tasks that wanted to begin have met it."""

    def __init__(self, backend: str) -> None:
        self._backend, self._broken = backend, False
        self._suspect: Hashable | None = None

    def answered(self) -> list[Event]:
        """A task was let start."""
        self._suspect = None
        if not self._broken:
            return []
        self._broken = False
        return [Recovered(EXECUTION_API)]

    def ended(self, task: Hashable, event: messages.Ended) -> list[Event]:
        """A server that was reached, and gave one task an error or no answer: that is the task's own, until a different
        one meets the same with no beginning in between. One that cannot be reached answers nobody."""
        if not event.unanswered or event.began:
            return []
        if event.failing and self._suspect in (None, task):
            self._suspect = task
            return []
        self._broken = True
        return [Broken(EXECUTION_API, event.error, self._backend)]
