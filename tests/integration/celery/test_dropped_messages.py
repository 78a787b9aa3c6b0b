# SPDX-License-Identifier: Apache-2.0
"""Messages that workers drop while the result backend is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import wait_until

from airflow_dispatch_provider.engines.celery import _suspects
from airflow_dispatch_provider.engines.celery._suspects import NOWHERE
from airflow_dispatch_provider.engines.celery.brokers import Broker, broker_for
from airflow_dispatch_provider.lifecycle.events import Ended, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome
from devkit.servers.valkey import ValkeyServer

from .engines import Hand, running
from .publishing import make, new_queue
from .test_engine_valkey import app_of

pytestmark = pytest.mark.integration("redis", "rabbitmq")


@pytest.fixture(params=["valkey", "rabbitmq"])
def app(request: pytest.FixtureRequest, own_valkey: ValkeyServer) -> Any:
    app = app_of(request.getfixturevalue(request.param).url(), own_valkey.url())
    app.conf.task_track_started = True
    return app


@contextmanager
def dropped(app: Any, queue: str) -> Iterator[None]:
    """Within it, a worker listens that has dropped a message."""
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as messages:
        messages.get(timeout=30).ack()
        yield


@pytest.fixture
def broker(app: Any) -> Iterator[Broker]:
    broker = broker_for(app, 5.0)
    broker.connect()
    yield broker
    broker.close()


def test_a_broker_says_what_waits(broker: Broker, app: Any) -> None:
    """Of a queue that is not there, nothing; and it sends on."""
    one, other, none = new_queue(), new_queue(), new_queue()
    assert broker.send([*make(2, one), *make(1, other)], "receipt 1") == []
    assert broker.waiting([one, none, other]) == {one: 2, none: 0, other: 1}
    with dropped(app, other):
        assert broker.waiting([other]) == {other: 0}
    assert broker.send(make(1, one), "receipt 2") == []
    assert broker.waiting([one]) == {one: 3}


def test_what_a_prefix_hides_is_counted(valkey: ValkeyServer) -> None:
    """Kombu's own question for a queue does not see it."""
    app, queue = app_of(valkey.url(), valkey.url()), new_queue()
    app.conf.broker_transport_options = {"global_keyprefix": "airflow:"}
    broker = broker_for(app, 5.0)
    broker.connect()
    assert broker.send(make(3, queue), "receipt") == []
    assert broker.waiting([queue]) == {queue: 3}
    broker.close()


def test_of_a_queue_without_workers_that_seems_empty_nothing_is_known(rabbitmq: Any) -> None:
    """A quorum queue without its leader seems so, too."""
    app, queue = app_of(rabbitmq.url(), "cache+memory://"), new_queue()
    broker = broker_for(app, 5.0)
    broker.connect()
    assert broker.send(make(1, queue), "receipt") == []
    with dropped(app, queue):
        assert broker.waiting([queue]) == {queue: 0}
    wait_until(lambda: broker.waiting([queue]) == {})
    broker.close()


def test_what_a_worker_has_dropped_has_ended(app: Any, own_valkey: ValkeyServer, monkeypatch: Any) -> None:
    """The database is asked then; what waits in its queue goes on waiting."""
    monkeypatch.setattr(_suspects, "LOOK_AFTER", 0.0)
    monkeypatch.setattr(_suspects, "LOOK_AGAIN", 0.0)
    with running(app) as hand:
        (lost,), (waits,) = hand.submit(1, queue := new_queue()), hand.submit(1, new_queue())
        hand.hears(Sent, [lost, waits])
        own_valkey.kill()
        wait_until(lambda: _problem(hand))
        with dropped(app, queue):
            own_valkey.restart(empty=False)
            wait_until(lambda: not _problem(hand))
            (ended,) = hand.hears(Ended, [lost])
        assert ended == Ended(lost, Outcome.FAILED, None, NOWHERE, mishap=True)
        assert [type(event) for event in hand.said_of(waits)] == [Sent]


def test_workers_that_do_not_say_what_they_have_are_not_suspected(
    app: Any, own_valkey: ValkeyServer, monkeypatch: Any
) -> None:
    """Messages that run would be taken for dropped."""
    monkeypatch.setattr(_suspects, "LOOK_AFTER", 0.0)
    monkeypatch.setattr(_suspects, "LOOK_AGAIN", 0.0)
    app.conf.task_track_started = False
    with running(app) as hand:
        (taken,) = hand.submit(1, queue := new_queue())
        hand.hears(Sent, [taken])
        with dropped(app, queue):
            own_valkey.kill()
            wait_until(lambda: _problem(hand))
            own_valkey.restart(empty=False)
            wait_until(lambda: not _problem(hand))
            for _ in range(5):
                assert [type(event) for event in hand.said_of(taken)] == [Sent]


def _problem(hand: Hand) -> Any:
    hand.room()
    parts = hand.engine._parts
    return parts is not None and parts.watcher.problem
