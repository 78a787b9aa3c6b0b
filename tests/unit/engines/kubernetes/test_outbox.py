# SPDX-License-Identifier: Apache-2.0
"""Who has a job."""

from __future__ import annotations

from airflow_dispatch_provider.engines.kubernetes.model import Job
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox


def filled(*keys: str) -> Outbox:
    outbox = Outbox()
    outbox.put(Job(key, workload=key) for key in keys)
    return outbox


def test_jobs_come_out_in_order_and_one_that_is_put_back_comes_first():
    outbox = filled("a", "b", "c")
    first = outbox.take()
    assert first is not None
    outbox.put_back(first)
    assert [outbox.take().key for _ in range(3)] == ["a", "b", "c"]
    assert outbox.take() is None


def test_a_job_that_was_taken_cannot_be_withdrawn():
    """It may be with the server by now."""
    outbox = filled("a", "b")
    outbox.take()
    assert outbox.withdraw("a") is None
    assert outbox.withdraw("b").key == "b"
    assert len(outbox) == 0
