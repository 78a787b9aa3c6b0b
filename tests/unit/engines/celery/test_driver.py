# SPDX-License-Identifier: Apache-2.0
"""The thread that does the steps of an outbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import wait_until

from airflow_dispatch_provider.engines.celery._driver import Driver
from airflow_dispatch_provider.engines.celery._outbox import Outbox
from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, SendFailed
from airflow_dispatch_provider.engines.celery._receipts import Receipts
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.lifecycle.events import Broken, Ended, Recovered, Returned, Sent

from .fakes import DOWN, FakeBroker, in_background, outcome


class Hand:
    """Submits, and collects what is said."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.heard: list[Any] = []

    def submit(self, *numbers: int) -> list[Outgoing]:
        batch = [Outgoing(f"id {number}", number, None, "q") for number in numbers]
        with self._driver.outbox(wake=True) as outbox:
            outbox.submit(batch)
        return batch

    def tell(self, celery_id: str) -> None:
        with self._driver.outbox(wake=True) as outbox:
            outbox.tell(celery_id)

    def hears(self, kind: type[Any], count: int = 1) -> list[Any]:
        """Waits until so many of this kind were said, in all."""

        def found() -> list[Any] | None:
            with self._driver.outbox() as outbox:
                self.heard += outbox.take_events()
            events = [event for event in self.heard if isinstance(event, kind)]
            return events if len(events) >= count else None

        return wait_until(found)


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def driver(broker: FakeBroker) -> Iterator[Driver]:
    driver = Driver(
        Outbox("x", "redis://b/0", 1000, Receipts("token", 600.0), Backoff(0.001, 0.002)), broker, "x"
    )
    yield driver
    broker.errors.clear()
    broker.open_gates()
    driver.stop(time.monotonic() + 60)
    wait_until(lambda: not driver._thread.is_alive())


@pytest.fixture
def hand(driver: Driver) -> Hand:
    return Hand(driver)


def test_it_connects_probes_and_sends(driver, hand, broker):
    hand.submit(1, 2)
    driver.start()
    assert hand.hears(Sent, 2) == [Sent(1, "id 1"), Sent(2, "id 2")]
    assert broker.calls == ["connect", "probe", "send"]


def test_what_is_submitted_while_it_waits_is_sent_at_once(driver, hand, broker):
    """Not when the next look at the connection is due."""
    driver.start()
    wait_until(lambda: broker.count("probe"))
    hand.submit(1)
    hand.hears(Sent)
    hand.tell("id 1")
    wait_until(lambda: broker.revoked == ["id 1"])
    assert broker.count("check") == 0


@pytest.mark.parametrize("method", ["connect", "probe"])
def test_an_outage_is_told_and_so_is_its_end(method, driver, hand, broker):
    broker.errors[method] = DOWN
    hand.submit(1)
    driver.start()
    (returned,) = hand.hears(Returned)
    assert returned.dispatch == 1
    assert "ConnectionError: is down" in returned.reason
    hand.hears(Broken, 5)
    broker.errors.clear()
    hand.hears(Recovered)
    hand.submit(2)
    assert hand.hears(Sent) == [Sent(2, "id 2")]


def test_a_batch_that_is_lost_has_ended(driver, hand, broker, caplog):
    driver.start()
    hand.submit(1)
    hand.hears(Sent)
    broker.batches.clear()
    broker.breaks.add("revoke")
    hand.tell("nobody")
    assert [event.dispatch for event in hand.hears(Ended)] == [1]
    wait_until(lambda: "does not have 1 messages" in caplog.text)


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), AssertionError(), KeyboardInterrupt(), SystemExit(1)], ids=repr
)
@pytest.mark.parametrize("method", ["connect", "probe", "missing", "send", "revoke"])
def test_no_error_ends_the_thread(method, error, driver, hand, broker):
    driver.start()
    hand.submit(1)
    hand.hears(Sent)
    broker.errors[method] = error
    broker.breaks.add("revoke")
    before = broker.count(method)
    hand.tell("nobody")
    hand.submit(2)
    wait_until(lambda: broker.count(method) > before)
    broker.errors.clear()
    hand.submit(3)
    wait_until(lambda: "id 3" in broker.arrived or hand.submit(3))
    assert not driver.is_dead


@pytest.mark.parametrize("method", ["connect", "probe", "send", "revoke"])
def test_a_broker_that_hangs_blocks_nobody(method, driver, hand, broker):
    broker.close_gate(method)
    driver.start()
    hand.submit(1)
    hand.tell("nobody")
    wait_until(lambda: broker.count(method))

    def use() -> None:
        hand.submit(2)
        hand.tell("someone")
        with driver.outbox() as outbox:
            assert outbox.withdraw("id 2")
            assert outbox.takes() >= 999

    calls = in_background(use)
    calls.join(60)
    assert not calls.is_alive()


class TestStop:
    def test_what_is_left_is_sent_first(self, driver, hand, broker):
        broker.close_gate("send")
        driver.start()
        hand.submit(*range(1200))
        left: list[Any] = []
        stopping = in_background(lambda: left.append(driver.stop(time.monotonic() + 3600)))
        broker.open_gates()
        stopping.join(60)
        assert left == [[]]
        assert len(broker.arrived) == 1200
        assert broker.calls[-1] == "close"

    def test_a_broker_that_is_down_is_not_waited_for(self, driver, hand, broker):
        broker.close_gate("connect")
        broker.errors["connect"] = DOWN
        driver.start()
        hand.submit(1, 2)
        left: list[Any] = []
        stopping = in_background(lambda: left.append(driver.stop(time.monotonic() + 3600)))
        broker.open_gates()
        stopping.join(60)
        assert left == [[]]
        assert [event.dispatch for event in hand.hears(Returned, 2)] == [1, 2]

    def test_what_may_be_with_a_broker_that_hangs_is_not_given_back(self, driver, hand, broker):
        broker.close_gate("send")
        driver.start()
        hand.submit(1)
        wait_until(lambda: broker.count("send"))
        hand.submit(2)
        assert driver.stop(time.monotonic()) == [2]
        assert driver._thread.is_alive()

    def test_one_that_was_never_started_gives_all_back(self, driver, hand):
        hand.submit(1)
        assert driver.stop(time.monotonic()) == [1]


def test_a_dead_thread_is_noticed(driver, broker, monkeypatch):
    """Whatever has ended it: nothing more is to be given to it."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(driver._outbox, "next", lambda now: 1 / 0)
    assert not driver.is_dead
    driver.start()
    wait_until(lambda: driver.is_dead)


def test_partly_sent(driver, hand, broker):
    """Messages that are certainly not there are sent; those that may be there are not sent again."""
    broker.outcomes = [outcome(unknown=slice(1), unsent=slice(2, None))]
    broker.forgetful = True
    batch = hand.submit(1, 2, 3)
    driver.start()
    assert {event.dispatch for event in hand.hears(Sent, 3)} == {1, 2, 3}
    assert broker.arrived == ["id 2", "id 3"]
    assert isinstance(SendFailed(DOWN, unsent=batch), Exception)
