# SPDX-License-Identifier: Apache-2.0
"""Publishing to a real RabbitMQ, also while it is away, mute, or does not take everything."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from support import wait_until

from airflow_dispatch_provider.engines.celery import _outbox
from airflow_dispatch_provider.engines.celery._outgoing import SendFailed
from airflow_dispatch_provider.engines.celery.brokers import broker_for
from airflow_dispatch_provider.engines.celery.message import Outgoing
from airflow_dispatch_provider.lifecycle.events import Rejected, Sent
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.rabbitmq import RabbitServer

from .conftest import Broker
from .publishing import (
    all_sent,
    assert_decodable,
    by_celery,
    ids,
    ids_of,
    listening,
    make,
    make_app,
    new_queue,
    publishing,
    results,
    revoked,
)

pytestmark = pytest.mark.integration("rabbitmq")

Proxy = Callable[[Broker], FaultyProxy]

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "max priority": {"task_queue_max_priority": 10, "task_default_priority": 7},
    "routed": {"task_routes": {"execute_workload": {"priority": 6, "headers": {"more": "header"}}}},
    "transient": {"task_default_delivery_mode": "transient"},
    "compressed": {"task_compression": "zlib"},
    "pickled": {"task_serializer": "pickle"},
    "with events": {"task_send_sent_event": True},
    "limits": {"task_annotations": {"execute_workload": {"time_limit": 60, "expires": 3600}}},
    "quorum": {"task_default_queue_type": "quorum", "task_create_missing_queue_type": "quorum"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "CHECK_EVERY", 0.1)


@pytest.fixture
def channel(rabbitmq: Broker) -> Iterator[Any]:
    with Connection(rabbitmq.url()) as connection:
        yield connection.channel()


@pytest.fixture
def queue(channel) -> Iterator[str]:
    """The name of one that is deleted in the end."""
    name = new_queue()
    yield name
    channel.queue_delete(name)


def stored(channel: Any, queue: str) -> list[dict[str, Any]]:
    """Takes the messages out of a queue, the oldest first."""
    taken = iter(partial(channel.basic_get, queue, no_ack=True), None)
    return [
        {"headers": message.properties.pop("application_headers"), "body": message.body, **message.properties}
        for message in taken
    ]


def test_a_batch_arrives_in_order(channel, rabbitmq):
    queues = [new_queue() for _ in range(4)]
    batch = make(400, *queues)
    with publishing(make_app(rabbitmq.url())) as publisher:
        publisher.submit(batch)
        all_sent(publisher, batch)
    for number, queue in enumerate(queues):
        assert_decodable(stored(channel, queue), batch[number::4])
        channel.queue_delete(queue)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_celery_sends_the_same(settings, channel, queue, rabbitmq, caplog):
    """The same properties, headers and body, to a queue with the same arguments."""
    (outgoing,) = batch = make(1, queue)
    app = make_app(rabbitmq.url(), **settings)
    app.now = lambda: datetime(2030, 1, 1, tzinfo=UTC)
    with publishing(app) as publisher:
        publisher.submit(batch)
        all_sent(publisher, batch)
    by_celery(app, outgoing)  # RabbitMQ refuses it if the queue was declared otherwise
    messages: list[dict[str, Any]] = []
    wait_until(lambda: messages.extend(stored(channel, queue)) or len(messages) >= 2)  # it awaits no confirm
    ours, celerys = messages
    assert ours.pop("reply_to") != celerys.pop("reply_to")
    assert ours == celerys
    assert "other properties" not in caplog.text


def test_events_need_no_worker_to_have_declared_their_exchange(channel, queue, rabbitmq):
    """RabbitMQ closes the channel of who publishes to an exchange that is not there."""
    app = make_app(rabbitmq.url(), task_send_sent_event=True, event_exchange=f"events of {queue}")
    first, batch = make(1, queue), make(3, queue)
    with publishing(app) as publisher:
        publisher.submit(first)
        all_sent(publisher, first)
        heard: list[Any] = []
        events = Queue(
            f"heard of {queue}", Exchange(app.conf.event_exchange, type="topic"), "#", auto_delete=True
        )
        with Consumer(channel, [events], callbacks=[lambda body, _: heard.append(body)], no_ack=True):
            publisher.submit(batch)
            all_sent(publisher, batch)
            while len(heard) < 3:
                channel.connection.drain_events(timeout=30)
    assert [(event["type"], event["uuid"]) for event in heard] == [("task-sent", name) for name in ids(batch)]
    channel.exchange_delete(app.conf.event_exchange)


def test_a_revocation_reaches_the_workers(channel, queue, rabbitmq):
    """As ``celery.control.revoke`` sends it to their control exchange; what is sent after it is confirmed, too."""
    app = make_app(rabbitmq.url())
    with listening(app) as heard, publishing(app) as publisher:
        for name in ("a", "b"):
            publisher.revoke(name)
            wait_until(lambda name=name: name in revoked(heard))
            publisher.submit(batch := make(3, queue))
            all_sent(publisher, batch)
        first, second = heard()
    assert first["method"] == second["method"] == "revoke"
    assert first["arguments"] == {"task_id": ["a"], "terminate": False, "signal": "SIGTERM"}


class TestQueues:
    def test_one_that_exists_with_other_arguments_is_used_as_it_is(self, channel, queue, rabbitmq, caplog):
        """Whoever has made it knows better."""
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-max-priority": 5})
        free = new_queue()
        batch, more = make(20, free, queue), make(4, queue, free)
        with publishing(make_app(rabbitmq.url())) as publisher:
            for part in (batch, more):
                publisher.submit(part)
                all_sent(publisher, part)
            assert publisher.problem is None
        assert ids_of(stored(channel, queue)) == ids(batch[1::2] + more[::2])
        assert ids_of(stored(channel, free)) == ids(batch[::2] + more[1::2])
        assert caplog.text.count("exists with other properties") == 1
        channel.queue_delete(free)

    def test_one_that_is_refused_leaves_no_channel_behind(self, channel, rabbitmq):
        """RabbitMQ closes the channel at each; a connection has 2,047 of them."""
        queues = [new_queue() for _ in range(3)]
        for name in queues:
            channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-max-length": 100})
        broker = broker_for(make_app(rabbitmq.url()), 30.0)
        broker.connect()
        before = set(broker._connection.connection.channels)
        assert broker.send(batch := make(30, *queues), "receipt") == []
        assert set(broker._connection.connection.channels) == before
        broker.close()
        for number, name in enumerate(queues):
            assert ids_of(stored(channel, name)) == ids(batch[number::3])
            channel.queue_delete(name)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("amq.theirs", "AccessRefused"), ("", "ResourceLocked"), ("x" * 256, "error: ubyte format")],
        ids=["reserved", "locked", "too long"],
    )
    def test_one_that_cannot_be_used_fails_its_own_tasks(self, name, reason, channel, queue, rabbitmq):
        """Anybody who writes a Dag can name any queue: nothing else waits because of it."""
        theirs = name or channel.queue_declare(f"theirs {queue}", exclusive=True).queue
        batch = make(20, queue, theirs)
        with publishing(make_app(rabbitmq.url())) as publisher:
            publisher.submit(batch)
            reports = results(publisher, batch)
            assert publisher.problem is None
        assert [publisher.outgoing(each) for each in reports if isinstance(each, Sent)] == batch[::2]
        failed = {publisher.outgoing(each): each.reason for each in reports if isinstance(each, Rejected)}
        assert set(failed) == {*batch[1::2]}
        assert all(given.startswith(reason) for given in failed.values())
        assert ids_of(stored(channel, queue)) == ids(batch[::2])


@pytest.mark.parametrize("option", [None, True, "true", False, "false", "0"])
def test_confirms_are_awaited_unless_switched_off(option, channel, queue, rabbitmq, proxy_to: Proxy, caplog):
    """A message that is not confirmed may not have arrived; without confirms nobody will know."""
    options = {} if option is None else {"confirm_publish": option}
    proxy = proxy_to(rabbitmq)
    app = make_app(proxy.url(rabbitmq.url()), broker_transport_options=options)
    first, batch = make(1, queue), make(3, queue)
    with publishing(app, timeout=0.5) as publisher:
        publisher.submit(first)
        all_sent(publisher, first)
        proxy.mode = "hang"
        publisher.submit(batch)
        all_sent(publisher, batch)
        if str(option).lower() in ("false", "0"):
            assert publisher.problem is None
        else:
            wait_until(lambda: publisher.problem)
        proxy.mode = "forward"
        if str(option).lower() not in ("false", "0"):
            wait_until(lambda: "may not have got 3 messages" in caplog.text)
        wait_until(lambda: publisher.problem is None)
    arrived: list[dict[str, Any]] = []
    wait_until(lambda: arrived.extend(stored(channel, queue)) or len(arrived) >= 4)
    assert ids_of(arrived) == ids(first + batch)


class TestOutages:
    def test_a_connection_that_breaks_in_a_batch_repeats_nothing(self, channel, rabbitmq, proxy_to: Proxy):
        """A message that was written to it counts as sent; all others are sent after it."""
        queues = [new_queue() for _ in range(3)]
        first, batch = make(3, *queues), make(300, *queues)
        proxy = proxy_to(rabbitmq)
        with publishing(make_app(proxy.url(rabbitmq.url()))) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            proxy.cut_after(100_000, "up")
            publisher.submit(batch)
            all_sent(publisher, batch)
            wait_until(lambda: publisher.problem is None)
            assert proxy.cuts == 1
        arrived = [ids_of(stored(channel, queue)) for queue in queues]
        for number, queue in enumerate(queues):
            sent = ids([first[number], *batch[number::3]])
            assert arrived[number] == [name for name in sent if name in arrived[number]]
            channel.queue_delete(queue)
        unsure = 300 + 3 - sum(map(len, arrived))
        assert 0 < unsure < 290

    def test_what_is_submitted_after_an_idle_connection_broke_is_not_lost(
        self, channel, queue, rabbitmq, proxy_to: Proxy, caplog, monkeypatch
    ):
        """As when RabbitMQ was started again: it is not written to the dead connection."""
        monkeypatch.setattr(_outbox, "CHECK_EVERY", 3600.0)
        first, batch = make(1, queue), make(50, queue)
        proxy = proxy_to(rabbitmq)
        with publishing(make_app(proxy.url(rabbitmq.url()))) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            proxy.mode = "reset"
            proxy.mode = "forward"
            publisher.submit(batch)
            all_sent(publisher, batch)
            wait_until(lambda: publisher.problem is None)
        assert ids_of(stored(channel, queue)) == ids(first + batch)
        assert "may not have got" not in caplog.text

    @pytest.mark.parametrize("mode", ["refuse", "reset", "hang"])
    def test_what_is_submitted_in_an_outage_arrives_after_it(
        self, mode, channel, queue, rabbitmq, proxy_to: Proxy
    ):
        """However it shows itself."""
        first, batch = make(1, queue), make(50, queue)
        proxy = proxy_to(rabbitmq)
        with publishing(make_app(proxy.url(rabbitmq.url())), timeout=0.5) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            proxy.mode = mode
            publisher.revoke("a")  # is refused, or finds out about the hanging
            wait_until(lambda: publisher.problem)
            publisher.submit(batch)
            proxy.mode = "forward"
            all_sent(publisher, batch)
            wait_until(lambda: publisher.problem is None)
        assert ids_of(stored(channel, queue)) == ids(first + batch)

    def test_what_was_refused_before_it_broke_is_sent_again(self, channel, queue, rabbitmq, monkeypatch):
        """Of what was neither confirmed nor refused, nobody knows."""
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
        broker = broker_for(make_app(rabbitmq.url()), 30.0)
        broker.connect()
        batch = make(5, queue)
        publish = broker._publish

        def break_at_the_fourth(outgoing: Outgoing, publications: Any) -> None:
            if outgoing is batch[3]:
                while broker._unconfirmed:
                    broker._connection.drain_events(timeout=30)
                raise ConnectionResetError
            publish(outgoing, publications)

        monkeypatch.setattr(broker, "_publish", break_at_the_fourth)
        with pytest.raises(SendFailed) as failed:
            broker.send(batch, "receipt")
        broker.close()
        assert failed.value.unsent == [batch[4]]
        assert [refusal.outgoing for refusal in failed.value.refusals] == batch[1:3]
        assert failed.value.unknown == [batch[3]]
        assert ids_of(stored(channel, queue)) == ids(batch[:1])

    def test_a_wrong_password_is_a_problem_without_it(self, rabbitmq, caplog):
        caplog.set_level(logging.DEBUG)
        address = urlsplit(rabbitmq.url())
        url = urlunsplit(address._replace(netloc=f"guest:a-secret@{address.hostname}:{address.port or 5672}"))
        with publishing(make_app(url)) as publisher:
            publisher.submit(make(1, "q"))
            problem = wait_until(lambda: publisher.problem)
            assert publisher.unsent == 1
        assert "ACCESS_REFUSED" in problem
        assert "amqp://***@" in problem
        assert "a-secret" not in problem + caplog.text

    def test_no_call_waits_for_the_end(self, rabbitmq, proxy_to: Proxy):
        """Each fails at once; when to try again is the outbox's affair."""
        proxy = proxy_to(rabbitmq)
        broker = broker_for(make_app(proxy.url(rabbitmq.url())), 2.0)
        broker.connect()
        broker.revoke(["a"])
        proxy.mode = "refuse"
        raised: list[Exception] = []

        def attempt() -> None:
            for call in (partial(broker.revoke, ["b"]), broker.check, broker.connect):
                try:
                    call()
                except Exception as error:
                    raised.append(error)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(30)
        assert len(raised) == 3
        broker.close()

    def test_a_paused_server_blocks_nothing(self, own_rabbitmq: RabbitServer):
        """And goes on where it was, with nothing sent twice; so does one that was killed."""
        queue = new_queue()
        first, batch, more = make(1, queue), make(50, queue), make(50, queue)
        with publishing(make_app(own_rabbitmq.url()), timeout=0.5) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            own_rabbitmq.pause()
            publisher.submit(batch)
            wait_until(lambda: publisher.problem)
            publisher.submit(more)
            publisher.revoke("a")
            assert not publisher.withdraw("unknown")
            assert publisher.unsent >= 50
            own_rabbitmq.resume()
            all_sent(publisher, batch + more)
            wait_until(lambda: publisher.problem is None)
            own_rabbitmq.kill()
            wait_until(lambda: publisher.problem)
            publisher.submit(last := make(3, queue))
            own_rabbitmq.restart()
            all_sent(publisher, last)
        with Connection(own_rabbitmq.url()) as connection:
            arrived = ids_of(stored(connection.channel(), queue))
        assert len(set(arrived)) == len(arrived)
        assert arrived[-53:] == ids(more + last)
        assert set(arrived) <= {*ids(first + batch + more + last)}
