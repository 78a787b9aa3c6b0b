# SPDX-License-Identifier: Apache-2.0
"""The options of an Airflow 2 that ran a hybrid executor, over a real broker and a real API server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, update

from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from devkit.servers.kube import KubeServer
from devkit.servers.valkey import ValkeyServer

from ..celery.conftest import valkey
from ..kubernetes.conftest import agent_on, shared_kube
from ..kubernetes.executors import options

__all__ = ["agent_on", "shared_kube", "valkey"]

JOB_ID = 41
KUBERNETES_QUEUE, OTHER_QUEUE = "a", "b"
"""Half of the stored task instances have the one, half the other."""

HYBRIDS = ("celery_kubernetes_executor", "local_kubernetes_executor")
"""Sections of their options."""

Start = Callable[..., DispatchExecutor]


@dataclass(frozen=True)
class Places:
    """Where work arrives."""

    broker: redis.Redis
    kube: KubeServer
    namespace: str

    def messages(self, queue: str = OTHER_QUEUE) -> list[str]:
        """Ids of the tasks, or names of other workloads, that wait for Celery workers in a queue."""
        return [_task_of(json.loads(message)) for message in self.broker.lrange(queue, 0, -1)]

    def pods(self) -> list[str]:
        """Ids of the tasks that have a pod."""
        items = self.kube.request("GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return [pod["metadata"]["annotations"]["task_id"] for pod in items]


def _task_of(message: dict[str, Any]) -> str:
    args, *_ = json.loads(base64.b64decode(message["body"]))
    workload = json.loads(args[0])
    return str(workload["ti"]["task_id"] if "ti" in workload else workload["type"])


@pytest.fixture
def places(
    valkey: ValkeyServer, shared_kube: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Places]:
    """Nothing is set under [dispatch]."""
    namespace = shared_kube.create_namespace()
    sections = {
        "celery": {"broker_url": valkey.url(), "result_backend": valkey.url(1)},
        "kubernetes_executor": options(shared_kube.kubeconfig(), namespace, tmp_path),
        **{section: {"kubernetes_queue": KUBERNETES_QUEUE} for section in HYBRIDS},
    }
    for section, values in sections.items():
        for option, value in values.items():
            monkeypatch.setenv(f"AIRFLOW__{section.upper()}__{option.upper()}", value)
    with redis.Redis.from_url(valkey.url()) as broker:
        broker.flushall()
        yield Places(broker, shared_kube, namespace)


@pytest.fixture
def start(
    hybrid: type[DispatchExecutor], places: Places, queued: None, dispatch_config: Callable[..., None]
) -> Iterator[Start]:
    """Starts executors of the module's class, with options of [dispatch] on top."""
    with ExitStack() as stack:

        def started(job_id: int = JOB_ID, **on_top: Any) -> DispatchExecutor:
            dispatch_config(**on_top)
            executor = hybrid()
            executor.job_id = job_id
            executor.start()
            stack.callback(executor.end)
            return executor

        yield started


@pytest.fixture
def queued(database: str) -> None:
    """All stored task instances were queued by this scheduler; no event log."""
    with create_session() as session:
        session.execute(delete(Log))
        session.execute(
            update(TaskInstance).values(
                state="queued", queued_by_job_id=JOB_ID, external_executor_id=None, try_number=1
            )
        )
