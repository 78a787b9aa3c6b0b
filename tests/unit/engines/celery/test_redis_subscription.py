# SPDX-License-Identifier: Apache-2.0
"""The subscription to Redis, on messages and a clock that tests steer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery import Celery

from airflow_dispatch_provider.engines.celery.results import Result, Timing
from airflow_dispatch_provider.engines.celery.results_redis import RedisSource


class FakePubSub:
    """A subscription, and its connection, on a clock that moves only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.messages: list[Any] = []
        self.patience: list[float] = []
        self.pings: list[float] = []
        self.connection = self

    def can_read(self, timeout: float) -> bool:
        if not self.messages:
            self.now += timeout
        return bool(self.messages)

    def get_message(self, timeout: float) -> Any:
        self.patience.append(timeout)
        return self.messages.pop(0)

    def ping(self) -> None:
        self.pings.append(self.now)


@pytest.fixture
def pubsub() -> FakePubSub:
    return FakePubSub()


@pytest.fixture
def redis_source(pubsub) -> RedisSource:
    app = Celery("t", broker="memory://", backend="cache+memory://")
    return RedisSource(app.backend, pubsub, Timing(), clock=lambda: pubsub.now)


def published(celery_id: str, data: str = '{"status": "SUCCESS", "result": 1}') -> dict[str, Any]:
    return {"type": "pmessage", "channel": f"celery-task-meta-{celery_id}".encode(), "data": data}


def receive(source: RedisSource, *watched: str) -> list[Result]:
    return source.receive(dict.fromkeys(watched, False), 0.5, threading.Event())


def test_published_results_are_read_until_there_are_no_more(redis_source, pubsub):
    pubsub.messages = [published("a"), published("b", "garbage"), None, {"type": "pong"}, published("c")]
    pubsub.messages[3]["channel"] = None
    assert receive(redis_source, "a") == [Result("a", "SUCCESS", 1)]
    assert pubsub.messages == []


def test_a_stream_of_messages_does_not_hold_the_thread_up(redis_source, pubsub):
    pubsub.messages = [published("a")] * 1200
    assert receive(redis_source) == []
    assert len(pubsub.messages) == 700


def test_there_is_time_for_the_rest_of_a_long_message(redis_source, pubsub):
    pubsub.messages = [published("a"), published("b")]
    receive(redis_source)
    assert pubsub.patience == [Timing().answer] * 2


def test_a_subscription_that_was_made_anew_is_an_interruption(redis_source, pubsub):
    """redis-py connects again by itself; what was published in between is lost."""
    pubsub.messages = [{"type": "psubscribe", "channel": b"celery-task-meta-*", "data": 1}]
    with pytest.raises(ConnectionResetError, match="interrupted"):
        receive(redis_source)


def test_silence_is_tested_now_and_then(redis_source, pubsub):
    for _ in range(3):
        while len(pubsub.pings) == 0:
            assert receive(redis_source) == []
        assert pubsub.now - redis_source._heard == pytest.approx(Timing().ping, abs=0.6)
        pubsub.pings.clear()
        pubsub.messages = [{"type": "pong", "channel": None, "data": b""}]
        receive(redis_source)


def test_a_ping_without_an_answer_is_an_outage(redis_source, pubsub):
    def listen() -> None:
        while pubsub.now < 3600:
            receive(redis_source)

    with pytest.raises(TimeoutError, match="has not answered a PING for 10 s"):
        listen()
    assert pubsub.pings == [10.0]
    assert pubsub.now == pytest.approx(20, abs=1)
