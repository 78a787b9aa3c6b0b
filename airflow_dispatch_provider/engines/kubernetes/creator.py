# SPDX-License-Identifier: Apache-2.0
"""Makes pods of jobs, some at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection
from typing import Any

from airflow_dispatch_provider.bridge.airflow_api import Workload
from airflow_dispatch_provider.engines.kubernetes import witness
from airflow_dispatch_provider.engines.kubernetes._creating import FRESH as FRESH
from airflow_dispatch_provider.engines.kubernetes._creating import Factory as Factory
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.engines.kubernetes.judgement import counts, scope_of
from airflow_dispatch_provider.engines.kubernetes.lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask
from airflow_dispatch_provider.engines.kubernetes.model import Job, Rejected, Report, Stuck
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble, delay
from airflow_dispatch_provider.engines.kubernetes.witness import Witness
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

LOOK = 5.0
"""Seconds between two looks at jobs whose namespace cannot be watched now."""

_WAITS = (Verdict.FULL, Verdict.TROUBLE, Verdict.THROTTLED)


class Creator:
    """Creates what is in the outbox, with at most ``limit`` requests at a time.

    A job that meets trouble which nothing else meets goes behind the others, with growing delays. What all pods of a
    namespace meet closes that namespace. Only what every request meets stops all; one request at a time then asks
    whether it is over.
    """

    def __init__(
        self,
        api: PodApi,
        outbox: Outbox,
        factory: Factory,
        tracker: Tracker,
        report: Callable[[Report], None],
        lanes: Lanes,
        *,
        limit: int,
        own: Collection[str | None],
        launch_retries: int = 10,
        home: str | None = None,
        renew: Callable[[Workload], Workload] = lambda workload: workload,
    ) -> None:
        """
        :param own: namespaces that the backend is configured for; what is wrong with another one is the affair of
            the task that names it
        :param launch_retries: how often a job that is in trouble alone is tried again before it fails
        :param home: see ``Witness``
        :param renew: gives a workload a new token where its own is not fresh
        """
        self._api, self._outbox, self._factory, self._tracker = api, outbox, factory, tracker
        self._report, self._lanes, self._limit, self._own = report, lanes, limit, own
        self._launch_retries, self._renew = launch_retries, renew
        self._witness = Witness(api, factory.plain, home, own)
        self._work = asyncio.Event()
        self._wait_until = 0.0
        self._running: dict[asyncio.Task[None], float] = {}
        self.trouble = Trouble("Creating pods")
        self._throttled = Trouble("Creating pods at full speed")

    def wake(self) -> None:
        """There may be something in the outbox."""
        self._work.set()

    @property
    def sending(self) -> int:
        """Jobs that may be with the server, and are not known to be."""
        return len(self._running)

    @property
    def busy_since(self) -> float | None:
        """Since when it waits for an answer to anything (monotonic seconds); None: it waits for none."""
        asked = min(tuple(self._running.values()), default=None)
        return None if asked is None else max(asked, self._api.answered)

    async def ping(self) -> None:
        """Ask for something that costs the server nothing."""
        await self._witness.server()

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            if (pause := self._wait_until - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            job = await self._next()
            if job is not None:
                self._start(self._create(job))
                if self._cautious:
                    await asyncio.wait(self._running)
            elif self._cautious:
                await self._ask_server()
            elif (namespace := next(self._lanes.due(), None)) and self._lanes.claim(namespace):
                self._start(self._ask_namespace(namespace))
            else:
                await self._idle()

    @property
    def _cautious(self) -> bool:
        return self.trouble.reason is not None or self._throttled.reason is not None

    async def _next(self) -> Job | None:
        while len(self._running) >= self._limit:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        while job := self._outbox.take(time.monotonic(), self._lanes.is_open):
            if not job.doubtful or self._is_wanted(job):
                return job
        return None

    async def _idle(self) -> None:
        self._work.clear()
        if self._outbox:
            return
        due = min(self._lanes.next_due(), self._outbox.next_due(self._lanes.is_open))
        pause = max(0.0, due - time.monotonic())
        if self._outbox.waiting:
            pause = min(pause, LOOK)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._work.wait(), None if pause == math.inf else pause)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._running[task] = time.monotonic()
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._work.set()

    # One job

    async def _create(self, job: Job) -> None:
        try:
            await self._attempt(job)
        except Exception as error:
            log.exception("Creating the pod of %s failed", job.key)
            self._lanes.release(job.lane or "")
            self._set_aside(job, Answer(Verdict.TROUBLE, describe(error)), counted=True)

    async def _attempt(self, job: Job) -> None:
        if not self._build(job):
            return
        namespace = job.pod.namespace
        if not self._lanes.claim(namespace):
            self._outbox.put_off(job, 0.0)
            return
        self._tracker.expect(job.pod, job.key)
        manifest = job.manifest or {}
        answer, doubtful = await witness.create(self._api, manifest, self._own, sent_before=job.doubtful)
        job.doubtful = job.doubtful or doubtful
        if answer.verdict is Verdict.DONE:
            self._over()
            self._lanes.open(namespace)
            self._witness.has_created(manifest)
            self._tracker.confirm(job.pod)
        elif answer.verdict in _WAITS:
            await self._judge(job, answer)
        else:
            self._lanes.release(namespace)
            self._give_up(job, answer.reason)

    def _build(self, job: Job) -> bool:
        """Give it a manifest, whose name it keeps and whose token is fresh; False where it can have none."""
        now, before = time.monotonic(), job.manifest
        stale = now - job.minted >= FRESH
        if before is not None and not stale:
            return True
        try:
            if stale:
                job.workload, job.minted = self._renew(job.workload), now
            manifest = self._factory.build(job.workload, job.key)
        except InvalidTask as error:
            self._give_up(job, str(error))
            return False
        if before is not None:
            manifest["metadata"].update(name=job.pod.name, namespace=job.pod.namespace)
        job.manifest = manifest
        return True

    async def _judge(self, job: Job, answer: Answer) -> None:
        namespace = job.pod.namespace
        known = answer.scope is not Scope.UNKNOWN
        neutral = answer if known else await self._witness.ask(namespace)
        others = self._lanes.strike(namespace, answer.verdict, job.key)
        scope = scope_of(answer, neutral, others)
        if scope is Scope.SERVER:
            self._note_trouble(neutral)
            self._lanes.release(namespace)
        elif scope is Scope.LANE or (neutral.verdict is Verdict.FULL and not known):
            self._lanes.close(namespace, neutral if neutral.verdict in _WAITS else answer)
        elif neutral.verdict is Verdict.DONE:
            self._over()
            self._lanes.open(namespace)
        else:
            self._lanes.release(namespace)
        if self._is_wanted(job) and (job.doubtful or self._tracker.drop(job.pod)):
            self._again(job, answer, scope, counts(answer, neutral, others))

    def _is_wanted(self, job: Job) -> bool:
        """Whether it is neither revoked nor, as a watch may have told, created."""
        return not self._tracker.is_confirmed(job.pod)

    def _again(self, job: Job, answer: Answer, scope: Scope, counted: bool) -> None:
        if scope is Scope.JOB:
            self._set_aside(job, answer, counted)
        elif scope is Scope.LANE or job.doubtful:
            self._outbox.put_off(job, 0.0)
        else:
            self._outbox.put_back(job)

    def _set_aside(self, job: Job, answer: Answer, counted: bool) -> None:
        """Its trouble is its own: it goes behind the others, and not for ever."""
        job.failures += counted
        if counted and job.failures > self._launch_retries:
            self._give_up(job, f"Given up after {job.failures} tries: {answer.reason}")
            return
        pause = max(delay(job.troubles), answer.retry_after or 0.0)
        job.troubles += 1
        self._outbox.put_off(job, time.monotonic() + pause)
        if job.manifest is not None and job.troubles > 1:  # a single one is no news
            self._report(Stuck(job.key, job.pod, answer.reason))

    def _give_up(self, job: Job, reason: str) -> None:
        if job.manifest is not None:
            (self._tracker.revoke if job.doubtful else self._tracker.drop)(job.pod)
        self._report(Rejected(job.key, reason))

    # What all have in common

    async def _ask_server(self) -> None:
        trouble = await self._witness.server()
        if trouble is None:
            self._over()
        else:
            self._note_trouble(trouble)

    async def _ask_namespace(self, namespace: str) -> None:
        """A closed one for which no job is there to be tried."""
        answer = await self._witness.ask(namespace)
        if answer.scope is Scope.SERVER:
            self._note_trouble(answer)
            self._lanes.release(namespace)
        elif answer.verdict in _WAITS:
            self._lanes.close(namespace, answer)
        else:
            self._lanes.open(namespace)

    def _note_trouble(self, answer: Answer) -> None:
        trouble = self._throttled if answer.verdict is Verdict.THROTTLED else self.trouble
        pause = trouble.failed(answer.reason, answer.retry_after)
        self._wait_until = max(self._wait_until, time.monotonic() + pause)

    def _over(self) -> None:
        self.trouble.over()
        self._throttled.over()
