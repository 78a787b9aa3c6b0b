# SPDX-License-Identifier: Apache-2.0
"""Redis, Valkey and Sentinel as broker: one round trip for a batch, which can be accounted for afterwards."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed, Why
from airflow_dispatch_provider.engines.celery.brokers import ChannelBroker
from airflow_dispatch_provider.engines.celery.message import Publication, Template
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

OWN_KEYS = "_airflow_dispatch."
RECEIPT_KEY = OWN_KEYS + "receipt.{}"

RECEIPT_GRACE = 300.0
"""Seconds for which the broker keeps the receipt of a batch after Airflow has given up waiting for its tasks."""

_ONE_KEY = re.compile(r"WRONGTYPE|permissions to access (a|one of the) key")
"""Errors that concern a queue and not the broker: the key is something else, or somebody else's."""


@dataclass
class _Batch:
    """The commands that put a batch where workers find it."""

    pushes: dict[str, list[str]] = field(default_factory=dict)
    """Texts to push, by key: queue and priority."""

    senders: dict[str, list[Outgoing]] = field(default_factory=dict)
    """Whose texts they are."""

    others: dict[tuple[Any, ...], None] = field(default_factory=dict)
    """Commands beside the pushes, such as PEXPIRE for queues that expire; each once."""

    def push(self, key: str, text: str, outgoing: Outgoing) -> None:
        self.pushes.setdefault(key, []).append(text)
        self.senders.setdefault(key, []).append(outgoing)

    def by_key(self) -> list[_Batch]:
        """One batch for each key that is pushed to; the other commands are harmless when repeated."""
        return [_Batch({key: self.pushes[key]}, {key: self.senders[key]}, self.others) for key in self.pushes]

    @property
    def outgoing(self) -> list[Outgoing]:
        return list(dict.fromkeys(outgoing for group in self.senders.values() for outgoing in group))


class RedisBroker(ChannelBroker):
    """A batch is one transaction, with a receipt.

    The receipt is a key that the transaction writes beside the messages. After a broken connection it says
    whether the batch arrived, and after a restart whether the broker still has its data. The last one is looked
    at again and again, for redis-py connects anew by itself and tells nobody.
    """

    _receipts = True
    _last = ""

    def connect(self) -> None:
        super().connect()
        self._templates: dict[str, tuple[str, Template] | None] = {}
        with self._channel.conn_or_acquire() as client:
            self._client = client
        try:
            self._last = uuid.uuid4().hex
            self._write_receipt(self._client, self._last)
        except NoPermissionError as error:
            if self._receipts:
                log.info("The broker's user may not write receipts (%s): batches go without.", error)
            self._receipts = False
        else:
            self._receipts = True

    def _timeouts(self) -> dict[str, Any]:
        return {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}

    def new_connection(self) -> Any:
        connection = super().new_connection()
        # What redis-py repeated by itself could be pushed twice.
        connection.transport_options["retry_on_timeout"] = False
        return connection

    def _waiting(self, queue: str) -> int | None:
        """Of all priorities. Kombu's own question whether a queue is there knows nothing of a ``global_keyprefix``."""
        return int(self._channel._size(queue))

    def send(self, batch: Sequence[Outgoing], receipt: str) -> list[Refusal]:
        commands = _Batch()
        refusals: list[Refusal] = []
        for outgoing in batch:
            try:
                self._add(outgoing, commands)
            except Exception as error:
                if isinstance(error, (RedisError, OSError)) and not _ONE_KEY.search(str(error)):
                    raise SendFailed(error, unsent=batch) from error
                why = Why.QUEUE if isinstance(error, (RedisError, LookupError)) else Why.MESSAGE
                refusals.append(Refusal(outgoing, describe(error), why))
        if commands.pushes:
            try:
                self._client.ping()  # else all of it would be in doubt where the connection broke long ago
            except Exception as error:
                raise SendFailed(error, unsent=commands.outgoing, refusals=refusals) from error
            self._execute(commands, receipt, refusals)
        return refusals

    def _execute(self, commands: _Batch, receipt: str, refusals: list[Refusal]) -> None:
        try:
            results = self._transaction(commands, receipt)
        except ResponseError as error:  # the transaction was refused as a whole: full, read-only, loading
            if not _ONE_KEY.search(str(error)):
                raise SendFailed(error, unsent=commands.outgoing, refusals=refusals) from error
            self._execute_by_key(error, commands, receipt, refusals)
            return
        except Exception as error:
            raise SendFailed(error, unknown=commands.outgoing, refusals=refusals) from error
        if results[-1]:  # otherwise the next check finds out what else is lost
            self._last = receipt
        _check(commands, results, refusals)

    def _execute_by_key(
        self, error: Exception, commands: _Batch, receipt: str, refusals: list[Refusal]
    ) -> None:
        """Nothing was done because of a key that is somebody else's: each goes alone."""
        if len(commands.pushes) == 1:
            refusals += [Refusal(outgoing, describe(error), Why.QUEUE) for outgoing in commands.outgoing]
            return
        parts = commands.by_key()
        for place, part in enumerate(parts):
            try:
                self._execute(part, receipt, refusals)
            except SendFailed as failed:
                failed.unsent += [outgoing for later in parts[place + 1 :] for outgoing in later.outgoing]
                raise

    def _transaction(self, commands: _Batch, receipt: str) -> list[Any]:
        with self._client.pipeline(transaction=True) as pipe:
            for key, texts in commands.pushes.items():
                pipe.lpush(key, *texts)
            for name, *arguments in commands.others:
                getattr(pipe, name)(*arguments)
            if self._receipts:
                self._write_receipt(pipe, receipt)
                self._write_receipt(pipe, self._last, xx=True)
            results: list[Any] = pipe.execute(raise_on_error=False)
        return results

    def _write_receipt(self, client: Any, receipt: str, **options: Any) -> None:
        """Kombu adds a global key prefix to SET, as to no EXISTS: a ``SET .. XX`` asks and prolongs at once."""
        seconds = int(self._queued_timeout + RECEIPT_GRACE)
        client.set(RECEIPT_KEY.format(receipt), 1, ex=seconds, **options)

    def missing(self, receipts: Sequence[str]) -> set[str] | None:
        if not self._receipts:
            return None
        with self._client.pipeline(transaction=False) as pipe:
            for receipt in receipts:
                self._write_receipt(pipe, receipt, xx=True)
            return {receipt for receipt, found in zip(receipts, pipe.execute(), strict=True) if not found}

    def check(self) -> None:
        if not self._receipts:
            self._client.ping()
        elif self.missing([self._last]):
            raise ConnectionError("it has lost data")

    # Making the commands

    def _add(self, outgoing: Outgoing, commands: _Batch) -> None:
        template = self._template(outgoing.queue)
        if template is not None:
            key, text = template
            commands.push(key, text.fill(outgoing.celery_id, outgoing.payload()), outgoing)
            return
        publications = self._messages.publications(outgoing)
        known = outgoing.queue in self._declared
        self._declare(outgoing.queue, publications)
        recorded = [command for publication in publications for command in self._recorded(publication)]
        if all(name != "lpush" for name, *_ in recorded):  # kombu drops what no queue is bound for
            raise (ConnectionError if known else LookupError)(f"no queue is bound for {outgoing.queue!r}")
        for command in recorded:
            if command[0] == "lpush":
                commands.push(command[1], command[2], outgoing)
            else:
                commands.others[command] = None

    def _is_taken(self, queue: str) -> bool:
        """Anybody who writes a Dag can name any queue: what kombu and this package keep is not to be overwritten."""
        channel = self._channel
        keys = (channel.unacked_key, channel.unacked_index_key, channel.unacked_mutex_key)
        bindings = channel.keyprefix_queue.partition("%s")[0]
        return queue in keys or queue.startswith((OWN_KEYS, bindings))

    def _template(self, queue: str) -> tuple[str, Template] | None:
        """Key and template of a queue's messages; None where each has to be made by kombu.

        :raises LookupError: the key of the queue is not free
        """
        if queue not in self._templates:
            if self._is_taken(queue):
                raise LookupError(f"the broker keeps something else under the key {queue!r}")
            self._templates[queue] = self._make_template(queue)
        return self._templates[queue]

    def _make_template(self, queue: str) -> tuple[str, Template] | None:
        if not self._messages.are_uniform:
            return None
        sample = self._messages.sample(queue)
        self._declare(queue, [sample])
        recorded = self._recorded(sample)
        if [name for name, *_ in recorded] != ["lpush"]:
            return None
        _, key, text = recorded[0]
        try:
            return key, Template(text, json.loads(text)["properties"]["delivery_tag"], self._messages)
        except ValueError:
            return None

    def _recorded(self, publication: Publication) -> list[tuple[Any, ...]]:
        """The commands that kombu would store a message with."""
        with _recording(self._channel, self._client) as commands:
            self._producer.publish(publication.body, **publication.options)
        return commands


def _check(commands: _Batch, results: Sequence[Any], refusals: list[Refusal]) -> None:
    """Redis goes on with a transaction after a command that fails, such as a push to what is no list."""
    unsent: list[Outgoing] = []
    cause: Exception | None = None
    for senders, result in zip(commands.senders.values(), results, strict=False):
        if isinstance(result, Exception) and _ONE_KEY.search(str(result)):
            refusals += [Refusal(outgoing, describe(result), Why.QUEUE) for outgoing in senders]
        elif isinstance(result, Exception):
            unsent += senders
            cause = result
    if cause:
        raise SendFailed(cause, unsent=unsent, refusals=refusals)


class _Recorder:
    """A redis client that takes note of what stores a message, and passes on everything else."""

    def __init__(self, client: Any) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def lpush(self, *arguments: Any) -> None:
        self.commands.append(("lpush", *arguments))

    def pexpire(self, *arguments: Any) -> None:
        self.commands.append(("pexpire", *arguments))

    def publish(self, *arguments: Any) -> None:
        self.commands.append(("publish", *arguments))

    def pipeline(self, *arguments: Any, **options: Any) -> Any:
        return nullcontext(self)

    def execute(self) -> None:
        """Of the pipeline: nothing has been sent yet."""


@contextmanager
def _recording(channel: Any, client: Any) -> Iterator[list[tuple[Any, ...]]]:
    recorder = _Recorder(client)
    acquire: Callable[..., Any] = channel.conn_or_acquire
    channel.conn_or_acquire = lambda client=None: nullcontext(client or recorder)
    try:
        yield recorder.commands
    finally:
        channel.conn_or_acquire = acquire
