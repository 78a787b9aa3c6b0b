# SPDX-License-Identifier: Apache-2.0
"""One kept connection to a broker, and how a batch of messages goes through it.

Nothing here is thread-safe: a broker belongs to the driver's thread.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import kombu
from celery import Celery

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed, Why
from airflow_dispatch_provider.engines.celery.message import Messages, Publication, Recorder
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

Prepared = tuple[Outgoing, list[Publication]]
"""A workload with what is published for it."""

_ACCESS_REFUSED, _RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 405, 406


class Broker(Protocol):
    """The connection that the driver's thread needs; every method may raise what the network raises."""

    def new_connection(self) -> Any:
        """A kombu Connection of its own, for anybody, whose network calls are bounded; not yet connected."""

    def connect(self) -> None:
        """Open a new connection, after closing the old one."""

    def send(self, batch: Sequence[Outgoing], receipt: str) -> list[Refusal]:
        """Hand a batch over, in its order; raises SendFailed where the broker, or the connection to it, is in trouble.
        Messages that cannot be sent for reasons of their own are no trouble, and keep no other one from being sent."""

    def missing(self, receipts: Sequence[str]) -> set[str] | None:
        """Which of these batches the broker does not have, for it never got them, or has lost them; None where
        a broker cannot tell."""

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        """How many messages wait in each of these, and are with no worker; without those of which that is not certain.
        A queue that is not there has none."""

    def revoke(self, celery_ids: Sequence[str]) -> None:
        """Tell all workers to drop these tasks."""

    def check(self) -> None:
        """Find out whether the connection still works, while there is nothing to send."""

    def probe(self) -> None:
        """Find out whether the broker takes messages at all, by a request that has nothing to do with any job."""

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

    def connect(self) -> None:
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

    def send(self, batch: Sequence[Outgoing], receipt: str) -> list[Refusal]:
        ready, refusals = self._prepare(batch)
        groups = self._groups(ready)
        for place, group in enumerate(groups):
            try:
                if group := _without_refused(group, refusals):
                    self._send_group(group, refusals)
            except SendFailed as failed:
                failed.unsent += [outgoing for later in groups[place + 1 :] for outgoing, _ in later]
                failed.refusals = refusals
                raise
        return refusals

    def _groups(self, ready: Sequence[Prepared]) -> list[list[Prepared]]:
        """Messages of which the fate becomes known together."""
        return [[prepared] for prepared in ready]

    def _send_group(self, group: Sequence[Prepared], refusals: list[Refusal]) -> None:
        (outgoing, (task, *events)), *_ = group
        try:
            self._publish(outgoing, [task])
        except Exception as error:
            if self._concerns_connection(error):
                raise SendFailed(error, unknown=[outgoing]) from error
            refusals.append(Refusal(outgoing, describe(error)))
            return
        try:
            self._publish(outgoing, events)
        except Exception as error:
            raise SendFailed(error) from error

    def _prepare(self, batch: Sequence[Outgoing]) -> tuple[list[Prepared], list[Refusal]]:
        """Make messages and declare queues, before any is published: a queue that may not be declared costs the
        channel, and with it the confirms that are still to come."""
        ready: list[Prepared] = []
        refusals: list[Refusal] = []
        strange: dict[str, Exception] = {}
        for place, outgoing in enumerate(batch):
            try:
                publications = self._messages.publications(outgoing)
            except Exception as error:
                refusals.append(Refusal(outgoing, describe(error)))
                continue
            if (known := strange.get(outgoing.queue)) is not None:
                refusals.append(Refusal(outgoing, describe(known), Why.QUEUE))
                continue
            try:
                self._declare(outgoing.queue, publications)
            except Exception as error:
                self._keep_on(error, ready, batch[place:], refusals)
                strange[outgoing.queue] = error
                refusals.append(Refusal(outgoing, describe(error), Why.QUEUE))
                continue
            ready.append((outgoing, publications))
        if not ready and len(strange) > 1 and not all(map(_names_the_queue, strange.values())):
            self._blame_the_broker(strange, refusals)
        return ready, refusals

    def _keep_on(
        self,
        error: Exception,
        ready: Sequence[Prepared],
        rest: Sequence[Outgoing],
        refusals: list[Refusal],
    ) -> None:
        """After a queue could not be declared: with a channel that works, or not at all."""
        try:
            if self._concerns_connection(error):
                raise error
            self._replace_channel()
        except Exception as cause:
            raise SendFailed(cause, [*(earlier for earlier, _ in ready), *rest], refusals=refusals) from cause

    def _blame_the_broker(self, strange: dict[str, Exception], refusals: Sequence[Refusal]) -> None:
        """Different queues have met what none of them explains, and nothing else says that the broker works."""
        unsent = [refusal.outgoing for refusal in refusals if refusal.why is Why.QUEUE]
        own = [refusal for refusal in refusals if refusal.why is not Why.QUEUE]
        raise SendFailed(list(strange.values())[-1], unsent, refusals=own)

    def _concerns_connection(self, error: Exception) -> bool:
        return isinstance(error, (OSError, *self._connection.connection_errors))

    def _declare(self, queue: str, publications: Sequence[Publication]) -> None:
        if queue in self._declared:
            return
        for entity in (entity for publication in publications for entity in publication.declare):
            try:
                self._producer.maybe_declare(entity)
            except self._connection.channel_errors as error:
                # The queue exists, with other arguments than ours: whoever made it knows better.
                if getattr(error, "code", None) != PRECONDITION_FAILED:
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

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        return {queue: count for queue in queues if (count := self._count(queue)) is not None}

    def _count(self, queue: str) -> int | None:
        try:
            return self._waiting(queue)
        except Exception as error:
            if self._concerns_connection(error):
                raise
            return None

    def _waiting(self, queue: str) -> int | None:
        """Of other transports some count nearly, and some not at all."""
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

    def probe(self) -> None:
        self.check()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect(socket_timeout=1)


def _without_refused(group: Sequence[Prepared], refusals: list[Refusal]) -> list[Prepared]:
    """Those whose queue has not been refused, or found full, by an earlier message of the same batch."""
    known = {refusal.outgoing.queue: refusal for refusal in refusals if refusal.why is not Why.MESSAGE}
    refusals += [
        known[outgoing.queue]._replace(outgoing=outgoing) for outgoing, _ in group if outgoing.queue in known
    ]
    return [prepared for prepared in group if prepared[0].queue not in known]


def _names_the_queue(error: Exception) -> bool:
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
    if kind == "amqp":
        from airflow_dispatch_provider.engines.celery.amqp_broker import AmqpBroker

        return AmqpBroker(app, timeout, **options)
    return ChannelBroker(app, timeout, **options)
