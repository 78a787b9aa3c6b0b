# SPDX-License-Identifier: Apache-2.0
"""Publishing workloads in tests, and looking at what the broker has then."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from airflow.configuration import conf
from airflow.providers.celery.executors.celery_executor_utils import create_celery_app
from celery import Celery
from kombu import Consumer, Exchange, Queue
from support import wait_until

from airflow_dispatch_provider.engines.celery.brokers import broker_for
from airflow_dispatch_provider.engines.celery.message import TASK_NAME, Outgoing
from airflow_dispatch_provider.engines.celery.publisher import Failed, Publisher, Sent
from airflow_dispatch_provider.testing.workloads import make_task


def make_app(broker_url: str, **settings: Any) -> Celery:
    """Airflow's app, as ``[celery] celery_config_options`` would change it."""
    app = create_celery_app(conf)
    app.conf.update(broker_url=broker_url, result_backend="cache+memory://", **settings)
    return app


@contextmanager
def publishing(app: Celery, timeout: float = 2.0) -> Iterator[Publisher]:
    publisher = Publisher(broker_for(app, timeout), app.connection_for_write().as_uri())
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.withdraw_all()
        publisher.stop(0)
        assert publisher._thread
        publisher._thread.join(60)
        assert not publisher._thread.is_alive()


def new_queue() -> str:
    return f"dispatch-test-{uuid.uuid4()}"


def make(count: int, *queues: str) -> list[Outgoing]:
    """So many, spread over the queues."""
    names = [queues[number % len(queues)] for number in range(count)]
    return [Outgoing(str(uuid.uuid4()), number, make_task(q), q) for number, q in enumerate(names)]


def ids(batch: Iterable[Outgoing]) -> list[str]:
    return [outgoing.celery_id for outgoing in batch]


def ids_of(messages: Iterable[dict[str, Any]]) -> list[str]:
    return [message["headers"]["id"] for message in messages]


def results(publisher: Publisher, batch: list[Outgoing]) -> list[Sent | Failed]:
    """Wait until something has been reported of each."""
    reports: list[Sent | Failed] = []
    wait_until(lambda: reports.extend(publisher.drain()) or len(reports) >= len(batch))
    return reports


def all_sent(publisher: Publisher, batch: list[Outgoing]) -> None:
    """Wait until each has been reported, and as sent."""
    reports = results(publisher, batch)
    assert all(isinstance(report, Sent) for report in reports), reports
    assert sorted(report.outgoing.celery_id for report in reports) == sorted(ids(batch))


@contextmanager
def listening(app: Celery) -> Iterator[Callable[[], list[Any]]]:
    """Listen to the control exchange as a worker does; gives a function that tells what was heard until then."""
    heard: list[Any] = []
    queue = Queue(new_queue(), Exchange("celery.pidbox", type="fanout", durable=False), auto_delete=True)

    def hear() -> list[Any]:
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.05)
        return heard

    with (
        app.connection_for_read() as connection,
        Consumer(connection, [queue], callbacks=[lambda body, _: heard.append(body)], no_ack=True),
    ):
        hear()
        yield hear


def revoked(heard: Callable[[], list[Any]]) -> list[str]:
    return [celery_id for body in heard() for celery_id in body["arguments"]["task_id"]]


def by_celery(app: Celery, outgoing: Outgoing) -> None:
    """Publish as Airflow's own CeleryExecutor does."""
    app.tasks[TASK_NAME].apply_async(
        args=(outgoing.payload(),), queue=outgoing.queue, task_id=outgoing.celery_id
    )


def workload_in(body: bytes | str) -> Any:
    """A message's body as a worker finds it."""
    (payload,), kwargs, _ = json.loads(body)
    assert kwargs == {}
    return json.loads(payload)


def assert_decodable(messages: list[dict[str, Any]], batch: list[Outgoing]) -> None:
    """They are these workloads, in this order."""
    assert ids_of(messages) == ids(batch)
    for message, outgoing in zip(messages, batch, strict=True):
        assert workload_in(message["body"]) == json.loads(outgoing.payload())
        assert message["headers"]["task"] == TASK_NAME
