# SPDX-License-Identifier: Apache-2.0
"""Pods of schedulers that died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import (
    POD_EXECUTOR_DONE_KEY,
    TASK_INSTANCE_ID_ANNOTATION,
)

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.kubernetes.model import End, Ended, PodName, Report
from airflow_dispatch_provider.engines.kubernetes.pod_api import Json, PodApi
from airflow_dispatch_provider.engines.kubernetes.status import identity
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble
from airflow_dispatch_provider.engines.kubernetes.watcher import reason_of

log = logging.getLogger(__name__)

NOT_DONE = f"{POD_EXECUTOR_DONE_KEY}!=True"
OURS = f"kubernetes_executor=True,{NOT_DONE}"
AT_ONCE = 32
"""Pods that are relabelled at a time."""


async def adopt(
    api: PodApi,
    namespaces: Iterable[str | None],
    workers: Sequence[str],
    label: str,
    wanted: Mapping[WorkloadKey, str],
    tracker: Tracker,
    label_later: Callable[[PodName, Json], None],
) -> set[WorkloadKey]:
    """Relabel the pods of those workers whose task instances are wanted; returns the keys that have one now. See
    ``Controller.adopt``. A pod that succeeded is left: its task has told its state.

    :param label_later: is given what could not be relabelled at once: such a pod is there all the same
    """
    labels = f"{OURS},airflow-worker in ({','.join(workers)})"
    pods = await _list(api, namespaces, labels=labels, fields="status.phase!=Succeeded")
    at_once = asyncio.Semaphore(AT_ONCE)

    async def take(pod: Json) -> WorkloadKey | None:
        key = identity(pod, AIRFLOW_V_3_4_PLUS)
        if key not in wanted:
            return None
        metadata: Json = {"labels": {"airflow-worker": label}}
        if AIRFLOW_V_3_4_PLUS:
            metadata["annotations"] = {TASK_INSTANCE_ID_ANNOTATION: wanted[key]}
        name = _name(pod)
        try:
            async with at_once:
                reply = await api.label_pod(name.namespace, name.name, metadata)
            if reply.status == HTTPStatus.NOT_FOUND:
                return None
            done = reply.ok
        except Exception as error:
            log.info("Pod %s is adopted, and gets its label later: %s", name, reason_of(error))
            done = False
        if not done:
            label_later(name, metadata)
        tracker.adopt(name, key)
        # An end that came before the new label is not told by any later event.
        tracker.see("MODIFIED", pod)
        return key

    return {key for key in await asyncio.gather(*map(take, pods)) if key is not None}


async def adopt_when_possible(
    call: Callable[[], Awaitable[set[WorkloadKey]]],
    wanted: Iterable[WorkloadKey],
    report: Callable[[Report], None],
) -> None:
    """Adopt as soon as the server can be asked; reports those keys as vanished that have no pod.

    :param call: ``adopt`` with its arguments
    """
    trouble = Trouble("Adopting pods")
    while True:
        try:
            adopted = await call()
            break
        except Exception as error:
            await asyncio.sleep(trouble.failed(reason_of(error)))
    trouble.over()
    for key in set(wanted) - adopted:
        report(Ended(key, None, End.VANISHED, "Nobody has seen how the task's pod has ended."))


async def tidy(
    api: PodApi,
    namespaces: Iterable[str | None],
    living: Collection[str],
    finish: Callable[[PodName, bool], None],
) -> None:
    """Finish pods that succeeded and whose scheduler is dead."""
    labels = f"{OURS},airflow-worker,airflow-worker notin ({','.join(sorted(living))})"
    try:
        found = await select(api, namespaces, labels=labels, fields="status.phase=Succeeded")
    except Exception as error:
        log.debug("Pods that succeeded under dead schedulers cannot be looked up: %s", error)
        return
    for pod in found:
        finish(pod, False)


async def select(api: PodApi, namespaces: Iterable[str | None], **selectors: str) -> list[PodName]:
    """Names of the pods that match."""
    return [_name(pod) for pod in await _list(api, namespaces, **selectors)]


async def _list(api: PodApi, namespaces: Iterable[str | None], **selectors: str) -> list[dict[str, Any]]:
    lists = await asyncio.gather(*(api.list_pods(namespace, **selectors) for namespace in namespaces))
    return [pod for pods, _ in lists for pod in pods]


def _name(pod: Json) -> PodName:
    return PodName(pod["metadata"]["namespace"], pod["metadata"]["name"])
