# SPDX-License-Identifier: Apache-2.0
"""Makes pods of jobs, some at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.engines.kubernetes import answers
from airflow_dispatch_provider.engines.kubernetes.answers import Answer, Verdict
from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask
from airflow_dispatch_provider.engines.kubernetes.model import Job, PodName, Rejected, Report
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox
from airflow_dispatch_provider.engines.kubernetes.pod_api import NotConnected, PodApi
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble

log = logging.getLogger(__name__)

SERVER_ERROR = 500
"""From this status on, what was asked for may have been done."""


class Factory(Protocol):
    """See ``manifest.PodFactory``."""

    def build(self, workload: Workload, key: WorkloadKey) -> dict[str, Any]: ...


class Creator:
    """Creates what is in the outbox, with at most ``limit`` requests at a time. While the server is in trouble, one
    request at a time asks whether it is over: where there is nothing to be created, a dry run of what failed last."""

    def __init__(
        self,
        api: PodApi,
        outbox: Outbox,
        factory: Factory,
        tracker: Tracker,
        report: Callable[[Report], None],
        limit: int,
        namespaces: Collection[str | None],
    ) -> None:
        """
        :param namespaces: those that the backend is configured for; what is wrong with another one is the affair of
            the task that names it
        """
        self._api, self._outbox, self._factory, self._tracker = api, outbox, factory, tracker
        self._report, self._limit, self._namespaces = report, limit, namespaces
        self._doubtful: deque[Job] = deque()
        self._sample: dict[str, Any] = {}
        self._work = asyncio.Event()
        self._wait_until = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self.trouble = Trouble("Creating pods")
        self.full = Trouble("Finding room for pods", first=5.0, most=60.0)
        self._troubles = {
            Verdict.TROUBLE: self.trouble,
            Verdict.FULL: self.full,
            Verdict.THROTTLED: Trouble("Creating pods at full speed"),
        }
        self.busy_since: float | None = None
        """Since when it waits for an answer to anything; None: for none."""

    def wake(self) -> None:
        """There may be something in the outbox."""
        self._work.set()

    @property
    def sending(self) -> int:
        """Jobs that may be with the server, and are not known to be."""
        return len(self._running) + len(self._doubtful)

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await self._work.wait()
            if (pause := self._wait_until - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            job = await self._next()
            if job is not None:
                self._start(job)
                if self._cautious:
                    await asyncio.wait(self._running)
            elif self._cautious:
                await self._probe()
            else:
                self._work.clear()
                if self._outbox:
                    self._work.set()

    @property
    def _cautious(self) -> bool:
        return any(trouble.reason for trouble in self._troubles.values())

    async def _next(self) -> Job | None:
        while len(self._running) >= self._limit:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        while self._doubtful:
            job = self._doubtful.popleft()
            if not self._tracker.is_confirmed(_pod_of(job)):
                return job
        return self._outbox.take()

    def _start(self, job: Job) -> None:
        task = asyncio.create_task(self._create(job))
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.busy_since = time.monotonic() if self._running else None

    async def _create(self, job: Job) -> None:
        if job.manifest is None:
            try:
                job.manifest = self._factory.build(job.workload, job.key)
            except InvalidTask as error:
                self._report(Rejected(job.key, str(error)))
                return
        self._tracker.expect(_pod_of(job), job.key)
        if self.busy_since is None:
            self.busy_since = time.monotonic()
        answer, doubtful = await self._ask(job.manifest, sent_before=job.doubtful)
        self._note(job, answer, job.doubtful or doubtful)

    async def _probe(self) -> None:
        answer, _ = await self._ask(self._sample, sent_before=True, dry_run=True)
        if answer.verdict in self._troubles:
            self._note_trouble(answer)
        else:
            self._over()

    async def _ask(self, manifest: dict[str, Any], **how: bool) -> tuple[Answer, bool]:
        """The answer, and whether it leaves open what has become of the request."""
        namespace = manifest["metadata"]["namespace"]
        try:
            reply = await self._api.create_pod(namespace, manifest, dry_run=how.get("dry_run", False))
        except NotConnected as error:
            return Answer(Verdict.TROUBLE, str(error), None), False
        except Exception as error:
            answer, certainly_not_sent = answers.of_exception(error)
            return answer, not certainly_not_sent
        answer = answers.of_create(
            reply.status,
            reply.headers,
            reply.body,
            sent_before=how["sent_before"],
            namespace=namespace,
            own_namespace=namespace in self._namespaces,
        )
        return answer, reply.status >= SERVER_ERROR

    def _note(self, job: Job, answer: Answer, doubtful: bool) -> None:
        if answer.verdict is Verdict.DONE:
            self._over()
            self._tracker.confirm(_pod_of(job))
        elif answer.verdict in self._troubles:
            self._again(job, answer, doubtful)
        else:
            self._tracker.drop(_pod_of(job))
            self._report(Rejected(job.key, answer.reason))

    def _again(self, job: Job, answer: Answer, doubtful: bool) -> None:
        job.doubtful = doubtful
        if doubtful:
            self._doubtful.append(job)
        elif self._tracker.drop(_pod_of(job)):
            self._outbox.put_back(job)
        self._sample = job.manifest or {}
        self._note_trouble(answer)

    def _note_trouble(self, answer: Answer) -> None:
        delay = self._troubles[answer.verdict].failed(answer.reason, answer.retry_after)
        self._wait_until = max(self._wait_until, time.monotonic() + delay)
        self._work.set()

    def _over(self) -> None:
        for trouble in self._troubles.values():
            trouble.over()


def _pod_of(job: Job) -> PodName:
    assert job.manifest is not None
    metadata = job.manifest["metadata"]
    return PodName(metadata["namespace"], metadata["name"])
