# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ as broker: publisher confirms, awaited for as many messages as can be told apart."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed, Why
from airflow_dispatch_provider.engines.celery.brokers import PRECONDITION_FAILED, ChannelBroker, Prepared
from airflow_dispatch_provider.engines.celery.message import Publication
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

LARGE = 128 * 1024
"""Bytes: a longer message is sent alone, so that it is known which one the broker finds too large."""


class AmqpBroker(ChannelBroker):
    """Publisher confirms are awaited once a group."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        configured = self._app.conf.broker_transport_options.get("confirm_publish")
        self._confirms = configured is None or str(configured).lower() not in ("false", "0", "no", "")
        self._unconfirmed: dict[int, Outgoing | None] = {}
        self._nacked: list[Outgoing] = []
        self._proven: set[str] = set()

    def _timeouts(self) -> dict[str, Any]:
        return {"read_timeout": self._timeout, "write_timeout": self._timeout}

    def new_connection(self) -> Any:
        connection = super().new_connection()
        # py-amqp would wait for the confirm of each message.
        connection.transport_options.pop("confirm_publish", None)
        return connection

    def _waiting(self, queue: str) -> int | None:
        """A queue that no worker listens to may be one that the server cannot count now: a quorum queue without its
        leader has no messages and no consumers. One that cannot be reached is not found, in other words."""
        try:
            with self._connection.channel() as channel:
                found = channel.queue_declare(queue, passive=True)
        except self._connection.channel_errors as error:
            return 0 if f"no queue '{queue}'" in str(error) else None
        return int(found.message_count) if found.message_count or found.consumer_count else None

    def _open_channel(self) -> None:
        super()._open_channel()
        self._published = 0
        self._unconfirmed = {}
        if self._confirms:
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._on_ack)
            self._channel.events["basic_nack"].add(self._on_nack)

    def connect(self) -> None:
        self._proven.clear()
        self._blocked: str | None = None
        super().connect()
        self._connection.connection.on_blocked = self._on_blocked

    def _on_blocked(self, reason: str) -> None:
        self._blocked = f"it blocks publishers: {reason}"

    def send(self, batch: Sequence[Outgoing], receipt: str) -> list[Refusal]:
        try:
            self.check()  # what it said meanwhile, such as goodbye
        except Exception as error:
            raise SendFailed(error, unsent=batch) from error
        return super().send(batch, receipt)

    def _groups(self, ready: Sequence[Prepared]) -> list[list[Prepared]]:
        """A refusal closes the channel and does not say which message it is about. So a large one goes alone, and the
        first one to each queue."""
        groups: list[list[Prepared]] = []
        seen = set(self._proven)
        joins = not self._confirms
        for outgoing, publications in ready:
            alone = self._confirms and (outgoing.queue not in seen or _length(publications[0]) > LARGE)
            if groups and joins and not alone:
                groups[-1].append((outgoing, publications))
            else:
                groups.append([(outgoing, publications)])
            joins = not alone
            seen.add(outgoing.queue)
        return groups

    def _send_group(self, group: Sequence[Prepared], refusals: list[Refusal]) -> None:
        self._nacked = []
        rest = list(group)
        try:
            while rest:
                refusals += self._publish_one(*rest[0])
                del rest[0]
            while self._unconfirmed:
                self._connection.drain_events(timeout=self._timeout)
        except Exception as error:
            self._after_failure(error, group, [outgoing for outgoing, _ in rest], refusals)
            return
        self._proven.update(outgoing.queue for outgoing, _ in group)
        refusals += self._full()

    def _publish_one(self, outgoing: Outgoing, publications: Sequence[Publication]) -> list[Refusal]:
        try:
            self._publish(outgoing, publications)
        except Exception as error:
            if self._concerns_connection(error) or isinstance(error, self._connection.channel_errors):
                raise
            # It could not even be written: no message has this number.
            place = self._unconfirmed.pop(self._published, outgoing)
            self._published -= 1
            return [Refusal(outgoing, describe(error))] if place is outgoing else []
        return []

    def _after_failure(
        self, error: Exception, group: Sequence[Prepared], rest: Sequence[Outgoing], refusals: list[Refusal]
    ) -> None:
        """Only of a message that was alone it is certain that the refusal is about it.

        :param rest: those that were not published yet, the first of them perhaps in part
        """
        refusals += self._full()
        unknown = [outgoing for outgoing in self._unconfirmed.values() if outgoing is not None]
        outgoing, publications = group[0]
        alone = len(group) == len(publications) == 1
        if not alone or unknown != [outgoing] or self._concerns_connection(error):
            raise SendFailed(error, rest[1:], dict.fromkeys([*unknown, *rest[:1]])) from error
        why = Why.MESSAGE if getattr(error, "code", None) == PRECONDITION_FAILED else Why.QUEUE
        refusals.append(Refusal(outgoing, describe(error), why))
        self._declared.discard(outgoing.queue)
        try:
            self._replace_channel()
        except Exception as cause:
            raise SendFailed(cause) from cause

    def _full(self) -> list[Refusal]:
        nacked, self._nacked = self._nacked, []
        return [Refusal(outgoing, "its queue takes no more messages (nack)", Why.FULL) for outgoing in nacked]

    def _publish(self, outgoing: Outgoing, publications: Sequence[Publication]) -> None:
        """The first of them is the task itself."""
        for place, publication in enumerate(publications):
            self._published += 1
            if self._confirms:
                self._unconfirmed[self._published] = None if place else outgoing
            super()._publish(outgoing, [publication])

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        for tag in self._confirmed(delivery_tag, multiple):
            self._unconfirmed.pop(tag, None)

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        for tag in self._confirmed(delivery_tag, multiple):
            outgoing = self._unconfirmed.pop(tag, None)
            if outgoing is not None:
                self._nacked.append(outgoing)

    def _confirmed(self, delivery_tag: int, multiple: bool) -> list[int]:
        return [tag for tag in self._unconfirmed if tag <= delivery_tag] if multiple else [delivery_tag]

    def check(self) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=0)
        self._connection.heartbeat_check()
        if self._blocked:
            raise ConnectionError(self._blocked)

    def probe(self) -> None:
        """Messages to nowhere, which are dropped and confirmed. While RabbitMQ is short of memory or disk, it takes one
        from a connection, and only then blocks it."""
        for _ in range(2 if self._confirms else 0):
            try:
                self._publish(_NOBODY, [Publication(b"", (), {"routing_key": f"dispatch-probe-{uuid4()}"})])
                while self._unconfirmed:
                    self._connection.drain_events(timeout=self._timeout)
            except self._connection.channel_errors as error:
                log.debug("The broker may not be probed: %s", describe(error))
                self._replace_channel()
        self.check()


_NOBODY = Outgoing("", None, None, "")


def _length(publication: Publication) -> int:
    """Of a message's text, or of the only argument in a body that is not written yet."""
    body = publication.body
    return len(body if isinstance(body, str | bytes) else str(body[0]))
