# SPDX-License-Identifier: Apache-2.0
"""The machine of the thread that calls the API server: told what came of a step, it says what to do next.

Pure: it knows no clock, no thread, no client and no random number. Times are monotonic seconds, and given.

1. A create whose answer was lost is asked again under the same name, and is neither returned nor withdrawn.
2. What a job meets alone, while a neutral pod could be created, is its own: it is rejected. Where there is only no room
   for a pod of its size now, it waits here, behind the others.
3. What all pods of a namespace meet closes that namespace; its jobs are returned with its name, by which they are held
   until it is open. So is a job whose pod turns out to belong there.
4. What every request meets makes the backend unusable; one request at a time then asks whether it is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass

from airflow_dispatch_provider.engines.engine import Event
from airflow_dispatch_provider.engines.kubernetes._lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes._pods import Order, Pods, Seen
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes._steps import AskNamespace, AskServer, Create, Step, Wait
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.engines.kubernetes.judgement import WAITS, counts, scope_of
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Room,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome

LOOK = 5.0
"""Seconds between two looks at jobs whose namespace cannot be watched now."""

_TAKEN = "Another pod has this name"
_WAITS_FOR_ROOM = Backoff(1.0, 60.0)


@dataclass(slots=True, eq=False)
class _Unsent:
    """A dispatch that is not known to have a pod."""

    dispatch: int
    key: Hashable
    lane: str | None = None
    """Its namespace; None until its pod has been built."""

    backoff: Backoff = _WAITS_FOR_ROOM
    asking: bool = False
    """It is being built, or asked for."""

    doubtful: bool = False
    """The server may have created it: an answer was lost."""

    claimed: bool = False
    """It is the one that is tried in a namespace that may be closed."""

    revoked: bool = False

    @property
    def is_certain(self) -> bool:
        """It has certainly no pod."""
        return not self.asking and not self.doubtful


class Machine:
    """Of one engine. Not thread-safe."""

    def __init__(
        self,
        name: str,
        lanes: Lanes,
        pods: Pods,
        most: int = 250,
        limit: int = 32,
        chance: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """
        :param name: of the backend
        :param most: how many may be on their way at a time
        :param limit: requests at a time
        :param chance: from 0 to 1; see ``Backoff``
        """
        self.lanes, self.pods = lanes, pods
        self.trouble: str | None = None
        """Why the server serves nobody; None: it does."""

        self._name, self._most, self._limit, self._chance = name, most, limit, chance
        self._unsent: dict[int, _Unsent] = {}
        self._sought: dict[int, bool | None] = {}
        """Being looked for; True or False where it was revoked meanwhile: whether it is over in Airflow."""

        self._asking = 0
        self._throttled = False
        self._backoff = Backoff(0.5, 30.0)
        self._until = -math.inf

    def __repr__(self) -> str:
        problem = self.trouble or self.lanes.problem or self.lanes.full
        state = f"pods {len(self.pods)}, unsent {self.unsent}" + (f", {problem}" if problem else "")
        return f"Machine({state})"

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    def room(self, slots: int, trouble: str | None = None) -> Room:
        """
        :param trouble: why the server cannot be used, beyond what is known here
        """
        on_their_way = sum(not (job.doubtful or job.backoff.failures) for job in self._unsent.values())
        takes = 0 if self.lanes.full else max(0, self._most - on_their_way)
        unavailable = trouble or self.trouble or self.lanes.problem
        retry_at = None if self.trouble is None else self._until
        return Room(slots, takes, self.lanes.reasons(), unavailable, retry_at=retry_at)

    def take_events(self) -> list[Event]:
        events, self.pods.events = self.pods.events, []
        return events

    def take_orders(self) -> list[Order]:
        orders, self.pods.orders = self.pods.orders, []
        return orders

    # Giving and taking back

    def submit(self, jobs: Iterable[tuple[int, Hashable]]) -> None:
        """Dispatches, each with the key of its job."""
        self._unsent.update({dispatch: _Unsent(dispatch, key) for dispatch, key in jobs})

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        """Those of them that are certainly not with the server."""
        taken = {
            number for number in dispatches if number in self._unsent and self._unsent[number].is_certain
        }
        for number in taken:
            self._leave(self._unsent[number])
        return taken

    def revoke(self, dispatch: int, now: float, *, over: bool) -> None:
        """Remove its pod, wherever that is.

        :param over: its task is over in Airflow, and nobody waits for an answer
        """
        if dispatch in self._sought:
            self._sought[dispatch] = over
        elif self.forget(dispatch):
            return
        elif over:
            self.pods.let_go(dispatch, now)
        else:
            self.pods.revoke(dispatch)

    def forget(self, dispatch: int) -> bool:
        """Create no pod for it, or leave the one that has started alone; whether none is known."""
        self.pods.keep(dispatch)
        job = self._unsent.get(dispatch)
        if job is None or self.pods.is_there(dispatch):
            return False
        self._revoke_unsent(job)
        return True

    def _revoke_unsent(self, job: _Unsent) -> None:
        """Where it is being asked for, the answer decides."""
        job.revoked = True
        if job.asking:
            self.pods.revoke(job.dispatch)
        else:
            self._settle_revoked(job)

    def _settle_revoked(self, job: _Unsent) -> None:
        self._leave(job)
        if job.doubtful:
            self._say(Ended(job.dispatch, Outcome.FAILED, None, "revoked"))
        else:
            self._say(Returned(job.dispatch, "revoked"))

    # Steps

    def next(self, now: float) -> Step:
        """The next step that may be done beside those that are under way."""
        self.pods.end_overdue(now)
        cautious = self.trouble is not None or self._throttled
        if self._asking >= (1 if cautious else self._limit):
            return Wait(math.inf)
        if now < self._until:
            return Wait(self._until)
        step = self._choose(now) or (AskServer() if cautious else None)
        if step is None:
            return Wait(self._next_due(now))
        self._asking += 1
        return step

    def _choose(self, now: float) -> Step | None:
        job = next((job for job in self._unsent.values() if self._may_ask(job, now)), None)
        if job is not None:
            job.asking = True
            job.claimed = job.lane is not None and self.lanes.claim(job.lane, now)
            return Create(job.dispatch)
        for namespace in self.lanes.due(now):
            if self.lanes.claim(namespace, now):
                return AskNamespace(namespace)
        return None

    def _may_ask(self, job: _Unsent, now: float) -> bool:
        return not job.asking and job.backoff.due(now) and self.lanes.is_open(job.lane, now)

    def _next_due(self, now: float) -> float:
        waiting = [job for job in self._unsent.values() if not job.asking]
        due = (job.backoff.until for job in waiting if job.backoff.until > now)
        look, lane = now + LOOK, self.lanes.next_due()
        return min(self.pods.next_end, lane if lane > now else look, look if waiting else math.inf, *due)

    def built(self, dispatch: int, name: PodName, mark: str | None, now: float) -> bool:
        """Its pod is known, and whether that may be asked for now."""
        job = self._unsent[dispatch]
        job.lane = name.namespace
        if job.revoked:
            self._unasked(job, now)
            self._settle_revoked(job)
        elif not (job.claimed or self.lanes.claim(name.namespace, now)):
            self._asked(job)
            self._return(job, self.lanes.why_closed(name.namespace))
        elif not self.pods.expect(dispatch, name, mark):
            self._unasked(job, now)
            self._reject(job, _TAKEN)
        else:
            return True
        return False

    def invalid(self, dispatch: int, reason: str, now: float) -> None:
        """No pod can be made of it."""
        job = self._unsent[dispatch]
        self._unasked(job, now)
        self._refuse(job, reason, now)

    def answered(
        self,
        dispatch: int,
        answer: Answer,
        now: float,
        *,
        doubtful: bool = False,
        neutral: Answer | None = None,
    ) -> None:
        """The server's answer to its create.

        :param doubtful: it may have been created all the same
        :param neutral: what a neutral pod meets there, where the answer does not tell who else would meet the same
        """
        job = self._unsent[dispatch]
        self._asked(job)
        job.doubtful = doubtful
        lane = job.lane or ""
        if answer.verdict is Verdict.DONE:
            self._works()
            self.lanes.open(lane)
            self._created(job)
        elif self.pods.name_of(dispatch) is None or self.pods.is_there(dispatch):
            self.lanes.release(lane, now)
            self._created(job)
        elif answer.verdict in WAITS:
            self._judge(job, answer, neutral or answer, now)
        else:
            self.lanes.release(lane, now)
            self._refuse(job, answer.reason, now)

    def _refuse(self, job: _Unsent, reason: str, now: float) -> None:
        """It can have no pod, unless an earlier request has created it."""
        if job.revoked:
            self._settle_revoked(job)
        elif job.doubtful:
            self._try_later(job, now)
        else:
            self._reject(job, reason)

    def _created(self, job: _Unsent) -> None:
        """There is its pod, or there was, as a watch has told."""
        del self._unsent[job.dispatch]
        name = self.pods.name_of(job.dispatch)
        if name is not None:
            self.pods.confirm(name)

    def _judge(self, job: _Unsent, answer: Answer, neutral: Answer, now: float) -> None:
        lane = job.lane or ""
        others = self.lanes.strike(lane, answer.verdict, job.key)
        scope = scope_of(answer, neutral, others)
        known = answer.scope is not Scope.UNKNOWN
        if scope is Scope.SERVER:
            self._failed(neutral, now)
            self.lanes.release(lane, now)
        elif scope is Scope.LANE or (neutral.verdict is Verdict.FULL and not known):
            self._close(lane, neutral if neutral.verdict in WAITS else answer, now, job)
        elif neutral.verdict is Verdict.DONE:
            self._works()
            self.lanes.open(lane)
        else:
            self.lanes.release(lane, now)
        if job.revoked:
            self._settle_revoked(job)
        else:
            self._not_created(job, answer, scope, counts(answer, neutral, others), now)

    def _not_created(self, job: _Unsent, answer: Answer, scope: Scope, counted: bool, now: float) -> None:
        """The cases, in this order:

        1. it may have been created: it is asked for again;
        2. its trouble is its own: it is rejected, unless there is only no room for it now;
        3. the server has too much to do: it is asked for again, unless its namespace has been closed meanwhile;
        4. nothing can be created there: it is returned.
        """
        if job.doubtful:
            self._to_the_back(job)
        elif scope is Scope.JOB and counted:
            self._reject(job, answer.reason)
        elif scope is Scope.JOB:
            self._try_later(job, now)
        elif answer.verdict is not Verdict.THROTTLED or not self.lanes.is_open(job.lane, now):
            self._return(job, answer.reason)

    def namespace_answered(self, namespace: str, answer: Answer, now: float) -> None:
        """Answers to neutral pods in a closed namespace."""
        self._asking -= 1
        if answer.scope is Scope.SERVER:
            self._failed(answer, now)
            self.lanes.release(namespace, now)
        elif answer.verdict in WAITS:
            self.lanes.close(namespace, answer, now)
        elif answer.verdict is Verdict.DONE:
            self.lanes.open(namespace)
        else:
            self.lanes.doubt(namespace)

    def server_answered(self, trouble: Answer | None, now: float) -> None:
        """Why the server serves nobody; None: it does."""
        self._asking -= 1
        if trouble is None:
            self._works()
        else:
            self._failed(trouble, now)

    def _unasked(self, job: _Unsent, now: float) -> None:
        """The server was not asked, and has told nothing of the namespace."""
        self._asked(job)
        self.lanes.release(job.lane or "", now)

    def _asked(self, job: _Unsent) -> None:
        self._asking -= 1
        job.asking = job.claimed = False

    # What becomes of jobs

    def _say(self, event: Event) -> None:
        self.pods.events.append(event)

    def _leave(self, job: _Unsent) -> None:
        del self._unsent[job.dispatch]
        self.pods.drop(job.dispatch, job.doubtful)

    def _to_the_back(self, job: _Unsent) -> None:
        self._unsent[job.dispatch] = self._unsent.pop(job.dispatch)

    def _try_later(self, job: _Unsent, now: float) -> None:
        """After a delay that grows each time."""
        job.backoff = job.backoff.failed(now, self._chance())
        self._to_the_back(job)

    def _return(self, job: _Unsent, reason: str) -> None:
        self._leave(job)
        self._say(Returned(job.dispatch, reason, job.lane))

    def _reject(self, job: _Unsent, reason: str) -> None:
        """Where the server works, that is nobody else's trouble."""
        self._leave(job)
        self._say(Rejected(job.dispatch, reason))
        if self.trouble is None and not self.lanes.problem:
            self._say(Recovered(self._name))

    def _close(self, namespace: str, answer: Answer, now: float, tried: _Unsent) -> None:
        """The others there are returned, too."""
        self.lanes.close(namespace, answer, now)
        for job in list(self._unsent.values()):
            if job is not tried and job.lane == namespace and job.is_certain:
                self._return(job, answer.reason)

    def _works(self) -> None:
        self.trouble, self._throttled = None, False
        self._backoff, self._until = self._backoff.over(), -math.inf

    def _failed(self, answer: Answer, now: float) -> None:
        """The server serves nobody, or wants fewer requests."""
        if answer.verdict is Verdict.THROTTLED:
            self._throttled = True
        else:
            self.trouble = answer.reason
        self._backoff = self._backoff.failed(now, self._chance())
        self._until = max(self._backoff.until, now + (answer.retry_after or 0.0))

    # What is seen of pods

    def see(self, seen: Seen) -> None:
        """A list or a watch shows that pod. One that exists need not be asked for again."""
        dispatch = self.pods.see(seen)
        job = self._unsent.get(dispatch) if dispatch is not None else None
        if job is not None and not job.asking:
            del self._unsent[job.dispatch]

    # Adoption

    def seek(self, dispatches: Iterable[int]) -> list[int]:
        """Those of them that are not looked for already."""
        new = [number for number in dispatches if number not in self._sought]
        self._sought.update(dict.fromkeys(new))
        return new

    def found(self, dispatch: int, seen: Seen, runs: bool, now: float) -> None:
        """A dead scheduler had a pod for it.

        :param runs: the database has it as RUNNING
        """
        over = self._sought.pop(dispatch, None)
        if not self.pods.adopt(dispatch, seen.pod, seen.mark, seen.observation.started):
            self._say(Unknown(dispatch))
            return
        if over is None:
            self._say(Adopted(dispatch, runs))
        else:
            self.revoke(dispatch, now, over=over)

    def absent(self, dispatches: Iterable[int]) -> None:
        """There is no pod for them."""
        for dispatch in dispatches:
            if dispatch in self._sought:
                del self._sought[dispatch]
                self._say(Unknown(dispatch))

    # The end

    def withdraw_all(self) -> set[int]:
        """All that are certainly not with the server."""
        return self.withdraw(list(self._unsent))
