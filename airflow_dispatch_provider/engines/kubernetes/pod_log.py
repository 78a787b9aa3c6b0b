# SPDX-License-Identifier: Apache-2.0
"""The log of a running task, from its pod. Called in Airflow's API server, on a thread that may wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from airflow.utils.log.logging_mixin import remove_escape_codes

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.kubernetes import labels
from airflow_dispatch_provider.engines.kubernetes.cluster import Cluster
from airflow_dispatch_provider.engines.kubernetes.status import task_container_of

TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and between two pieces of an answer."""


def read(
    cluster: Cluster, namespace: str, ti: Any, try_number: int, lines: int
) -> tuple[list[str], list[Iterator[str]]]:
    """Messages for the reader, and the last lines of the log, if there are any. Raises nothing."""
    host = f" {ti.hostname}" if ti.hostname else ""
    messages = [f"Asking {_place(cluster, namespace)} for the log of pod{host}"]
    try:
        stream = _open(cluster.blocking_client(), namespace, _selector(ti, try_number), lines)
        first = next(stream, None)
    except Exception as error:
        messages.append(
            f"The log of the pod could not be read: {' '.join(str(error).split()) or repr(error)}"
        )
        return messages, []
    if first is None:
        return messages, []
    messages.append("Found the log of the pod")
    return messages, [chain([first], stream)]


def _place(cluster: Cluster, namespace: str) -> str:
    try:
        return f"namespace {namespace} of {cluster.server()}"
    except Exception:
        return f"namespace {namespace}"


def _selector(ti: Any, try_number: int) -> str:
    more = {labels.TASK_INSTANCE_ID_LABEL: str(ti.id)} if AIRFLOW_V_3_4_PLUS else None
    return labels.selector(ti, try_number, ti.queued_by_job_id, more)


def _open(client: Any, namespace: str, selector: str, lines: int) -> Iterator[str]:
    pods = client.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=TIMEOUT).items
    if len(pods) != 1:
        names = ", ".join(pod.metadata.name for pod in pods)
        raise LookupError(f"several pods are the task's: {names}" if pods else "the task has no pod now")
    answer = client.read_namespaced_pod_log(
        pods[0].metadata.name,
        namespace,
        container=task_container_of([each.name for each in pods[0].spec.containers]),
        tail_lines=lines,
        _preload_content=False,
        _request_timeout=TIMEOUT,
    )
    return _lines(answer)


def _lines(answer: Iterable[bytes]) -> Iterator[str]:
    for line in answer:
        yield remove_escape_codes(line.decode(errors="replace")).rstrip("\n")
