# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from airflow import settings
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines import holding_back
from airflow_dispatch_provider.engines.kubernetes import trouble
from airflow_dispatch_provider.executors import kubernetes_executor
from airflow_dispatch_provider.executors.kubernetes_executor import (
    KubernetesExecutor,
)

from .fake_controller import JOB_ID, FakeController

QUEUED, RUNNING = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING
SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


@pytest.fixture
def little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and jitter take so little time that a test can still see them, and do not grow."""
    monkeypatch.setattr(trouble, "growing_delay", lambda *_: 1.0)
    monkeypatch.setattr(trouble.random, "uniform", lambda low, high: 0.05)


@pytest.fixture
def hook(monkeypatch):
    """Installs a mutation hook."""
    return lambda function: monkeypatch.setattr(settings, "pod_mutation_hook", function)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[UUID, Stored]:
    """Rows of the database."""
    known: dict[UUID, Stored] = {}
    monkeypatch.setattr(
        kubernetes_executor, "stored", lambda ids: {ti_id: known[ti_id] for ti_id in ids if ti_id in known}
    )
    monkeypatch.setattr(holding_back.Keepalive, "refresh", lambda self, now, held: None)
    return known


@pytest.fixture
def make_executor(rows: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., KubernetesExecutor]:
    def make(slots: int = 10, max_unsent: int = 100) -> KubernetesExecutor:
        monkeypatch.setattr(KubernetesExecutor, "_alive_other_scheduler_job_ids", lambda self: {8})
        executor = KubernetesExecutor(parallelism=slots)
        executor.parallelism = slots
        executor.job_id = JOB_ID
        executor.scheduler_job_id = str(JOB_ID)
        executor._controller = FakeController()
        executor._max_unsent = max_unsent
        return executor

    return make


@pytest.fixture
def executor(make_executor: Callable[..., KubernetesExecutor]) -> KubernetesExecutor:
    return make_executor()
