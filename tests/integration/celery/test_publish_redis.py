# SPDX-License-Identifier: Apache-2.0
"""Publishing to a real Valkey, also while it is away, mute, full, or does not let us."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import kombu.pools
import pytest
import redis
from kombu import Exchange, Queue
from support import wait_until

from airflow_dispatch_provider.engines.celery import _outbox
from airflow_dispatch_provider.engines.celery._outgoing import SendFailed
from airflow_dispatch_provider.engines.celery.brokers import broker_for
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.valkey import ValkeyServer

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
    revoked,
)
from .redis_contents import (
    assert_only_every_second_is_sent,
    calls_of,
    connect,
    everything,
    replies_before_exec,
    stored,
)

pytestmark = pytest.mark.integration("redis")

Proxy = Callable[[ValkeyServer], FaultyProxy]

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prefix": {"broker_transport_options": {"global_keyprefix": "pre:"}},
    "priority": {"broker_transport_options": {"priority_steps": [0, 4, 8]}, "task_default_priority": 5},
    "max priority": {"task_queue_max_priority": 10, "task_default_priority": 9},
    "separator": {"broker_transport_options": {"sep": "|"}, "task_default_priority": 3},
    "no base64": {"broker_transport_options": {"body_encoding": None}},
    "expiring": {"task_queues": [Queue("q", Exchange("q"), "q", expires=3600)]},
    "topic": {"task_queues": [Queue("q", Exchange("x", type="topic"), "a.b")]},
    "compressed": {"task_compression": "zlib"},
    "routed": {"task_routes": {"execute_workload": {"priority": 6}}},
    "with events": {"task_send_sent_event": True},
    "all at once": {
        "broker_transport_options": {"global_keyprefix": "pre:", "priority_steps": [0, 4, 8]},
        "task_queues": [Queue("q", Exchange("q"), "q", expires=3600, max_priority=9)],
        "task_annotations": {"execute_workload": {"priority": 4, "time_limit": 60}},
        "task_send_sent_event": True,
    },
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "CHECK_EVERY", 0.1)


@pytest.fixture
def client(valkey: ValkeyServer) -> redis.Redis:
    client = redis.Redis.from_url(valkey.url())
    client.flushall()
    return client


def test_a_batch_arrives_in_order(client, valkey):
    """In one transaction, beside its receipt."""
    queues = [new_queue() for _ in range(5)]
    first, batch = make(5, *queues), make(400, *queues)
    with publishing(make_app(valkey.url())) as publisher:
        publisher.submit(first)
        all_sent(publisher, first)
        transactions = calls_of(client, "exec")
        publisher.submit(batch)
        all_sent(publisher, batch)
        assert calls_of(client, "exec") == transactions + 1
    for number, queue in enumerate(queues):
        assert_decodable(stored(client, queue), [first[number], *batch[number::5]])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_kombu_stores_the_same(settings, client, valkey):
    """The same messages in the same lists, the same bindings and expiries."""
    app, batch = make_app(valkey.url(), **settings), make(3, "q", "other")
    for outgoing in batch:
        by_celery(app, outgoing)
    expected = everything(client)
    client.flushall()
    kombu.pools.reset()  # which remembers what it has declared
    with publishing(make_app(valkey.url(), **settings)) as publisher:
        publisher.submit(batch)
        all_sent(publisher, batch)
    assert everything(client) == expected
    prefix = settings.get("broker_transport_options", {}).get("global_keyprefix", "")
    assert {key.decode().partition("_")[0] for key in client.scan_iter("*_airflow_dispatch.*")} == {prefix}


def test_events_reach_who_listens(client, valkey):
    """``task-sent`` events, one for each message."""
    batch = make(3, new_queue())
    with (
        client.pubsub() as events,
        publishing(make_app(valkey.url(), task_send_sent_event=True)) as publisher,
    ):
        events.psubscribe("*celeryev*")
        wait_until(lambda: (events.get_message(timeout=1) or {}).get("type") == "psubscribe")
        publisher.submit(batch)
        all_sent(publisher, batch)
        heard = [wait_until(lambda: events.get_message(timeout=1)) for _ in batch]
    bodies = [json.loads(base64.b64decode(json.loads(message["data"])["body"])) for message in heard]
    assert [(body["type"], body["uuid"]) for body in bodies] == [("task-sent", name) for name in ids(batch)]


def test_a_revocation_reaches_the_workers(client, valkey):
    """As ``celery.control.revoke`` sends it to their control exchange."""
    app = make_app(valkey.url())
    with listening(app) as heard, publishing(app) as publisher:
        for name in ("a", "b"):
            publisher.revoke(name)
            wait_until(lambda name=name: name in revoked(heard))
        first, second = heard()
    assert first["method"] == second["method"] == "revoke"
    assert first["arguments"] == {"task_id": ["a"], "terminate": False, "signal": "SIGTERM"}


class TestOutages:
    @pytest.mark.parametrize("lost", ["reply", "request"])
    def test_a_broken_connection_repeats_nothing(
        self, lost, client, valkey, proxy_to: Proxy, caplog, monkeypatch
    ):
        """A message that arrived is known by its receipt; one that did not is sent again, once and in order."""
        monkeypatch.setattr(_outbox, "CHECK_EVERY", 3600.0)
        queues = [new_queue() for _ in range(3)]
        first, batch = make(3, *queues), make(300, *queues)
        proxy = proxy_to(valkey)
        with publishing(make_app(proxy.url(valkey.url()))) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            if lost == "reply":
                proxy.cut_after(replies_before_exec(len(queues) + 1) + 1, "down")
            else:
                proxy.cut_after(100_000, "up")
            publisher.submit(batch)
            all_sent(publisher, batch)
            wait_until(lambda: publisher.problem is None)
            assert proxy.cuts == 1
            if lost == "request":
                all_sent(publisher, batch)  # once more, for it counted as sent
        for number, queue in enumerate(queues):
            assert_decodable(stored(client, queue), [first[number], *batch[number::3]])
        assert ("does not have" in caplog.text) is (lost == "request")
        assert publisher.said == []

    @pytest.mark.parametrize("mode", ["refuse", "reset", "hang"])
    def test_what_is_submitted_in_an_outage_arrives_after_it(self, mode, client, valkey, proxy_to: Proxy):
        """However it shows itself."""
        queue = new_queue()
        first, batch = make(1, queue), make(50, queue)
        proxy = proxy_to(valkey)
        with publishing(make_app(proxy.url(valkey.url())), timeout=0.3) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            proxy.mode = mode
            publisher.submit(batch)
            wait_until(lambda: publisher.problem)
            publisher.revoke("a")
            proxy.mode = "forward"
            all_sent(publisher, batch)
            wait_until(lambda: publisher.problem is None)
        assert ids_of(stored(client, queue)) == ids(first + batch)

    def test_a_server_that_is_paused_gets_everything_once(self, own_valkey: ValkeyServer):
        """It finds in its buffers what was sent to it before, and then again."""
        queue = new_queue()
        first, batch = make(1, queue), make(50, queue)
        app = make_app(own_valkey.url(), broker_transport_options={"retry_on_timeout": True})
        with publishing(app, timeout=0.3) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            own_valkey.pause()
            publisher.submit(batch)
            wait_until(lambda: publisher.problem)
            own_valkey.resume()
            all_sent(publisher, batch)
        assert ids_of(stored(connect(own_valkey), queue)) == ids(first + batch)

    @pytest.mark.parametrize("when", ["away for long", "idle", "busy"])
    def test_what_the_server_lost_is_sent_again(self, when, own_valkey: ValkeyServer, caplog, monkeypatch):
        """But for what workers have; also when it was away for too short a time to be missed."""
        queue = new_queue()
        batch, more = make(30, queue), make(1, queue)
        monkeypatch.setattr(_outbox, "CHECK_EVERY", 0.1 if when == "away for long" else 3600.0)
        with publishing(make_app(own_valkey.url())) as publisher:
            for part in (batch[:20], batch[20:]):
                publisher.submit(part)
                all_sent(publisher, part)
            for outgoing in batch[5:25]:
                publisher.settled(outgoing.celery_id)
            if when == "away for long":
                own_valkey.kill()
                wait_until(lambda: publisher.problem)
            own_valkey.restart(empty=True)
            lost = batch[:5] + batch[25:]
            if when == "busy":
                publisher.submit(more)
                all_sent(publisher, more)
            if when != "away for long":
                publisher.look()
            all_sent(publisher, lost)
        assert_decodable(stored(connect(own_valkey), queue), more[: when == "busy"] + lost)
        assert "does not have 10 messages" in caplog.text

    def test_a_server_that_has_forgotten_its_queues(self, own_valkey: ValkeyServer, monkeypatch):
        """Not noticed yet, where each message is made by kombu, which drops what no queue is bound for: as here, where
        the queue has an exchange of its own."""
        monkeypatch.setattr(_outbox, "CHECK_EVERY", 3600.0)
        queue = new_queue()
        first, later = make(3, queue), make(4, queue)
        queues = [Queue(queue, Exchange("x", type="topic"), "a.b")]
        app = make_app(own_valkey.url(), task_send_sent_event=True, task_queues=queues)
        with publishing(app) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            own_valkey.restart(empty=True)
            publisher.submit(later)
            all_sent(publisher, [*first, *later])
        assert sorted(ids_of(stored(connect(own_valkey), queue))) == sorted(ids([*first, *later]))

    def test_a_full_server_costs_time_only(self, own_valkey: ValkeyServer):
        """One outage, however often it is tried."""
        queue = new_queue()
        first, batch = make(3, queue), make(50, queue)
        client = connect(own_valkey)
        with publishing(make_app(own_valkey.url())) as publisher:
            publisher.submit(first)
            all_sent(publisher, first)
            for outgoing in first:
                publisher.settled(outgoing.celery_id)
            client.config_set("maxmemory", 1)
            publisher.submit(batch)
            wait_until(lambda: "maxmemory" in (publisher.problem or ""))
            attempts = calls_of(client, "ping")
            wait_until(lambda: calls_of(client, "ping") > attempts + 5)
            assert (publisher.unsent, publisher.drain()) == (50, [])
            assert publisher.problem
            client.config_set("maxmemory", 0)
            all_sent(publisher, batch)
            wait_until(lambda: publisher.problem is None)
        assert ids_of(stored(client, queue)) == ids(first + batch)
        assert publisher.said == ["Broken", "Recovered"]

    def test_a_replica_is_no_broker(self, own_valkey: ValkeyServer):
        """After a failover the old master may only be read from: known before anything is sent to it."""
        queue = new_queue()
        batch = make(10, queue)
        client = connect(own_valkey)
        with publishing(make_app(own_valkey.url())) as publisher:
            wait_until(lambda: publisher.unsent == 0 and calls_of(client, "set"))
            client.replicaof("127.0.0.1", 1)
            wait_until(lambda: "read only replica" in (publisher.problem or ""))
            publisher.submit(batch)
            client.replicaof("NO", "ONE")
            all_sent(publisher, batch)
        assert ids_of(stored(client, queue)) == ids(batch)
        assert publisher.said == ["Broken", "Recovered"]

    def test_a_wrong_password_is_a_problem_without_it(self, caplog):
        caplog.set_level(logging.DEBUG)
        with ValkeyServer(password="the right one") as server:
            url = server.url().replace("the%20right", "the%20secret")
            with publishing(make_app(url)) as publisher:
                publisher.submit(make(1, "q"))
                problem = wait_until(lambda: publisher.problem)
                assert publisher.unsent == 1
        assert "invalid username-password pair" in problem
        assert f"redis://***@127.0.0.1:{server.port}/0" in problem
        assert "secret" not in problem + caplog.text

    def test_a_connection_that_breaks_while_a_message_is_made_fails_no_task(
        self, client, valkey, proxy_to: Proxy
    ):
        """Kombu asks the server where messages for a topic exchange go."""
        queues = [Queue("q", Exchange("x", type="topic"), "a.b")]
        proxy = proxy_to(valkey)
        app = make_app(proxy.url(valkey.url()), task_queues=queues, task_send_sent_event=True)
        broker = broker_for(app, 2.0)
        first, batch = make(1, "q"), make(3, "q")
        broker.connect()
        assert broker.send(first, "first") == []
        proxy.mode = "refuse"
        with pytest.raises(SendFailed) as failed:
            broker.send(batch, "second")
        assert (failed.value.unsent, failed.value.unknown, failed.value.refusals) == (batch, [], [])
        proxy.mode = "forward"
        broker.connect()
        assert broker.send(batch, "second") == []
        broker.close()
        assert ids_of(stored(client, "q")) == ids(first + batch)

    def test_no_call_waits_for_the_end(self, valkey, proxy_to: Proxy):
        """Each fails at once; when to try again is the outbox's affair."""
        proxy = proxy_to(valkey)
        broker = broker_for(make_app(proxy.url(valkey.url())), 2.0)
        broker.connect()
        broker.revoke(["a"])
        proxy.mode = "refuse"
        raised: list[Exception] = []

        def attempt() -> None:
            for call in (
                partial(broker.revoke, ["b"]),
                broker.check,
                partial(broker.missing, "x"),
                broker.connect,
            ):
                try:
                    call()
                except Exception as error:
                    raised.append(error)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(30)
        assert len(raised) == 4
        broker.close()


class TestRights:
    @pytest.fixture
    def user(self, client, valkey):
        """Makes a user with these rights; gives the URL for it."""

        def make_user(*rules: str) -> str:
            rights = ("reset", "on", ">pw", "~*", "&*", "+@all", *rules)
            client.execute_command("ACL", "SETUSER", "limited", *rights)
            return valkey.url().replace("redis://", "redis://limited:pw@")

        yield make_user
        client.execute_command("ACL", "DELUSER", "limited")

    def test_a_receipt_outlives_the_wait_for_a_worker(self, client, valkey):
        """Or a task that waits for long would be sent once more after a broken connection."""
        broker = broker_for(make_app(valkey.url()), 5.0, queued_timeout=5000.0)
        broker.connect()
        broker.send(make(1, new_queue()), "of-the-batch")
        (key,) = client.scan_iter("*receipt.of-the-batch")
        assert client.ttl(key) > 5000
        broker.close()

    @pytest.mark.parametrize(
        "rules", [["-set"], ["resetkeys", "~dispatch-test*", "~_kombu*"]], ids=["SET", "key"]
    )
    def test_without_receipts(self, rules, client, valkey, user, proxy_to: Proxy, caplog):
        """Messages that may have arrived then count as sent, from the first one on."""
        caplog.set_level(logging.INFO)
        queue = new_queue()
        batches = [make(3, queue) for _ in range(3)]
        proxy = proxy_to(valkey)
        with publishing(make_app(proxy.url(user(*rules)))) as publisher:
            for number, batch in enumerate(batches):
                if number:
                    proxy.cut_after(replies_before_exec(1) + 1, "down")
                publisher.submit(batch)
                all_sent(publisher, batch)
                wait_until(lambda: publisher.problem is None)
        assert ids_of(stored(client, queue)) == [name for batch in batches for name in ids(batch)]
        assert caplog.text.count("may not write receipts") == 1

    def test_without_the_right_to_tell_workers(self, client, user):
        """A revocation that is refused holds up nothing."""
        queue = new_queue()
        batch, more = make(3, queue), make(3, queue)
        with publishing(make_app(user("resetchannels"))) as publisher:
            for part in (batch, more):
                publisher.revoke("a")
                publisher.submit(part)
                all_sent(publisher, part)
            wait_until(lambda: not publisher.to_tell)
            assert publisher.problem is None
        assert ids_of(stored(client, queue)) == ids(batch + more)

    def test_without_the_right_to_a_queue(self, client, user):
        """Only its own tasks fail: anybody who writes a Dag can name any queue."""
        batch = make(4, "theirs", new_queue())
        with publishing(make_app(user("resetkeys", "~dispatch-test*", "~_kombu*"))) as publisher:
            publisher.submit(batch)
            assert_only_every_second_is_sent(publisher, batch, "permissions")


class TestRejected:
    @pytest.mark.parametrize("used_before", [True, False])
    def test_a_key_that_is_no_queue(self, used_before, client, valkey):
        """Such as a task's queue by the name of kombu's own ``unacked``: only such tasks fail."""
        taken, free = new_queue(), new_queue()
        batch = make(20, taken, free)
        with publishing(make_app(valkey.url())) as publisher:
            if used_before:
                publisher.submit(earlier := make(1, taken))
                all_sent(publisher, earlier)
                client.delete(taken)
            client.hset(taken, "a", "hash")
            publisher.submit(batch)
            assert_only_every_second_is_sent(publisher, batch, "WRONGTYPE")
        assert ids_of(stored(client, free)) == ids(batch[1::2])

    def test_a_queue_that_the_settings_do_not_allow(self, client, valkey):
        app = make_app(valkey.url(), task_queues=[Queue("default")], task_create_missing_queues=False)
        batch = make(4, "unknown", "default")
        with publishing(app) as publisher:
            publisher.submit(batch)
            assert_only_every_second_is_sent(publisher, batch, "'unknown' missing from task_queues")
        assert ids_of(stored(client, "default")) == ids(batch[1::2])
