# SPDX-License-Identifier: Apache-2.0
"""Pods of schedulers that died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import (
    TASK_INSTANCE_ID_ANNOTATION,
)

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.kubernetes._search import AT_ONCE, GRACE, OURS, everywhere
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes.model import End, Ended, Report, Searched
from airflow_dispatch_provider.engines.kubernetes.pod_api import Json, PodApi
from airflow_dispatch_provider.engines.kubernetes.status import identity
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker
from airflow_dispatch_provider.engines.kubernetes.watcher import reason_of

log = logging.getLogger(__name__)

NOT_SEEN = "Nobody has seen how the task's pod has ended."


@dataclass
class Wanted:
    """Task instances whose pods are looked for."""

    workers: set[str] = field(default_factory=set)
    """Values of the label ``airflow-worker`` that they may have."""

    ids: dict[WorkloadKey, str] = field(default_factory=dict)
    """Ids of the task instances, by key."""


class Adoption:
    """Looks for pods until every namespace has answered. For the thread of the API calls."""

    def __init__(
        self,
        api: PodApi,
        namespaces: Iterable[str | None],
        label: str,
        tracker: Tracker,
        label_later: Callable[[PodName, Json], None],
        report: Callable[[Report], None],
    ) -> None:
        """
        :param label: this scheduler's value of ``airflow-worker``
        :param label_later: is given what could not be relabelled at once: such a pod is there all the same
        """
        self._api, self._namespaces, self._label, self._tracker = api, tuple(namespaces), label, tracker
        self._label_later, self._report = label_later, report
        self._sought: list[Wanted] = []
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def adopt(self, wanted: Wanted) -> None:
        """Take over the pods of these tasks; those without one are reported as vanished. A pod that succeeded is left:
        its task has told its state."""
        missing = dict(wanted.ids)
        for wait in (0.0, GRACE):
            await asyncio.sleep(wait)
            if missing:
                await everywhere(
                    self._namespaces, lambda namespace: self._adopt_in(namespace, wanted.workers, missing)
                )
        log.info("Adopted the pods of %d tasks of %d.", len(wanted.ids) - len(missing), len(wanted.ids))
        for key in missing:
            self._report(Ended(key, None, End.VANISHED, NOT_SEEN))

    async def search(self, wanted: Wanted) -> None:
        """Report which of these tasks have a pod here. What is asked for meanwhile is looked for together."""
        self._sought.append(wanted)
        if len(self._sought) > 1:
            return
        await asyncio.sleep(0)
        found: set[WorkloadKey] = set()
        done: list[Wanted] = []

        async def look(namespace: str | None) -> None:
            workers = {worker for each in self._sought for worker in each.workers}
            pods = await self._pods_of(namespace, workers)
            found.update(filter(None, map(_key, pods)))

        while len(done) < len(self._sought):
            done = list(self._sought)
            await everywhere(self._namespaces, look)
        self._sought = []
        for each in done:
            self._report(Searched(frozenset(each.ids.keys() & found), frozenset(each.ids.keys() - found)))

    async def select(self, labels: str) -> list[PodName]:
        """Names of the pods that match."""
        found: list[PodName] = []

        async def look(namespace: str | None) -> None:
            pods, _ = await self._api.list_pods(namespace, labels=labels)
            found.extend(map(_name, pods))

        await everywhere(self._namespaces, look)
        return found

    async def _pods_of(self, namespace: str | None, workers: Collection[str]) -> list[Json]:
        labels = f"{OURS},airflow-worker in ({','.join(sorted(workers))})"
        pods, _ = await self._api.list_pods(namespace, labels=labels, fields="status.phase!=Succeeded")
        return pods

    async def _adopt_in(
        self, namespace: str | None, workers: Collection[str], missing: dict[WorkloadKey, str]
    ) -> None:
        # Some may have this scheduler's label already: an answer may have been lost.
        pods = await self._pods_of(namespace, {*workers, self._label})
        taken = await asyncio.gather(*(self._take(pod, missing) for pod in pods))
        for key in taken:
            missing.pop(key, None)

    async def _take(self, pod: Json, wanted: Mapping[WorkloadKey, str]) -> WorkloadKey | None:
        key = _key(pod)
        if key not in wanted:
            return None
        metadata: Json = {"labels": {"airflow-worker": self._label}}
        if AIRFLOW_V_3_4_PLUS:
            metadata["annotations"] = {TASK_INSTANCE_ID_ANNOTATION: wanted[key]}
        name = _name(pod)
        labelled = await self._relabel(name, metadata)
        if labelled is None:
            return None
        self._tracker.adopt(name, key)
        # An end that came before the new label is not told by any later event.
        self._tracker.see("MODIFIED", pod)
        if not labelled:
            self._tracker.has_no_label(name)
            self._label_later(name, metadata)
        return key

    async def _relabel(self, name: PodName, metadata: Json) -> bool | None:
        """None: the pod is not there any more."""
        try:
            async with self._at_once:
                reply = await self._api.label_pod(name.namespace, name.name, metadata)
        except Exception as error:
            log.info("Pod %s is adopted, and gets its label later: %s", name, reason_of(error))
            return False
        return None if reply.status == HTTPStatus.NOT_FOUND else reply.ok


def _key(pod: Json) -> WorkloadKey | None:
    return identity(pod, AIRFLOW_V_3_4_PLUS)


def _name(pod: Json) -> PodName:
    return PodName(pod["metadata"]["namespace"], pod["metadata"]["name"])
