# SPDX-License-Identifier: Apache-2.0
"""Deletes pods, or marks them as done, some at a time, each until that has worked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import (
    POD_EXECUTOR_DONE_KEY,
    POD_REVOKED_KEY,
)
from kubernetes.client import V1DeleteOptions

from airflow_dispatch_provider.engines.kubernetes import answers
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes._verdicts import Verdict
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi, Reply
from airflow_dispatch_provider.engines.kubernetes.status import observe
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble, delay
from airflow_dispatch_provider.engines.kubernetes.watcher import reason_of

log = logging.getLogger(__name__)

DONE = {"labels": {POD_EXECUTOR_DONE_KEY: "True"}}
MARKS = 3
"""Tries to mark a pod before it is deleted without a mark."""

REVOKED = {"labels": {POD_REVOKED_KEY: "True"}}


def delete_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """``[kubernetes_executor] delete_option_kwargs`` in the API's words; an unknown one raises KeyError."""
    return {V1DeleteOptions.attribute_map[name]: value for name, value in given.items()}


@dataclass(slots=True)
class _Work:
    """Requests that one pod still needs."""

    revoke: bool = False
    """It is to be marked first, so that others take its end for no news."""

    delete: bool = False
    spares: bool = False
    """It is left alone if its container has started."""

    metadata: dict[str, Any] | None = None
    """Labels and annotations that are to be added."""

    failures: int = 0
    due: float = -math.inf


class Finisher:
    """Cleans up pods that have completed, or are unwanted. A pod that is given twice is cleaned up once; one that
    cannot be cleaned up goes behind the others, with growing delays."""

    def __init__(
        self,
        api: PodApi,
        limit: int,
        *,
        delete: bool,
        delete_failed: bool,
        delete_options: Mapping[str, Any],
    ) -> None:
        """
        :param limit: requests at a time
        :param delete: ``[kubernetes_executor] delete_worker_pods``
        :param delete_failed: ``delete_worker_pods_on_failure``
        :param delete_options: ``delete_option_kwargs``, in the API's words
        """
        self._api, self._limit = api, limit
        self._delete, self._delete_failed, self._options = delete, delete_failed, delete_options
        self._todo: dict[PodName, _Work] = {}
        self._failing: set[PodName] = set()
        """Since the last one that was finished."""

        self._work = asyncio.Event()
        self._running: dict[PodName, asyncio.Task[None]] = {}
        self.trouble = Trouble("Finishing pods")

    @property
    def unfinished(self) -> int:
        """Those that wait for another try are left out."""
        return len(self._running) + sum(not work.failures for work in self._todo.values())

    def finish(self, pod: PodName, failed: bool, lives_on: bool = False) -> None:
        """Clean up a pod whose task is over: delete it, or label it as done.

        :param lives_on: other containers still run, which nobody needs: such a pod is never kept
        """
        work = self._put(pod)
        work.spares = False
        if lives_on or (self._delete and (self._delete_failed or not failed)):
            work.delete = True
        else:
            work.metadata = DONE

    def label(self, pod: PodName, metadata: dict[str, Any]) -> None:
        """Add labels and annotations, whenever that works."""
        self._put(pod).metadata = metadata

    def remove(self, pod: PodName, even_started: bool) -> None:
        """Delete a pod that is not wanted any more; see ``Remove``."""
        work = self._put(pod)
        work.spares = not even_started and (work.spares or not work.delete)
        work.revoke = work.delete = True

    def _put(self, pod: PodName) -> _Work:
        self._work.set()
        return self._todo.setdefault(pod, _Work())

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            while len(self._running) >= (1 if self.trouble.reason else self._limit):
                await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
            pod = self._next()
            if pod is not None:
                self._start(pod)
            else:
                await self._idle()

    def _next(self) -> PodName | None:
        """The first one that is due; those that failed stand behind the others."""
        now = time.monotonic()
        return next(
            (pod for pod, work in self._todo.items() if work.due <= now and pod not in self._running), None
        )

    async def _idle(self) -> None:
        self._work.clear()
        waiting = (work.due for pod, work in self._todo.items() if pod not in self._running)
        due = min(waiting, default=math.inf)
        pause = None if due == math.inf else max(0.0, due - time.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._work.wait(), pause)

    def _start(self, pod: PodName) -> None:
        task = asyncio.create_task(self._attempt(pod, self._todo.pop(pod)))
        self._running[pod] = task
        task.add_done_callback(lambda _: self._done(pod))

    def _done(self, pod: PodName) -> None:
        del self._running[pod]
        self._work.set()

    async def _attempt(self, pod: PodName, work: _Work) -> None:
        reason, retry_after = None, None
        for call in self._calls(pod, work):
            reason, retry_after = await self._try(call)
            if reason is not None:
                break
        if reason is None:
            self._failing.clear()
            self.trouble.over()
        else:
            self._again(pod, work, reason, retry_after)

    def _calls(self, pod: PodName, work: _Work) -> Iterator[Callable[[], Awaitable[Reply]]]:
        """Each is made when the one before has succeeded."""
        if work.spares:
            yield lambda: self._spare(pod, work)
        # The mark is a courtesy: a pod that cannot be marked is deleted all the same. As it hides what becomes of the
        # pod afterwards, one that may yet be left alone gets none.
        if work.revoke and not work.spares and work.failures < MARKS:
            yield lambda: self._api.label_pod(pod.namespace, pod.name, REVOKED)
        if work.delete:
            yield lambda: self._api.delete_pod(pod.namespace, pod.name, self._options)
        elif work.metadata is not None:
            metadata = work.metadata
            yield lambda: self._api.label_pod(pod.namespace, pod.name, metadata)

    async def _spare(self, pod: PodName, work: _Work) -> Reply:
        """Leave it alone if it has started."""
        reply = await self._api.get_pod(pod.namespace, pod.name)
        if reply.ok and observe("ADDED", json.loads(reply.body), ()).started:
            work.revoke = work.delete = False
        return reply

    def _again(self, pod: PodName, work: _Work, reason: str, retry_after: float | None) -> None:
        """Its trouble is its own until a different pod meets trouble, too."""
        self._failing.add(pod)
        pause = delay(work.failures)
        if len(self._failing) > 1 or self.trouble.reason:
            pause = max(pause, self.trouble.failed(reason, retry_after))
        elif work.failures == 0:
            log.info("Pod %s cannot be finished now, and is tried again: %s", pod, reason)
        work.failures += 1
        work.due = time.monotonic() + max(pause, retry_after or 0.0)
        later = self._todo.pop(pod, None)
        if later is not None:
            work.spares = work.spares and (later.spares or not later.delete)
            work.revoke, work.delete = work.revoke or later.revoke, work.delete or later.delete
            work.metadata = later.metadata or work.metadata
        self._todo[pod] = work

    async def _try(self, call: Callable[[], Awaitable[Reply]]) -> tuple[str | None, float | None]:
        """The reason for a failure, if any, and the seconds after which the server wants to be asked again."""
        try:
            reply = await call()
        except Exception as error:
            return reason_of(error), None
        answer = answers.of_change(reply.status, reply.headers, reply.body)
        if answer.verdict in (Verdict.TROUBLE, Verdict.THROTTLED):
            return answer.reason, answer.retry_after
        if answer.verdict not in (Verdict.DONE, Verdict.GONE):
            log.warning("A pod cannot be finished, and is left: %s", answer.reason)
        return None, None
