# SPDX-License-Identifier: Apache-2.0
"""Who has a job."""

from __future__ import annotations

import math

from airflow_dispatch_provider.engines.kubernetes.model import Job
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox


def take(outbox: Outbox, now: float = 0.0) -> Job | None:
    return outbox.take(now, lambda namespace: namespace != CLOSED)


def filled(*keys: str) -> Outbox:
    outbox = Outbox()
    outbox.put(Job(key, workload=key) for key in keys)
    return outbox


CLOSED = "full"


def in_namespace(key: str, namespace: str = "airflow") -> Job:
    return Job(key, workload=key, manifest={"metadata": {"namespace": namespace, "name": key}})


def test_jobs_come_out_in_order_and_one_that_is_put_back_comes_first():
    outbox = filled("a", "b", "c")
    first = take(outbox)
    assert first is not None
    outbox.put_back(first)
    assert [take(outbox).key for _ in range(3)] == ["a", "b", "c"]
    assert take(outbox) is None


def test_a_job_that_was_taken_cannot_be_withdrawn():
    """It may be with the server by now."""
    outbox = filled("a", "b")
    take(outbox)
    assert outbox.withdraw("a") is None
    assert outbox.withdraw("b").key == "b"
    assert len(outbox) == 0


def test_one_that_waits_for_another_try_comes_after_all_new_ones_and_not_before_its_time():
    """Nobody is kept waiting by it."""
    outbox = filled("a")
    outbox.put_off(in_namespace("b"), until=10.0)
    assert (take(outbox, 9.0).key, take(outbox, 9.0), outbox.next_due(lambda _: True)) == ("a", None, 10.0)
    assert (len(outbox), outbox.waiting) == (0, 1)
    outbox.put(Job(key, workload=key) for key in "cd")
    assert [take(outbox, 10.0).key for _ in range(3)] == ["c", "d", "b"]


def test_one_that_waits_for_a_closed_namespace_is_passed_over():
    outbox = Outbox()
    outbox.put_off(in_namespace("a", CLOSED), until=0.0)
    outbox.put_off(in_namespace("b"), until=0.0)
    assert (take(outbox).key, take(outbox)) == ("b", None)
    assert outbox.next_due(lambda namespace: namespace != CLOSED) == math.inf
    assert outbox.withdraw("a").key == "a"


def test_only_what_is_certainly_not_with_the_server_can_be_withdrawn():
    """One that waits may have been created by the request whose answer was lost."""
    outbox = Outbox()
    doubtful, sure = in_namespace("a"), in_namespace("b")
    doubtful.doubtful = True
    outbox.put_off(doubtful, 0.0)
    outbox.put_off(sure, 0.0)
    assert outbox.withdraw("a") is None
    assert [job.key for job in outbox.withdraw_all()] == ["b"]
    assert outbox.waiting == 1
