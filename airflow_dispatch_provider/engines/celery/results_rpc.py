# SPDX-License-Identifier: Apache-2.0
"""Results that workers send as messages (Celery's ``rpc://``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from celery import Celery

from airflow_dispatch_provider.engines.celery.results import (
    Polled,
    Reader,
    Result,
    ResultSource,
    Timing,
    chunks,
)

_BROKER_BOUNDS = {
    "amqp": ("read_timeout", "write_timeout"),
    "redis": ("socket_timeout", "socket_connect_timeout"),
}
"""The names that kombu's transports have for the time-outs of their sockets."""


class RpcSource(Polled):
    """Messages in a queue of this thread's own. Read one by one, because a consumer's end would delete the queue."""

    def __init__(self, backend: Any, connection: Any, timing: Timing) -> None:
        super().__init__(timing)
        self.once = True
        self._connection = connection
        self._accept = backend.accept
        self._queue = backend.binding(connection.channel())
        self._queue.declare()
        self._reader = Reader(lambda message: backend.meta_from_decoded(message.payload))

    def ask(self, ids: Collection[str], watched: Mapping[str, bool]) -> Iterator[list[Result]]:
        for messages in chunks(iter(self._get, None)):
            yield [result for message in messages for result in self._read(message)]
            for message in messages:
                message.ack()

    def _get(self) -> Any:
        return self._queue.get(accept=self._accept)

    def _read(self, message: Any) -> list[Result]:
        return self._reader.read(message.properties.get("correlation_id") or "without an id", message)

    def close(self) -> None:
        self._connection.close()


def open_rpc(app: Celery, found: type[Any], url: str | None, timing: Timing) -> ResultSource:
    connection = app.connection_for_write(connect_timeout=timing.answer)
    bounds = dict.fromkeys(_BROKER_BOUNDS.get(connection.transport.driver_type, ()), timing.answer)
    connection.transport_options = {**bounds, **connection.transport_options}
    try:
        connection.ensure_connection(
            max_retries=max(1, len(connection.alt)), interval_start=0, interval_step=0
        )
        return RpcSource(found(app=app, url=url), connection, timing)
    except BaseException:
        connection.close()
        raise
