# SPDX-License-Identifier: Apache-2.0
"""Results from Redis, and from Redis behind sentinels: they come by themselves."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

from celery import Celery
from kombu.utils.encoding import bytes_to_str, ensure_bytes
from redis.backoff import NoBackoff
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import ResponseError
from redis.retry import Retry

from airflow_dispatch_provider.engines.celery.results import CHUNK, Result, ResultSource, Timing
from airflow_dispatch_provider.engines.celery.results_polled import KeyValueSource
from airflow_dispatch_provider.masking import describe


class RedisSource(KeyValueSource):
    """One subscription to the channels of all tasks: Celery publishes each result there when it stores it."""

    def __init__(
        self, backend: Any, pubsub: Any, timing: Timing, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(backend, timing)
        self.interval = timing.reconcile
        self._pubsub = pubsub
        self._timing = timing
        self._clock = clock
        self._prefix = bytes_to_str(_task_prefix(backend))
        self._heard = clock()
        self._pinged: float | None = None

    def receive(self, watched: Mapping[str, bool], timeout: float, stopping: Event) -> list[Result]:
        # Asked of the connection: get_message() would also spend the time-out on the rest of a long message.
        connection = self._pubsub.connection
        if not connection.can_read(timeout=timeout):
            self._test_silence()
            return []
        results: list[Result] = []
        for _ in range(CHUNK):
            results += self._read_message(watched)
            if not connection.can_read(timeout=0):
                break
        return results

    def _read_message(self, watched: Mapping[str, bool]) -> list[Result]:
        message = self._pubsub.get_message(timeout=self._timing.answer)
        self._heard, self._pinged = self._clock(), None
        if not message:
            return []
        if message["type"] == "psubscribe":
            raise ConnectionResetError("The subscription was interrupted, and redis-py has made it anew.")
        celery_id = bytes_to_str(message["channel"] or b"")[len(self._prefix) :]
        if message["type"] != "pmessage" or celery_id not in watched:
            return []
        return self._reader.read(celery_id, message["data"])

    def _test_silence(self) -> None:
        now = self._clock()
        if self._pinged is None and now - self._heard >= self._timing.ping:
            self._pubsub.ping()
            self._pinged = now
        elif self._pinged is not None and now - self._pinged >= self._timing.answer:
            raise TimeoutError(f"The subscription has not answered a PING for {now - self._pinged:.0f} s.")

    def close(self) -> None:
        self._pubsub.close()
        self._backend.client.connection_pool.disconnect()


def open_redis(app: Celery, found: type[Any], url: str | None, timing: Timing) -> ResultSource:
    backend = found(app=app, url=url)
    _bound_redis(backend.client.connection_pool, timing.answer)
    try:
        return RedisSource(backend, _subscribe(backend, timing), timing)
    except ResponseError as error:
        note = (
            f"Redis refuses PSUBSCRIBE ({describe(error)}), so it is asked for every running task again and again. "
            f"Allow its user +psubscribe and the channels {bytes_to_str(_task_prefix(backend))}*."
        )
        return KeyValueSource(backend, timing, note)


def _bound_redis(pool: Any, timeout: float) -> None:
    """No connection of the pool, nor one to a sentinel behind it, waits longer than that for an answer."""
    local = issubclass(pool.connection_class, UnixDomainSocketConnection)
    for name in ("socket_timeout", *(() if local else ("socket_connect_timeout",))):
        pool.connection_kwargs[name] = min(pool.connection_kwargs.get(name) or timeout, timeout)
    pool.connection_kwargs["retry"] = Retry(NoBackoff(), 1)
    pool.max_connections = max(pool.max_connections, 2)  # the subscription needs one of its own
    for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        _bound_redis(sentinel.connection_pool, timeout)


def _task_prefix(backend: Any) -> bytes:
    """The beginning of every task's key and channel."""
    return bytes(ensure_bytes(backend.get_key_for_task("*")))[:-1]


def _subscribe(backend: Any, timing: Timing) -> Any:
    pubsub = backend.client.pubsub()
    try:
        pubsub.psubscribe(re.sub(rb"([\\*?\[\]])", rb"\\\1", _task_prefix(backend)) + b"*")
        deadline = time.monotonic() + timing.answer
        while (pubsub.get_message(timeout=timing.answer) or {}).get("type") != "psubscribe":
            if time.monotonic() >= deadline:
                raise TimeoutError(f"PSUBSCRIBE was not answered within {timing.answer:.0f} s.")
    except BaseException:
        pubsub.close()
        raise
    return pubsub
