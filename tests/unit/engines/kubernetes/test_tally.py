# SPDX-License-Identifier: Apache-2.0
"""Requests about pods are counted as Airflow's KubernetesExecutor counts its own."""

from __future__ import annotations

import asyncio

import pytest

from airflow_dispatch_provider.engines.kubernetes._tally import CREATION, DELETION, Tally
from airflow_dispatch_provider.engines.kubernetes.pod_api import Reply


async def answer(status: int) -> Reply:
    return Reply(status, "")


async def no_answer() -> Reply:
    raise OSError("away")


def test_requests_are_counted_by_status() -> None:
    """Every success is a 200, as Airflow has it; what got no answer is an error. Taken once."""
    tally = Tally()
    for metric, status in ((CREATION, 201), (CREATION, 200), (CREATION, 409), (DELETION, 404)):
        assert asyncio.run(tally.measure(metric, answer(status))).status == status
    with pytest.raises(OSError, match="away"):
        asyncio.run(tally.measure(CREATION, no_answer()))
    assert tally.take().counts == {
        ("kubernetes_executor.pod_creation_status", "200"): 2,
        ("kubernetes_executor.pod_creation_status", "409"): 1,
        ("kubernetes_executor.pod_creation_status", "error"): 1,
        ("kubernetes_executor.pod_deletion_status", "404"): 1,
    }
    assert tally.take().counts == {}


def test_only_some_durations_are_kept() -> None:
    """Where nobody takes them, too."""
    tally = Tally()
    for _ in range(100):
        asyncio.run(tally.measure(CREATION, answer(201)))
    durations = tally.take().durations
    assert len(durations) == 10
    assert all(metric == CREATION and seconds >= 0 for metric, seconds in durations)
