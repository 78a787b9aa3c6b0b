# SPDX-License-Identifier: Apache-2.0
"""The engine with a real RabbitMQ, also while that is away or mute, or does not take everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from kombu import Connection
from support import wait_until

from airflow_dispatch_provider.engines.celery.brokers import broker_for
from airflow_dispatch_provider.lifecycle.events import Broken, Ended, Recovered, Rejected, Returned, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.rabbitmq import RabbitServer

from .conftest import Broker, _require_rabbitmq
from .engines import Hand, running
from .publishing import listening, make, make_app, new_queue, revoked

pytestmark = pytest.mark.integration("rabbitmq")

FULL = {"x-max-length": 1, "x-overflow": "reject-publish"}


class Strict(RabbitServer):
    """With settings of its own."""

    def __init__(self, setting: str) -> None:
        super().__init__()
        self._setting = setting

    def _prepare(self) -> None:
        super()._prepare()
        with (self.folder / "rabbitmq.conf").open("a") as conf:
            conf.write(f"{self._setting}\n")


@pytest.fixture
def strict() -> Iterator[Callable[[str], RabbitServer]]:
    """Starts one with a setting of its own."""
    _require_rabbitmq()
    servers: list[Strict] = []

    def make(setting: str) -> RabbitServer:
        servers.append(Strict(setting))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def hand(rabbitmq: Broker) -> Iterator[Hand]:
    with running(make_app(rabbitmq.url())) as hand:
        yield hand


@pytest.fixture
def channel(rabbitmq: Broker) -> Iterator[Any]:
    with Connection(rabbitmq.url()) as connection:
        yield connection.channel()


def take(channel: Any, queue: str) -> list[str]:
    """The Celery ids of the messages in a queue, the oldest first; it is then empty."""
    messages = iter(partial(channel.basic_get, queue, no_ack=True), None)
    return [message.properties["application_headers"]["id"] for message in messages]


def ids_in(server: RabbitServer, queue: str) -> list[str]:
    with Connection(server.url()) as connection:
        return take(connection.channel(), queue)


def test_what_was_submitted_is_sent_in_order(hand, channel):
    queue = new_queue()
    sent = hand.sends(200, queue)
    assert take(channel, queue) == sent
    channel.queue_delete(queue)


def test_a_revoked_one_is_dropped_by_the_workers(hand, channel, rabbitmq):
    queue = new_queue()
    with listening(make_app(rabbitmq.url())) as heard:
        (number,) = hand.submit(1, queue)
        celery_id = hand.hears(Sent)[0].info
        hand.engine.revoke(number)
        assert hand.hears(Ended) == [Ended(number, Outcome.FAILED, None, "revoked")]
        wait_until(lambda: celery_id in revoked(heard))
    channel.queue_delete(queue)


@pytest.mark.parametrize("place", [0, 1])
def test_a_message_that_cannot_be_written_is_refused_alone(place, channel, rabbitmq, monkeypatch):
    """Its number is that of the next one, for RabbitMQ counts what it gets. A task whose event fails is sent."""
    queue = new_queue()
    broker = broker_for(make_app(rabbitmq.url(), task_send_sent_event=True), 5.0)
    broker.connect()
    batch = make(4, queue)
    publish, count = broker._producer.publish, iter(range(100))

    def fail_once(body: Any, **options: Any) -> None:
        if next(count) == 2 + place:
            raise TypeError("cannot be written")
        publish(body, **options)

    monkeypatch.setattr(broker._producer, "publish", fail_once)
    refused = [refusal.outgoing for refusal in broker.send(batch, "receipt")]
    broker.close()
    assert refused == ([] if place else [batch[1]])
    assert take(channel, queue) == [o.celery_id for o in batch if o not in refused]
    channel.queue_delete(queue)


class TestQueues:
    def test_one_that_is_full_keeps_nothing_from_the_others(self, hand, channel):
        """Its own tasks go back unblamed, and it is used again when there is room."""
        full, other = new_queue(), new_queue()
        channel.queue_declare(full, durable=True, auto_delete=False, arguments=FULL)
        hand.hears(Sent, hand.submit(1, full))
        refused = hand.submit(3, full)
        returned = hand.hears(Returned, refused)
        assert {event.reason for event in returned} == {
            f"queue {full!r}: its queue takes no more messages (nack)"
        }
        assert set(hand.room().closed) == {full}
        sent = hand.sends(20, other)
        assert take(channel, other) == sent
        assert hand.room().unavailable is None
        assert not [event for event in hand.heard if isinstance(event, Broken | Rejected)]
        take(channel, full)
        wait_until(lambda: not hand.room().closed)
        hand.sends(1, full)
        assert hand.room().closed == {}
        for queue in (full, other):
            channel.queue_delete(queue)

    @pytest.mark.parametrize("name", ["amq.theirs", "", "x" * 256], ids=["reserved", "locked", "too long"])
    def test_one_that_may_not_be_used_keeps_nothing_from_the_others(self, name, hand, channel):
        """One of its tasks is rejected, in the same breath as the broker is acquitted; the others wait."""
        good = new_queue()
        theirs = name or channel.queue_declare(f"theirs {good}", exclusive=True).queue
        one, two = hand.submit(2, theirs)
        hand.sends(20, good)
        hand.hears(Rejected, [one])
        hand.hears(Returned, [two])
        place = next(n for n, event in enumerate(hand.heard) if isinstance(event, Rejected))
        assert hand.heard[place + 1] == Recovered("x")
        assert set(hand.room().closed) == {theirs}
        assert hand.room().unavailable is None
        channel.queue_delete(good)


def test_a_message_that_is_too_large_is_rejected_alone(strict):
    """RabbitMQ closes the channel over it, and says not over which."""
    server = strict("max_message_size = 200000")
    queue = new_queue()
    with running(make_app(server.url())) as hand:
        before = hand.submit(5, queue)
        (large,) = hand.submit(1, queue, dag_id="x" * 250_000)
        after = hand.submit(5, queue)
        hand.hears(Sent, before + after)
        (rejected,) = hand.hears(Rejected, [large])
        assert "message size" in rejected.reason
        assert hand.room().closed == {}
        assert len(ids_in(server, queue)) == 10
        assert not [event for event in hand.heard if isinstance(event, Broken | Ended)]


def test_one_that_is_short_of_memory_is_unusable(strict):
    """It then reads nothing from publishers, and says so only to those that publish: a probe finds it out, before any
    task is in doubt."""
    server = strict("vm_memory_high_watermark.absolute = 1MB")
    with running(make_app(server.url()), timeout=1.0) as hand:
        hand.hears(Broken)
        (number,) = hand.submit(1, new_queue())
        hand.hears(Returned, [number])
        assert "cannot be used" in hand.room().unavailable


class TestOutages:
    def test_one_that_was_killed_gives_back_what_waits_and_sends_nothing_twice(self, own_rabbitmq):
        queue = new_queue()
        with running(make_app(own_rabbitmq.url()), timeout=1.0) as hand:
            before = hand.sends(20, queue)
            own_rabbitmq.kill()
            during = hand.submit(20, queue)
            hand.hears(Broken)
            hand.hears(Returned, during)
            own_rabbitmq.restart()
            hand.hears(Recovered)
            after = hand.sends(5, queue)
        arrived = ids_in(own_rabbitmq, queue)
        assert arrived[-5:] == after
        assert set(arrived) <= {*before, *after}
        assert len(arrived) == len(set(arrived))

    def test_one_that_hangs_is_unusable_meanwhile_and_gets_nothing_twice(self, own_rabbitmq):
        queue = new_queue()
        with running(make_app(own_rabbitmq.url()), timeout=1.0) as hand:
            hand.sends(1, queue)
            own_rabbitmq.pause()
            during = hand.submit(20, queue)
            wait_until(lambda: hand.room().unavailable)
            own_rabbitmq.resume()
            hand.hears(Recovered)
            after = hand.sends(3, queue)
            for number in during:
                kinds = {type(event) for event in hand.said_of(number)}
                assert kinds in ({Sent}, {Returned}), kinds
        arrived = ids_in(own_rabbitmq, queue)
        assert arrived[-3:] == after
        assert len(arrived) == len(set(arrived))

    @pytest.mark.parametrize("mode", ["refuse", "reset"])
    def test_one_that_cannot_be_reached_is_found_again(
        self, mode, rabbitmq, channel, proxy_to: Callable[[Broker], FaultyProxy]
    ):
        queue = new_queue()
        proxy = proxy_to(rabbitmq)
        proxy.mode = mode
        with running(make_app(proxy.url(rabbitmq.url())), timeout=0.5) as hand:
            hand.hears(Broken)
            proxy.mode = "forward"
            hand.hears(Recovered)
            hand.sends(3, queue)
        assert len(take(channel, queue)) == 3
        channel.queue_delete(queue)

    def test_a_connection_that_breaks_in_a_batch_repeats_nothing(
        self, rabbitmq, channel, proxy_to: Callable[[Broker], FaultyProxy]
    ):
        """A message that was written to it counts as sent; all others are sent after it."""
        queue = new_queue()
        proxy = proxy_to(rabbitmq)
        with running(make_app(proxy.url(rabbitmq.url())), max_unsent=1000) as hand:
            hand.sends(1, queue)
            proxy.cut_after(100_000, "up")
            numbers = hand.submit(300, queue)
            sent = [event.info for event in hand.hears(Sent, numbers)]
            assert proxy.cuts == 1
        arrived = take(channel, queue)[1:]
        assert arrived == [celery_id for celery_id in sent if celery_id in arrived]
        assert 0 < 300 - len(arrived) < 290
        channel.queue_delete(queue)

    def test_a_wrong_password_is_a_problem_without_it(self, rabbitmq):
        app = make_app(rabbitmq.url().replace("guest:guest", "guest:a-Secret1"))
        with running(app) as hand:
            (broken,) = hand.hears(Broken)[:1]
            assert "ACCESS_REFUSED" in broken.reason
            assert "a-Secret1" not in broken.reason + repr(hand.engine)
