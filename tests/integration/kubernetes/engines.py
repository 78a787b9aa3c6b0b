# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes engine on the API server of the tests, and what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from airflow.configuration import conf
from support import wait_until

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.bridge.coordinators import coordinator_extra
from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.engines.kubernetes._options import options_of, watched
from airflow_dispatch_provider.engines.kubernetes.cluster import Cluster
from airflow_dispatch_provider.engines.kubernetes.engine import KubernetesEngine, Pieces
from airflow_dispatch_provider.engines.kubernetes.manifest import PodFactory
from airflow_dispatch_provider.engines.kubernetes.pod_api import Timing
from airflow_dispatch_provider.executors.kubernetes_executor import KubernetesExecutor
from devkit.servers.kube import KubeServer

from .executors import JOB_ID

HEIR = JOB_ID + 2
"""Another scheduler."""


def key_of(task: Any) -> Any:
    return airflow_api.workload_key(KubernetesExecutor, task)


def pieces(kubernetes: dict[str, Any]) -> Pieces:
    """An engine's, with those options of ``[kubernetes_executor]``."""
    view: Any = BackendConf("tested", {"kubernetes_executor": kubernetes}, conf)
    executor = type(
        "Tested", (KubernetesExecutor,), {"conf": property(lambda self: view, lambda self, value: None)}
    )(parallelism=1)
    return Pieces(
        Cluster(view).connect,
        lambda scheduler_id: PodFactory(
            executor.kube_config, scheduler_id, coordinator_extra, watched(executor.kube_config)
        ),
        options_of(executor.kube_config, view),
    )


class Hand:
    """Submits tasks to an engine, and collects its events."""

    def __init__(self, engine: KubernetesEngine) -> None:
        self.engine = engine
        self.heard: list[Any] = []
        self._next = 1

    def submit(self, *tasks: Any) -> list[int]:
        """The numbers of their dispatches."""
        numbers = list(range(self._next, self._next + len(tasks)))
        self._next += len(tasks)
        self.engine.submit([Job(n, key_of(task), task) for n, task in zip(numbers, tasks, strict=True)])
        return numbers

    def adopt(self, *tasks: Any, runs: bool = True, former: int = JOB_ID) -> list[int]:
        numbers = list(range(self._next, self._next + len(tasks)))
        self._next += len(tasks)
        found = zip(numbers, tasks, strict=True)
        self.engine.adopt([Found(n, key_of(task), row_of(task, former), runs) for n, task in found])
        return numbers

    def poll(self) -> list[Any]:
        self.heard += self.engine.poll()
        return self.heard

    def hears(self, kind: type[Any], numbers: Sequence[int], timeout: float = 60) -> list[Any]:
        """Waits until one event of this kind has come for each of these dispatches."""

        def found() -> list[Any] | None:
            mine = {e.dispatch: e for e in self.poll() if isinstance(e, kind) and e.dispatch in numbers}
            return [mine[number] for number in numbers] if len(mine) == len(numbers) else None

        return wait_until(found, timeout)

    def said_of(self, number: int) -> list[Any]:
        return [event for event in self.poll() if getattr(event, "dispatch", None) == number]

    def room(self) -> Any:
        self.poll()
        return self.engine.room()


def row_of(task: Any, former: int) -> Any:
    """A row of a task of a dead scheduler, as far as adoption looks at it."""
    ti = task.ti
    fields = {name: getattr(ti, name) for name in type(ti).model_fields}
    return SimpleNamespace(**fields, key=ti.key, queued_by_job_id=former)


@contextmanager
def running(
    kubernetes: dict[str, Any], scheduler_id: int = JOB_ID, timing: Timing | None = None, slots: int = 1000
) -> Iterator[Hand]:
    engine = KubernetesEngine("x", slots, lambda: pieces(kubernetes), timing)
    engine.start(str(scheduler_id))
    try:
        yield Hand(engine)
    finally:
        engine.stop(time.monotonic() + 5)


def pods_of(server: KubeServer, namespace: str) -> list[dict[str, Any]]:
    return list(server.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"])
