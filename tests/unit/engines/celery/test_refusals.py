# SPDX-License-Identifier: Apache-2.0
"""Whose trouble it is, on a transport that says nothing but that something went wrong (SQS, for one)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from airflow.configuration import conf
from airflow.providers.celery.executors.celery_executor_utils import create_celery_app
from celery import Celery

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, SendFailed, Why
from airflow_dispatch_provider.engines.celery.brokers import ChannelBroker
from airflow_dispatch_provider.testing.workloads import make_task


class Picky(ChannelBroker):
    """Raises over queues and messages of these names."""

    no_queue: Sequence[str] = ()
    no_message: Sequence[str] = ()
    error: Exception = ValueError("no such queue")

    def _declare(self, queue: str, publications: Any) -> None:
        if queue in self.no_queue:
            raise self.error

    def _publish(self, outgoing: Outgoing, publications: Any) -> None:
        if publications and outgoing.celery_id in self.no_message:
            raise self.error


@pytest.fixture
def broker() -> Picky:
    app: Celery = create_celery_app(conf)
    app.conf.update(broker_url="memory://", result_backend="cache+memory://")
    broker = Picky(app, 5.0)
    broker.connect()
    return broker


def make(*queues: str) -> list[Outgoing]:
    return [Outgoing(str(n), n, make_task(queue=queue), queue) for n, queue in enumerate(queues)]


def refused(broker: Picky, batch: list[Outgoing]) -> list[tuple[str, Why]]:
    return [(refusal.outgoing.celery_id, refusal.why) for refusal in broker.send(batch, "receipt")]


def test_one_queue_that_cannot_be_declared_is_its_own_affair(broker):
    """All others are sent."""
    broker.no_queue = ["team/reports"]
    batch = make("team/reports", "a", "team/reports", "b")
    assert refused(broker, batch) == [("0", Why.QUEUE), ("2", Why.QUEUE)]


def test_the_only_queue_of_a_batch_is_suspected_alone(broker):
    broker.no_queue = ["a"]
    assert refused(broker, make("a", "a")) == [("0", Why.QUEUE), ("1", Why.QUEUE)]


def test_different_queues_and_no_success_are_the_brokers_trouble(broker):
    """Credentials that have expired, for one: none of the messages is to blame."""
    broker.no_queue = ["a", "b"]
    batch = make("a", "b", "a")
    with pytest.raises(SendFailed, match="no such queue") as failed:
        broker.send(batch, "receipt")
    assert set(failed.value.unsent) == set(batch)
    assert (failed.value.unknown, failed.value.refusals) == ([], [])


def test_a_connection_that_breaks_is_nobodys_own_affair(broker):
    broker.no_queue, broker.error = ["b"], ConnectionResetError()
    batch = make("a", "b", "c")
    with pytest.raises(SendFailed) as failed:
        broker.send(batch, "receipt")
    assert failed.value.unsent == batch


def test_a_message_that_is_refused_keeps_none_from_being_sent(broker):
    broker.no_message = ["1"]
    assert refused(broker, make("a", "a", "a")) == [("1", Why.MESSAGE)]


def test_a_message_that_is_cut_off_may_have_arrived(broker):
    broker.no_message, broker.error = ["1"], TimeoutError()
    batch = make("a", "a", "a")
    with pytest.raises(SendFailed) as failed:
        broker.send(batch, "receipt")
    assert (failed.value.unsent, failed.value.unknown) == ([batch[2]], [batch[1]])
