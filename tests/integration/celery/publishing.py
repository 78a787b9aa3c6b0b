# SPDX-License-Identifier: Apache-2.0
"""Publishing workloads in tests, and looking at what the broker has then."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count as counter
from typing import Any

from airflow.configuration import conf
from airflow.providers.celery.executors.celery_executor_utils import create_celery_app
from celery import Celery
from kombu import Consumer, Exchange, Queue
from support import wait_until

from airflow_dispatch_provider.engines.celery._driver import Driver
from airflow_dispatch_provider.engines.celery._outbox import Outbox
from airflow_dispatch_provider.engines.celery._receipts import Receipts
from airflow_dispatch_provider.engines.celery.brokers import broker_for
from airflow_dispatch_provider.engines.celery.message import TASK_NAME, Outgoing
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.lifecycle.events import Broken, Ended, Recovered, Rejected, Returned, Sent
from airflow_dispatch_provider.masking import masked
from airflow_dispatch_provider.testing.workloads import make_task

_NUMBERS = counter(1)
"""Of dispatches."""


def make_app(broker_url: str, **settings: Any) -> Celery:
    """Airflow's app, as ``[celery] celery_config_options`` would change it."""
    app = create_celery_app(conf)
    app.conf.update(broker_url=broker_url, result_backend="cache+memory://", **settings)
    return app


class Publisher:
    """Sends until it has succeeded, as the router would by way of an engine: what is returned, or lost, is submitted
    once more."""

    def __init__(self, app: Celery, timeout: float) -> None:
        self._outbox = Outbox(
            "x",
            masked(app.connection_for_write().as_uri()),
            100_000,
            Receipts(uuid.uuid4().hex, 600.0),
            Backoff(0.02, 0.1),
        )
        self._driver = Driver(self._outbox, broker_for(app, timeout), "x")
        self._batch: dict[Hashable, Outgoing] = {}
        self._returned: dict[Hashable, None] = {}
        self._told: list[Sent | Rejected] = []
        self.said: list[str] = []
        """Names of the events about the broker, each once until there is another."""

    def __enter__(self) -> Publisher:
        self._driver.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._driver.stop(0)
        wait_until(lambda: not self._driver._thread.is_alive())

    @property
    def problem(self) -> str | None:
        self._take()
        return self._outbox.unavailable(time.monotonic())

    @property
    def unsent(self) -> int:
        """Those that are neither sent nor refused."""
        self._take()
        return self._outbox.unsent + len(self._returned)

    @property
    def to_tell(self) -> int:
        return len(self._outbox._to_tell)

    def submit(self, batch: Iterable[Outgoing]) -> None:
        batch = list(batch)
        self._batch |= {outgoing.key: outgoing for outgoing in batch}
        with self._driver.outbox(wake=True) as outbox:
            outbox.submit(batch)

    def withdraw(self, celery_id: str) -> bool:
        with self._driver.outbox() as outbox:
            return outbox.withdraw(celery_id)

    def revoke(self, celery_id: str) -> None:
        with self._driver.outbox(wake=True) as outbox:
            outbox.tell(celery_id)

    def look(self) -> None:
        """Have the idle connection looked at now."""
        with self._driver.outbox(wake=True) as outbox:
            outbox._check_at = 0.0

    def settled(self, celery_id: str) -> None:
        with self._driver.outbox() as outbox:
            outbox.settled(celery_id)

    def drain(self) -> list[Sent | Rejected]:
        """News of messages that are sent, or that were refused for reasons of their own."""
        self._take()
        told, self._told = self._told, []
        return told

    def _take(self) -> None:
        with self._driver.outbox() as outbox:
            events = outbox.take_events()
            usable = outbox.trouble is None
        for event in events:
            if isinstance(event, Broken | Recovered):
                self.said += [type(event).__name__] if self.said[-1:] != [type(event).__name__] else []
            elif isinstance(event, Returned | Ended):
                self._returned[event.dispatch] = None
            else:
                self._told.append(event)
        if usable and self._returned:
            again, self._returned = list(self._returned), {}
            self.submit(self._batch[number] for number in again)

    def outgoing(self, event: Sent | Rejected) -> Outgoing:
        """The message that it is about."""
        return self._batch[event.dispatch]


def publishing(app: Celery, timeout: float = 2.0) -> Publisher:
    return Publisher(app, timeout)


def new_queue() -> str:
    return f"dispatch-test-{uuid.uuid4()}"


def make(count: int, *queues: str) -> list[Outgoing]:
    """So many, spread over the queues."""
    names = [queues[number % len(queues)] for number in range(count)]
    return [Outgoing(str(uuid.uuid4()), next(_NUMBERS), make_task(queue), queue) for queue in names]


def ids(batch: Iterable[Outgoing]) -> list[str]:
    return [outgoing.celery_id for outgoing in batch]


def ids_of(messages: Iterable[dict[str, Any]]) -> list[str]:
    return [message["headers"]["id"] for message in messages]


def results(publisher: Publisher, batch: list[Outgoing]) -> list[Sent | Rejected]:
    """Wait until something has been reported of each."""
    reports: list[Sent | Rejected] = []
    wait_until(lambda: reports.extend(publisher.drain()) or len(reports) >= len(batch))
    return reports


def all_sent(publisher: Publisher, batch: list[Outgoing]) -> None:
    """Wait until each has been reported, and as sent."""
    reports = results(publisher, batch)
    assert all(isinstance(report, Sent) for report in reports), reports
    assert sorted(publisher.outgoing(report).celery_id for report in reports) == sorted(ids(batch))


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
