# SPDX-License-Identifier: Apache-2.0
"""Result backends that are asked again and again, because they send nothing by themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from uuid import uuid4

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend
from celery.exceptions import SecurityError
from kombu.exceptions import ContentDisallowed, SerializationError
from kombu.utils.encoding import bytes_to_str

from airflow_dispatch_provider.engines.celery.results import (
    Polled,
    Reader,
    Result,
    ResultSource,
    Timing,
    chunks,
)

_UNREADABLE = (SerializationError, ContentDisallowed, SecurityError, LookupError, TypeError, ValueError)


class OneByOneSource(Polled):
    """Any backend at all, one round trip for each id."""

    def __init__(self, backend: Any, timing: Timing) -> None:
        super().__init__(timing)
        backend.always_retry = False  # it would try for ever
        self._reader = Reader(backend.get_task_meta, _UNREADABLE)

    def ask(self, ids: Collection[str], watched: Mapping[str, bool]) -> Iterator[list[Result]]:
        for celery_id in ids:
            yield self._reader.read(celery_id, celery_id)


class KeyValueSource(Polled):
    """A backend that can be asked for many keys at once."""

    def __init__(self, backend: Any, timing: Timing, note: str | None = None) -> None:
        super().__init__(timing)
        self.note = note
        self._backend = backend
        self._reader = Reader(backend.decode_result)

    def ask(self, ids: Collection[str], watched: Mapping[str, bool]) -> Iterator[list[Result]]:
        for chunk in chunks(ids):
            keys = [bytes_to_str(self._backend.get_key_for_task(celery_id)) for celery_id in chunk]
            found = self._backend.mget([self._backend.get_key_for_task(celery_id) for celery_id in chunk])
            if isinstance(found, Mapping):  # memcached's clients
                by_key = {bytes_to_str(key): value for key, value in found.items()}
                found = [by_key.get(key) for key in keys]
            pairs = zip(chunk, found, strict=True)
            yield [result for key, value in pairs if value for result in self._reader.read(key, value)]


def open_other(app: Celery, found: type[Any], url: str | None, timing: Timing) -> ResultSource:
    backend = found(app=app, url=url)
    asks_many = getattr(found, "mget", BaseKeyValueStoreBackend.mget) is not BaseKeyValueStoreBackend.mget
    source = KeyValueSource(backend, timing) if asks_many else OneByOneSource(backend, timing)
    list(source.ask([str(uuid4())], {}))  # these backends connect only when they are asked for something
    return source
