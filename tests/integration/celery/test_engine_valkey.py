# SPDX-License-Identifier: Apache-2.0
"""The engine with a real Valkey as broker and as result backend, also while either is gone, mute or empty."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from support import wait_until

from airflow_dispatch_provider.engines.celery._outbox import LOST
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Broken,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.valkey import ValkeyServer

from .engines import Hand, running
from .publishing import make_app, new_queue

pytestmark = pytest.mark.integration("redis")

Proxy = Callable[[Any], FaultyProxy]


def app_of(broker: str, results: str) -> Any:
    app = make_app(broker)
    app.conf.result_backend = results
    return app


def ids_in(server: ValkeyServer, queue: str) -> list[str]:
    """The oldest first."""
    with redis.Redis.from_url(server.url()) as client:
        return [json.loads(text)["headers"]["id"] for text in reversed(client.lrange(queue, 0, -1))]


@pytest.fixture
def hand(own_valkey: ValkeyServer) -> Iterator[Hand]:
    with running(app_of(own_valkey.url(), own_valkey.url(1)), timeout=1.0) as hand:
        yield hand


def test_what_was_submitted_is_sent_in_order(hand, own_valkey):
    queue = new_queue()
    sent = hand.sends(200, queue)
    assert ids_in(own_valkey, queue) == sent
    assert len(set(sent)) == 200


class TestBroker:
    def test_one_that_was_killed_gives_back_what_waits_and_sends_nothing_twice(self, hand, own_valkey):
        queue = new_queue()
        before = hand.sends(20, queue)
        own_valkey.kill()
        during = hand.submit(20, queue)
        hand.hears(Broken)
        wait_until(lambda: hand.room().unavailable)
        returned = {event.dispatch for event in hand.hears(Returned, during)}
        assert returned == set(during)
        own_valkey.restart()
        hand.hears(Recovered)
        assert hand.room().unavailable is None
        after = hand.sends(5, queue)
        assert ids_in(own_valkey, queue) == [*before, *after]

    def test_one_that_hangs_is_unusable_meanwhile_and_gets_nothing_twice(self, hand, own_valkey):
        """Messages that were written to it count as sent, unless it turns out that they are not there."""
        queue = new_queue()
        hand.sends(1, queue)
        own_valkey.pause()
        during = hand.submit(20, queue)
        wait_until(lambda: hand.room().unavailable)
        own_valkey.resume()
        hand.hears(Recovered)
        hand.sends(3, queue)
        arrived = ids_in(own_valkey, queue)
        assert len(arrived) == len(set(arrived))
        for number in during:
            kinds = {type(event) for event in hand.said_of(number)}
            assert kinds in ({Sent}, {Returned}, {Sent, Ended}), kinds

    def test_one_that_comes_back_empty_has_lost_what_no_worker_had(self, hand, own_valkey):
        """The database is asked before anybody sends it again."""
        numbers = hand.submit(20, new_queue())
        sent = {event.dispatch: event.info for event in hand.hears(Sent, numbers)}
        store(own_valkey, sent[numbers[0]], "STARTED")
        wait_until(lambda: taken(hand, numbers[0]))
        own_valkey.restart(empty=True)
        ended = hand.hears(Ended, numbers[1:])
        assert {event._replace(dispatch=0) for event in ended} == {
            Ended(0, Outcome.FAILED, reason=LOST, mishap=True)
        }
        assert not [event for event in hand.said_of(numbers[0]) if isinstance(event, Ended)]

    @pytest.mark.parametrize("mode", ["refuse", "reset"])
    def test_one_that_cannot_be_reached_is_told_once_a_try(self, mode, own_valkey, proxy_to: Proxy):
        proxy = proxy_to(own_valkey)
        proxy.mode = mode
        with running(app_of(proxy.url(own_valkey.url()), own_valkey.url(1)), timeout=0.5) as hand:
            (broken,) = hand.hears(Broken)[:1]
            assert broken.backend == "x"
            proxy.mode = "forward"
            hand.hears(Recovered)
            hand.sends(1, new_queue())

    def test_names_that_it_uses_itself_and_keys_of_others_harm_nobody(self, hand, own_valkey):
        """Anybody who writes a Dag can name any queue."""
        with redis.Redis.from_url(own_valkey.url()) as client:
            client.set("a text", "theirs")
        bad = ["_airflow_dispatch.since", "_kombu.binding.q", "unacked", "unacked_index", "a text"]
        rejected = [number for name in bad for number in hand.submit(1, name)]
        hand.sends(10, new_queue())
        assert {event.dispatch for event in hand.hears(Rejected, rejected)} == set(rejected)
        assert set(hand.room().closed) == set(bad)
        assert hand.room().unavailable is None
        with redis.Redis.from_url(own_valkey.url()) as client:
            assert client.type("unacked") == b"none"

    def test_one_that_is_full_gives_back_what_it_refuses(self, hand, own_valkey):
        """No memory left: that is nobody's own trouble."""
        queue = new_queue()
        hand.sends(1, queue)
        with redis.Redis.from_url(own_valkey.url()) as client:
            client.config_set("maxmemory", "1")
            numbers = hand.submit(10, queue)
            hand.hears(Broken)
            assert {event.dispatch for event in hand.hears(Returned, numbers)} == set(numbers)
            client.config_set("maxmemory", "0")
        hand.hears(Recovered)
        hand.sends(10, queue)
        assert len(ids_in(own_valkey, queue)) == 11


def taken(hand: Hand, number: int) -> bool:
    """Whether the engine has learnt that a worker has it."""
    hand.room()
    flight = hand.engine._flights.of(number)
    return flight is not None and flight.taken


def store(server: ValkeyServer, celery_id: str, state: str, result: Any = None) -> None:
    app = app_of(server.url(), server.url(1))
    app.backend.store_result(celery_id, result, state)


class TestResults:
    @pytest.mark.parametrize(
        ("state", "how"),
        [("SUCCESS", Outcome.SUCCESS), ("FAILURE", Outcome.FAILED), ("REVOKED", Outcome.FAILED)],
    )
    def test_an_end_that_a_worker_reports(self, state, how, hand, own_valkey):
        (number,) = hand.submit(1, new_queue())
        celery_id = hand.hears(Sent)[0].info
        store(own_valkey, celery_id, "STARTED")
        store(own_valkey, celery_id, state, OSError("why") if how is Outcome.FAILED else None)
        (ended,) = hand.hears(Ended, [number])
        assert (ended.how, ended.began) == (how, True if how is Outcome.SUCCESS else None)
        assert ("OSError: why" in ended.reason) == (how is Outcome.FAILED)

    def test_a_backend_that_is_away_holds_up_nothing_and_tells_later(self, valkey, own_valkey):
        with running(app_of(valkey.url(), own_valkey.url(1)), timeout=1.0) as hand:
            numbers = hand.submit(2, new_queue())
            first, second = (event.info for event in hand.hears(Sent, numbers))
            own_valkey.kill()
            wait_until(lambda: "result backend" in repr(hand.engine))
            hand.sends(5, new_queue())
            assert hand.room().unavailable is None
            hand.engine.revoke(numbers[1], over=True)
            own_valkey.restart()
            for celery_id in (first, second):
                store(own_valkey, celery_id, "SUCCESS")
            hand.hears(Ended, numbers[:1])
            assert hand.said_of(numbers[1]) == [Sent(numbers[1], second)]


class TestAdoption:
    def test_by_what_the_result_backend_knows(self, hand, own_valkey):
        store(own_valkey, "begun", "STARTED")
        store(own_valkey, "done", "SUCCESS")
        adopted, unknown = hand.adopt("begun"), [hand.adopt("done"), hand.adopt("never heard of", runs=False)]
        hand.hears(Adopted, [adopted])
        hand.hears(Unknown, unknown)
        store(own_valkey, "begun", "SUCCESS")
        assert hand.hears(Ended, [adopted]) == [Ended(adopted, Outcome.SUCCESS, True)]

    def test_it_is_answered_when_the_backend_can_be_asked(self, valkey, own_valkey):
        """Not before: that it does not answer says nothing."""
        store(own_valkey, "begun", "STARTED")
        with running(app_of(valkey.url(), own_valkey.url(1)), timeout=1.0) as hand:
            own_valkey.pause()
            begun, unknown = hand.adopt("begun"), hand.adopt("never heard of")
            wait_until(lambda: hand.sends(1, new_queue()))
            assert hand.said_of(begun) + hand.said_of(unknown) == []
            own_valkey.resume()
            hand.hears(Adopted, [begun])
            hand.hears(Unknown, [unknown])


def test_a_user_who_may_not_write_to_every_key_can_use_the_others(own_valkey):
    """The whole transaction is refused because of one key."""
    with redis.Redis.from_url(own_valkey.url()) as client:
        client.acl_setuser(
            "limited",
            enabled=True,
            passwords=["+pw"],
            keys=["good*", "_*", "unacked*"],
            channels=["*"],
            categories=["+@all"],
        )
    url = own_valkey.url().replace("redis://", "redis://limited:pw@")
    with running(app_of(url, own_valkey.url(1)), timeout=1.0) as hand:
        hand.sends(1, "good one")
        (bad,) = hand.submit(1, "theirs")
        hand.sends(20, "good two")
        (rejected,) = hand.hears(Rejected, [bad])
        assert "permissions" in rejected.reason
        assert hand.room().unavailable is None
    assert len(ids_in(own_valkey, "good two")) == 20
