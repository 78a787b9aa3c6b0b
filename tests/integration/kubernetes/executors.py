# SPDX-License-Identifier: Apache-2.0
"""Executors on the API server of the tests, and the scheduler's loop around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.utils.state import TaskInstanceState
from kube_server import executor_options

from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.executors.kubernetes_executor import KubernetesExecutor

JOB_ID = 41

Events = dict[Any, Any]


def options(kubeconfig: Path, namespace: str, folder: Path, **more: Any) -> dict[str, Any]:
    """``[kubernetes_executor]`` of a backend in that namespace."""
    image = {"worker_container_repository": "none", "worker_container_tag": "none"}
    return executor_options(kubeconfig, folder, namespace, **{**image, **more})


class Orphan:
    """A task instance of a dead scheduler, as far as adoption looks at it."""

    def __init__(self, task: Any, state: TaskInstanceState) -> None:
        ti = task.ti
        self.__dict__.update({name: getattr(ti, name) for name in type(ti).model_fields})
        self.state, self.queued_by_job_id, self.key = state, JOB_ID, ti.key


@contextmanager
def started(
    kubernetes: Mapping[str, Any], slots: int = 4, job_id: int = JOB_ID, **dispatch: Any
) -> Iterator[KubernetesExecutor]:
    """An executor with those options, started; ended afterwards.

    :param dispatch: options of ``[dispatch]``
    """
    config = {
        "kubernetes_executor": kubernetes,
        "core": {"parallelism": slots},
        "dispatch": {name: str(value) for name, value in dispatch.items()},
    }
    view = BackendConf("tested", config, conf)
    cls = type(
        "Tested", (KubernetesExecutor,), {"conf": property(lambda self: view, lambda self, value: None)}
    )
    executor = cls(parallelism=slots)
    executor.job_id = job_id
    executor.start()
    try:
        yield executor
    finally:
        executor.end()


def beat_until(executor: Any, done: Callable[[Events], object], timeout: float = 60) -> Events:
    """Heartbeat and drain, as the scheduler's loop does; returns the last event of each key."""
    events: Events = {}
    deadline = time.monotonic() + timeout
    while not done(events):
        if time.monotonic() > deadline:
            executor.debug_dump()
            raise AssertionError(f"only {events} after {timeout:.0f} s; {executor!r}")
        executor.heartbeat()
        events.update(executor.get_event_buffer())
        time.sleep(0.01)
    return events


def ended(*keys: Any) -> Callable[[Events], bool]:
    """Whether all of these have a final event."""
    return lambda events: all(
        str(getattr(events.get(key, ("",))[0], "value", "")) in ("success", "failed") for key in keys
    )
