# SPDX-License-Identifier: Apache-2.0
"""One kept connection to a broker, and how a batch of messages goes through it.

Nothing here is thread-safe: a broker belongs to the publisher's thread.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import kombu
from celery import Celery

from airflow_dispatch_provider.engines.celery.message import Messages, Outgoing, Publication, Recorder
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

Rejected = list[tuple[Outgoing, str]]
"""Messages that could not be made, or may not be put where they belong, each with the reason."""

Prepared = tuple[Outgoing, list[Publication]]
"""A workload with what is published for it."""

_ACCESS_REFUSED, _RESOURCE_LOCKED, _PRECONDITION_FAILED = 403, 405, 406


class SendFailed(Exception):
    """A batch was not accepted as a whole. What is neither ``unsent`` nor ``unknown`` was accepted, or rejected."""

    def __init__(
        self,
        cause: BaseException,
        unsent: Sequence[Outgoing] = (),
        unknown: Sequence[Outgoing] = (),
        rejected: Rejected | None = None,
    ) -> None:
        """
        :param unsent: certainly not with the broker
        :param unknown: may be with the broker: the connection broke before it said so
        """
        super().__init__(describe(cause))
        self.unsent, self.unknown, self.rejected = list(unsent), list(unknown), rejected or []


class Broker(Protocol):
    """The connection that the publisher's thread needs; every method may raise what the network raises."""

    def new_connection(self) -> Any:
        """A kombu Connection of its own, for anybody, whose network calls are bounded; not yet connected."""

    def connect(self) -> float | None:
        """Open a new connection, after closing the old one; gives since when the broker has certainly lost nothing,
        in POSIX seconds, or None where it cannot tell."""

    def send(self, batch: Sequence[Outgoing], receipt: str) -> Rejected:
        """Hand a batch over, in its order; raises SendFailed."""

    def missing(self, receipts: Sequence[str]) -> set[str] | None:
        """Which of these batches the broker does not have, for it never got them, or has lost them; None where
        a broker cannot tell."""

    def revoke(self, celery_ids: Sequence[str]) -> None:
        """Tell all workers to drop these tasks."""

    def check(self) -> None:
        """Find out whether the connection still works, while there is nothing to send."""

    def close(self) -> None:
        """Close the connection; raises nothing."""


class ChannelBroker:
    """Any kombu transport: one connection, one channel, one message after the other."""

    def __init__(
        self,
        app: Celery,
        timeout: float,
        reply_queue: Callable[[], Any] = lambda: None,
        queued_timeout: float = 600.0,
    ) -> None:
        """
        :param timeout: seconds that any single network call may take
        :param reply_queue: gives the queue for results, where these are messages; asked for at each connection
        :param queued_timeout: seconds after which Airflow sends another message for a task that no worker has begun
        """
        self._app, self._timeout, self._reply_queue = app, timeout, reply_queue
        self._queued_timeout = queued_timeout
        self._connection: Any = None

    def connect(self) -> float | None:
        self.close()
        self._connection = connection = self.new_connection()
        connection.ensure_connection(
            max_retries=max(1, len(connection.alt)), interval_start=0, reraise_as_library_errors=False
        )
        queue = self._reply_queue()
        self._messages = Messages(self._app, queue.name if queue else None)
        self._declared: set[str] = set()
        self._open_channel()
        if queue:
            queue(self._channel).declare()
        return None

    def new_connection(self) -> Any:
        options = {**self._timeouts(), **self._app.conf.broker_transport_options}
        return self._app.connection_for_write(connect_timeout=self._timeout, transport_options=options)

    def _timeouts(self) -> dict[str, Any]:
        """Transport options that bound network calls, where the user has not set them."""
        return {}

    def _open_channel(self) -> None:
        self._channel = self._connection.channel()
        self._producer = kombu.Producer(self._channel, auto_declare=False)

    def _replace_channel(self) -> None:
        """After an error that has closed the channel. py-amqp opens it again by itself, as one that knows nothing of
        confirms."""
        with contextlib.suppress(Exception):
            self._channel.close()
        self._open_channel()

    def send(self, batch: Sequence[Outgoing], receipt: str) -> Rejected:
        ready, rejected = self._prepare(batch)
        for place, (outgoing, publications) in enumerate(ready):
            try:
                self._publish(outgoing, publications)
            except Exception as error:
                unsent = [later for later, _ in ready[place + 1 :]]
                raise SendFailed(error, unsent, [outgoing], rejected) from error
        return rejected

    def _prepare(self, batch: Sequence[Outgoing]) -> tuple[list[Prepared], Rejected]:
        """Make messages and declare queues, before any is published: a queue that may not be declared costs the
        channel, and with it the confirms that are still to come."""
        ready: list[Prepared] = []
        rejected: Rejected = []
        for place, outgoing in enumerate(batch):
            try:
                publications = self._messages.publications(outgoing)
            except Exception as error:
                rejected.append((outgoing, describe(error)))
                continue
            try:
                self._declare(outgoing.queue, publications)
            except Exception as error:
                if not _concerns_one_queue(error):
                    unsent = [*(earlier for earlier, _ in ready), *batch[place:]]
                    raise SendFailed(error, unsent, rejected=rejected) from error
                rejected.append((outgoing, describe(error)))
                self._replace_channel()
                continue
            ready.append((outgoing, publications))
        return ready, rejected

    def _declare(self, queue: str, publications: Sequence[Publication]) -> None:
        if queue in self._declared:
            return
        for entity in (entity for publication in publications for entity in publication.declare):
            try:
                self._producer.maybe_declare(entity)
            except self._connection.channel_errors as error:
                # The queue exists, with other arguments than ours: whoever made it knows better.
                if getattr(error, "code", None) != _PRECONDITION_FAILED:
                    raise
                log.warning(
                    "The queue %r exists with other properties and is used as it is: %s", queue, error
                )
                self._replace_channel()
        self._declared.add(queue)

    def _publish(self, outgoing: Outgoing, publications: Sequence[Publication]) -> None:
        for publication in publications:
            self._producer.publish(publication.body, **publication.options)

    def missing(self, receipts: Sequence[str]) -> set[str] | None:
        return None

    def revoke(self, celery_ids: Sequence[str]) -> None:
        arguments = {"task_id": list(celery_ids), "terminate": False, "signal": "SIGTERM"}
        # Kombu itself would repeat it until the broker is back.
        recorder = Recorder()
        mailbox = self._app.control.mailbox(self._connection)
        mailbox._publish("revoke", arguments, channel=self._channel, producer=recorder)
        try:
            with self._connection.channel() as channel:
                producer = kombu.Producer(channel, auto_declare=False)
                for publication in recorder.publications:
                    producer.publish(publication.body, declare=publication.declare, **publication.options)
        except self._connection.channel_errors as error:
            log.warning("Workers cannot be told to drop %d tasks: %s", len(celery_ids), error)

    def check(self) -> None:
        """Transports other than redis and AMQP have nothing to ask."""

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect(socket_timeout=1)


class AmqpBroker(ChannelBroker):
    """RabbitMQ: publisher confirms are awaited once a batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        configured = self._app.conf.broker_transport_options.get("confirm_publish")
        self._confirms = configured is None or str(configured).lower() not in ("false", "0", "no", "")
        self._unconfirmed: dict[int, Outgoing] = {}
        self._refused: list[Outgoing] = []

    def _timeouts(self) -> dict[str, Any]:
        return {"read_timeout": self._timeout, "write_timeout": self._timeout}

    def new_connection(self) -> Any:
        connection = super().new_connection()
        # py-amqp would wait for the confirm of each message.
        connection.transport_options.pop("confirm_publish", None)
        return connection

    def _open_channel(self) -> None:
        super()._open_channel()
        self._published = 0
        self._unconfirmed = {}
        if self._confirms:
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._on_ack)
            self._channel.events["basic_nack"].add(self._on_nack)

    def send(self, batch: Sequence[Outgoing], receipt: str) -> Rejected:
        self._refused = []
        try:
            self.check()  # what it said meanwhile, such as goodbye
        except Exception as error:
            raise SendFailed(error, unsent=batch) from error
        try:
            rejected = super().send(batch, receipt)
        except SendFailed as failed:
            failed.unsent = [*self._refused, *failed.unsent]
            failed.unknown = list(dict.fromkeys([*self._unconfirmed.values(), *failed.unknown]))
            raise
        self._await_confirms(rejected)
        return rejected

    def _publish(self, outgoing: Outgoing, publications: Sequence[Publication]) -> None:
        for publication in publications:
            self._published += 1
            if self._confirms:
                self._unconfirmed[self._published] = outgoing
            super()._publish(outgoing, [publication])

    def _await_confirms(self, rejected: Rejected) -> None:
        try:
            while self._unconfirmed:
                self._connection.drain_events(timeout=self._timeout)
        except Exception as error:
            unknown = list(dict.fromkeys(self._unconfirmed.values()))
            raise SendFailed(error, self._refused, unknown, rejected) from error
        if self._refused:
            raise SendFailed(RuntimeError("the broker refused messages (nack)"), self._refused, (), rejected)

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        for tag in self._confirmed(delivery_tag, multiple):
            self._unconfirmed.pop(tag, None)

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        for tag in self._confirmed(delivery_tag, multiple):
            outgoing = self._unconfirmed.pop(tag, None)
            if outgoing is not None:
                self._refused.append(outgoing)

    def _confirmed(self, delivery_tag: int, multiple: bool) -> list[int]:
        return [tag for tag in self._unconfirmed if tag <= delivery_tag] if multiple else [delivery_tag]

    def check(self) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=0)
        self._connection.heartbeat_check()


def _concerns_one_queue(error: Exception) -> bool:
    """Whether anybody who names such a queue is to blame: it is somebody else's, or its name too long for AMQP."""
    return isinstance(error, struct.error) or getattr(error, "code", 0) in (_ACCESS_REFUSED, _RESOURCE_LOCKED)


def broker_for(app: Celery, timeout: float, **options: Any) -> Broker:
    """The fastest way to that app's broker; raises what kombu raises for a transport that it does not know, or
    whose client library is missing."""
    connection = app.connection_for_write()
    kind = connection.transport.driver_type
    if kind == "redis":
        from airflow_dispatch_provider.engines.celery.redis_broker import RedisBroker

        return RedisBroker(app, timeout, **options)
    return AmqpBroker(app, timeout, **options) if kind == "amqp" else ChannelBroker(app, timeout, **options)
