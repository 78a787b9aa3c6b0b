# SPDX-License-Identifier: Apache-2.0
"""Looks for the pods of dead schedulers, until every namespace has answered. For the thread of the API calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from uuid import UUID

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import POD_EXECUTOR_DONE_KEY
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey, task_instance_uuid
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes.labels import TASK_INSTANCE_ID_ANNOTATION
from airflow_dispatch_provider.engines.kubernetes.pod_api import Json, PodApi
from airflow_dispatch_provider.engines.kubernetes.status import identity, observe
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble
from airflow_dispatch_provider.engines.kubernetes.watcher import reason_of

log = logging.getLogger(__name__)

NOT_DONE = f"{POD_EXECUTOR_DONE_KEY}!=True"
OURS = f"kubernetes_executor=True,{NOT_DONE}"
AT_ONCE = 32
"""Pods that are relabelled at a time."""

GRACE = 5.0
"""Seconds between two looks for a pod that is not there at the first one: the scheduler that died may have asked for
it at its last moment, and the one that adopts has its own transaction to end."""


Look = Callable[[str | None], Awaitable[object]]
"""Asks one namespace; None: all of them."""


async def everywhere(namespaces: Iterable[str | None], look: Look) -> None:
    """Ask until all have answered; one namespace that does not answer does not keep the others."""
    await asyncio.gather(*(_until_answered(namespace, look) for namespace in namespaces))


async def _until_answered(namespace: str | None, look: Look) -> None:
    trouble = Trouble(f"Looking for pods of other schedulers in {namespace or 'all namespaces'}")
    while True:
        try:
            await look(namespace)
        except Exception as error:
            await asyncio.sleep(trouble.failed(reason_of(error)))
        else:
            trouble.over()
            return


class Owned(NamedTuple):
    """A pod that was another scheduler's, and is this one's now."""

    found: Found
    manifest: Json
    unlabelled: Json | None
    """The metadata that could not be written to it yet."""


class Search:
    """One of a backend."""

    def __init__(self, api: PodApi, namespaces: Iterable[str | None], label: str) -> None:
        """
        :param label: this scheduler's value of ``airflow-worker``
        """
        self._api, self._namespaces, self._label = api, tuple(namespaces), label
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def find(self, found: Sequence[Found], own: Callable[[Owned], None]) -> list[Found]:
        """Take over the pods of these tasks; returns those that have none. A pod that succeeded is left: its task has
        told its state.

        The scheduler that died may have asked for a pod at its last moment: one that is not there is looked for again,
        a while later.

        :param own: is told of each as soon as it is this scheduler's
        """
        missing = {key_of(each.ti): each for each in found}
        for wait in (0.0, GRACE):
            await asyncio.sleep(wait)
            if missing:
                await everywhere(self._namespaces, lambda namespace: self._find_in(namespace, missing, own))
        log.info("Adopted the pods of %d tasks of %d.", len(found) - len(missing), len(found))
        return list(missing.values())

    async def _find_in(
        self, namespace: str | None, missing: dict[WorkloadKey, Found], own: Callable[[Owned], None]
    ) -> None:
        labels = _selector([*missing.values()], self._label)
        pods, _ = await self._api.list_pods(namespace, labels=labels, fields="status.phase!=Succeeded")
        chosen = _choose(pods, missing)
        taken = await asyncio.gather(*(self._take(pod, missing[key]) for key, pod in chosen.items()))
        for each in taken:
            if each is not None and key_of(each.found.ti) in missing:
                del missing[key_of(each.found.ti)]
                own(each)

    async def _take(self, pod: Json, found: Found) -> Owned | None:
        """None: it is not there any more."""
        metadata: Json = {"labels": {"airflow-worker": self._label}}
        if AIRFLOW_V_3_4_PLUS:
            metadata["annotations"] = {TASK_INSTANCE_ID_ANNOTATION: str(found.ti.id)}
        name = _name(pod)
        try:
            async with self._at_once:
                reply = await self._api.label_pod(name.namespace, name.name, metadata)
        except Exception as error:
            log.info("Pod %s is adopted, and gets its label later: %s", name, reason_of(error))
            return Owned(found, pod, metadata)
        if reply.status == HTTPStatus.NOT_FOUND:
            return None
        return Owned(found, pod, None if reply.ok else metadata)


async def tidy(
    api: PodApi,
    namespaces: Iterable[str | None],
    living: Collection[str],
    finish: Callable[[PodName, bool], None],
) -> None:
    """Finish pods that succeeded and whose scheduler is dead, in those namespaces that answer."""
    labels = f"{OURS},airflow-worker,airflow-worker notin ({','.join(sorted(living))})"
    for namespace in namespaces:
        try:
            pods, _ = await api.list_pods(namespace, labels=labels, fields="status.phase=Succeeded")
        except Exception as error:
            log.debug("Pods that succeeded under dead schedulers cannot be looked up: %s", error)
            continue
        for pod in pods:
            finish(_name(pod), False)


def _choose(pods: Collection[Json], wanted: Mapping[WorkloadKey, Any]) -> dict[WorkloadKey, Json]:
    """One pod for each task: of several one that has started, and of these the newest."""
    chosen: dict[WorkloadKey, Json] = {}
    for pod in sorted(pods, key=_rank):
        key = identity(pod, AIRFLOW_V_3_4_PLUS)
        if key in wanted:
            chosen[key] = pod
    return chosen


def _rank(pod: Json) -> tuple[bool, str]:
    return observe("ADDED", pod, ()).started, pod["metadata"].get("creationTimestamp") or ""


def _selector(found: Iterable[Found], label: str) -> str:
    """Pods of the schedulers that died. Some may have this scheduler's label already: an answer may have been lost."""
    owners = {getattr(each.ti, "queued_by_job_id", None) for each in found}
    if None in owners:
        return f"{OURS},airflow-worker"
    workers = {label, *(make_safe_label_value(str(owner)) for owner in owners)}
    return f"{OURS},airflow-worker in ({','.join(sorted(workers))})"


def key_of(ti: Any) -> WorkloadKey:
    """The key that its pod names; see ``status.identity``."""
    return task_instance_uuid(UUID(str(ti.id))) if AIRFLOW_V_3_4_PLUS else ti.key


def _name(pod: Json) -> PodName:
    return PodName(pod["metadata"]["namespace"], pod["metadata"]["name"])
