# SPDX-License-Identifier: Apache-2.0
"""Deletes pods, or marks them as done, some at a time, each until it has worked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import (
    POD_EXECUTOR_DONE_KEY,
    POD_REVOKED_KEY,
)
from kubernetes.client import V1DeleteOptions

from airflow_dispatch_provider.engines.kubernetes import answers
from airflow_dispatch_provider.engines.kubernetes.answers import Verdict
from airflow_dispatch_provider.engines.kubernetes.model import PodName
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi, Reply
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble
from airflow_dispatch_provider.engines.kubernetes.watcher import reason_of

log = logging.getLogger(__name__)

DONE = {"labels": {POD_EXECUTOR_DONE_KEY: "True"}}
REVOKED = {"labels": {POD_REVOKED_KEY: "True"}}


def delete_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """``[kubernetes_executor] delete_option_kwargs`` in the API's words; an unknown one raises KeyError."""
    return {V1DeleteOptions.attribute_map[name]: value for name, value in given.items()}


class Finisher:
    """Cleans up pods that have completed, and deletes unwanted ones. A pod that is given twice is cleaned up once."""

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
        self._todo: dict[PodName, bool] = {}
        """Whether it is to be revoked first, so that others take its end for no news."""

        self._labels: dict[PodName, dict[str, Any]] = {}
        """Labels and annotations that are to be added."""

        self._work = asyncio.Event()
        self._running: dict[PodName, asyncio.Task[None]] = {}
        self.trouble = Trouble("Finishing pods")

    @property
    def unfinished(self) -> int:
        return len(self._todo) + len(self._labels) + len(self._running)

    def finish(self, pod: PodName, failed: bool) -> None:
        """Clean up a completed pod: delete it, or label it as done."""
        if self._delete and (self._delete_failed or not failed):
            self._todo.setdefault(pod, False)
        else:
            self._labels[pod] = DONE
        self._work.set()

    def label(self, pod: PodName, metadata: dict[str, Any]) -> None:
        """Add labels and annotations, whenever that works."""
        self._labels[pod] = metadata
        self._work.set()

    def remove(self, pod: PodName) -> None:
        """Delete a pod that is not wanted any more."""
        self._todo[pod] = True
        self._work.set()

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await self._work.wait()
            if not (self._todo or self._labels):
                self._work.clear()
                continue
            while len(self._running) >= (1 if self.trouble.reason else self._limit):
                await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
            self._start()

    def _start(self) -> None:
        if self._todo:
            pod = next(iter(self._todo))
            work = self._end(pod, revoke=self._todo.pop(pod))
        else:
            pod = next(iter(self._labels))
            metadata = self._labels.pop(pod)
            work = self._until_done(lambda: self._api.label_pod(pod.namespace, pod.name, metadata))
        task = asyncio.create_task(work)
        self._running[pod] = task
        task.add_done_callback(lambda _: self._running.pop(pod, None))

    async def _end(self, pod: PodName, revoke: bool) -> None:
        if revoke:
            await self._until_done(lambda: self._api.label_pod(pod.namespace, pod.name, REVOKED))
        await self._until_done(lambda: self._api.delete_pod(pod.namespace, pod.name, self._options))

    async def _until_done(self, call: Any) -> None:
        while True:
            reason, retry_after = await self._try(call)
            if reason is None:
                self.trouble.over()
                return
            await asyncio.sleep(self.trouble.failed(reason, retry_after))

    async def _try(self, call: Any) -> tuple[str | None, float | None]:
        """The reason for a failure, if any, and the seconds after which the server wants to be asked again."""
        try:
            reply: Reply = await call()
        except Exception as error:
            return reason_of(error), None
        answer = answers.of_change(reply.status, reply.headers, reply.body)
        if answer.verdict in (Verdict.TROUBLE, Verdict.THROTTLED):
            return answer.reason, answer.retry_after
        if answer.verdict not in (Verdict.DONE, Verdict.GONE):
            log.warning("A pod cannot be finished, and is left: %s", answer.reason)
        return None, None
