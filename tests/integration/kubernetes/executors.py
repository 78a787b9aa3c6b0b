# SPDX-License-Identifier: Apache-2.0
"""Executors on the API server of the tests, and the scheduler's loop around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import inspect
from sqlalchemy.orm.attributes import set_committed_value
from unit.dispatch.loop_house import Clerk

from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.bridge.executor_classes import view_of
from airflow_dispatch_provider.executors.kubernetes_executor import KubernetesExecutor
from devkit.servers.kube import executor_options

JOB_ID = 41

Events = dict[Any, Any]


def options(kubeconfig: Path, namespace: str, folder: Path, **more: Any) -> dict[str, Any]:
    """``[kubernetes_executor]`` of a backend in that namespace."""
    image = {"worker_container_repository": "none", "worker_container_tag": "none"}
    return executor_options(kubeconfig, folder, namespace, **{**image, **more})


def orphan(task: Any, state: TaskInstanceState) -> Any:
    """A task instance of a dead scheduler, as it would come out of the database."""
    mapper = inspect(TaskInstance)
    ti = mapper.class_manager.new_instance()
    values = {"queued_by_job_id": JOB_ID, "state": state, "executor_config": {}, "hostname": ""}
    for column in mapper.column_attrs:
        set_committed_value(ti, column.key, values.get(column.key, getattr(task.ti, column.key, None)))
    return ti


class OfTests(KubernetesExecutor):
    """With answers of the database that the test gives; what it says nothing about is queued."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clerk = Clerk()

    def _make_clerk(self, limits: Any) -> Clerk:
        return self.clerk


@contextmanager
def started(
    kubernetes: Mapping[str, Any], slots: int = 4, job_id: int = JOB_ID, clerk: Clerk | None = None
) -> Iterator[Any]:
    """An executor with those options, started; ended afterwards.

    :param clerk: gives the answers of the database
    """
    config = {"kubernetes_executor": kubernetes, "core": {"parallelism": slots}}
    view: Any = BackendConf("tested", config, conf)
    executor: Any = view_of(OfTests, view)(parallelism=slots)
    executor.job_id, executor.clerk = job_id, clerk or executor.clerk
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
