# SPDX-License-Identifier: Apache-2.0
"""The publisher's thread while its broker is down, hangs, or raises what it likes; and its end."""

from __future__ import annotations

import pytest
from support import wait_until

from airflow_dispatch_provider.engines.celery import publisher as module
from airflow_dispatch_provider.engines.celery.brokers import SendFailed
from airflow_dispatch_provider.engines.celery.message import Outgoing

from .publishing import (
    DOWN,
    ImpatientCondition,
    ids,
    in_background,
    make,
    numbered,
    outcome,
    provoke,
    reconnect,
    sent,
    started,
    use,
)


class TestProblem:
    def test_it_says_since_when_and_why(self, publisher, broker, clock):
        assert publisher.problem is None
        broker.errors["connect"] = DOWN
        publisher.start()
        wait_until(lambda: broker.count("connect") >= 3)
        clock[0] += 12
        text = "The broker redis://broker/0 cannot be used since 12 s: ConnectionError: is down"
        assert publisher.problem == text
        broker.errors.clear()
        wait_until(lambda: publisher.problem is None)

    @pytest.mark.parametrize("failing", ["connect", "missing", "send", "revoke", "check"])
    def test_an_outage_is_logged_once_and_so_is_its_end(self, failing, publisher, broker, news, monkeypatch):
        """It is over when what failed has succeeded."""
        monkeypatch.setattr(module, "CHECK_INTERVAL", 0.001 if failing == "check" else 3600)
        started(publisher, broker, *make("a"))
        batch = make("b")
        broker.errors[failing] = SendFailed(DOWN, unsent=batch)
        provoke(publisher, broker, failing, batch)
        attempts = broker.count(failing) + 20
        wait_until(lambda: broker.count(failing) >= attempts)
        assert publisher.problem
        assert news() == ["WARNING"]
        broker.errors.clear()
        wait_until(lambda: publisher.problem is None)
        assert news() == ["WARNING", "INFO"]

    def test_the_next_outage_is_news_again(self, publisher, broker, news):
        started(publisher, broker, *make("a"))
        for outages in (1, 2):
            reconnect(publisher, broker)
            wait_until(lambda: publisher.problem is None)
            assert news() == ["WARNING", "INFO"] * outages

    @pytest.mark.parametrize("hanging", ["connect", "missing", "send", "revoke", "check"])
    def test_a_broker_that_hangs_is_one(self, hanging, publisher, broker, clock, monkeypatch):
        """And blocks no public method."""
        monkeypatch.setattr(module, "CHECK_INTERVAL", 0.001 if hanging == "check" else 3600)
        broker.close_gate(hanging)
        if hanging == "missing":
            broker.outcomes = [outcome(unknown=slice(1))]
        publisher.submit(make("a"))
        publisher.revoke("x")
        publisher.start()
        wait_until(lambda: broker.count(hanging))
        if hanging != "missing":
            assert publisher.problem is None
            clock[0] += module.HUNG_AFTER + 1
            assert publisher.problem == "The broker redis://broker/0 has not answered for 11 s."
        calls = in_background(lambda: use(publisher))
        calls.join(60)
        assert not calls.is_alive()
        broker.open_gates()
        wait_until(lambda: publisher.problem is None)

    def test_one_with_nothing_to_do_is_none(self, publisher, broker, clock):
        """However long that lasts."""
        started(publisher, broker, *make("a"))
        clock[0] += 10_000
        assert publisher.problem is None


class TestStop:
    def test_what_is_left_is_sent_first(self, publisher, broker):
        batch = numbered(1200)
        broker.close_gate("send")
        publisher.submit(batch)
        publisher.start()
        left: list[list[Outgoing]] = []
        stopping = in_background(lambda: left.append(publisher.stop(3600)))
        broker.open_gates()
        stopping.join(60)
        assert left == [[]]
        assert broker.arrived == ids(batch)
        assert not publisher._thread.is_alive()
        assert broker.calls[-1] == "close"

    @pytest.mark.parametrize("failing", ["connect", "send"])
    def test_a_broker_that_is_down_is_not_waited_for(self, failing, publisher, broker, monkeypatch):
        """Messages that it did not get are given back, also when it fails only then."""
        monkeypatch.setattr(module, "RETRY_DELAYS", (3600.0, 3600.0))
        batch = make("a", "b")
        broker.close_gate(failing)
        broker.errors[failing] = SendFailed(DOWN, unsent=batch)
        publisher.submit(batch)
        publisher.start()
        left: list[list[Outgoing]] = []
        stopping = in_background(lambda: left.append(publisher.stop(3600)))
        wait_until(lambda: publisher._changed._waiters)
        broker.open_gates()
        stopping.join(60)
        assert left == [batch]
        assert not publisher._thread.is_alive()

    def test_a_broker_that_hangs_is_not_waited_for(self, publisher, broker, monkeypatch):
        """Messages that may be with it are not given back; the thread ends with the call that hangs."""
        monkeypatch.setattr(module, "JOIN_TIMEOUT", 0.01)
        broker.close_gate("send")
        publisher.submit(make("a"))
        publisher.start()
        wait_until(lambda: broker.count("send"))
        publisher.submit(make("b"))
        assert ids(publisher.stop(0.01)) == ["b"]
        assert publisher._thread.is_alive()
        broker.open_gates()
        publisher._thread.join(60)
        assert broker.calls == ["connect", "send", "close"]

    def test_one_that_was_never_started_gives_all_back(self, publisher):
        publisher.submit(make("a"))
        assert ids(publisher.stop(0)) == ["a"]


class TestSurviving:
    @pytest.mark.parametrize("failing", ["connect", "missing", "send", "revoke", "check"])
    @pytest.mark.parametrize(
        "error",
        [RuntimeError("no"), OSError(), AssertionError(), KeyboardInterrupt(), SystemExit(1)],
        ids=repr,
    )
    def test_no_error_ends_the_thread(self, error, failing, publisher, broker, monkeypatch):
        """Whatever raises it; once it is over, all has been sent, and only once."""
        monkeypatch.setattr(module, "CHECK_INTERVAL", 0.001 if failing == "check" else 3600)
        started(publisher, broker, *make("a"))
        broker.errors[failing] = error
        attempts = broker.count(failing) + 3
        provoke(publisher, broker, failing, make("b"))
        wait_until(lambda: broker.count(failing) >= attempts)
        broker.errors.clear()
        wait_until(lambda: publisher.problem is None)
        if failing != "send":
            publisher.submit(make("b"))
        assert sent(publisher, 1) == ["b"]
        assert broker.arrived == ["a", "b"]

    def test_an_outage_may_last(self, publisher, broker):
        """After thousands of attempts there is another one."""
        broker.errors["connect"] = DOWN
        publisher.submit(make("a"))
        publisher.start()
        wait_until(lambda: broker.count("connect") > 1100)
        broker.errors.clear()
        assert sent(publisher, 1) == ["a"]

    @pytest.mark.parametrize("failing", ["connect", "send"])
    def test_the_time_between_attempts_grows(self, failing, publisher, broker, monkeypatch):
        """By chance up to half as long as they might be, and starts anew after a success."""
        monkeypatch.setattr(module, "RETRY_DELAYS", (0.5, 30.0))
        publisher._changed = changed = ImpatientCondition()
        batch = make("a")
        broker.errors[failing] = SendFailed(DOWN, unsent=batch)
        publisher.submit(batch)
        publisher.start()
        wait_until(lambda: broker.count(failing) > 8)
        broker.errors.clear()
        sent(publisher, 1)
        assert len(changed.delays) >= 8
        for delay, longest in zip(changed.delays, [0.5, 1, 2, 4, 8, 16, 30, 30], strict=False):
            assert longest / 2 <= delay <= longest
        assert len(set(changed.delays)) == len(changed.delays)
        wait_until(lambda: publisher.problem is None)
        changed.delays.clear()
        reconnect(publisher, broker)
        assert 0.25 <= changed.delays[0] <= 0.5

    def test_nothing_but_time_brings_the_next_attempt(self, publisher, broker, monkeypatch):
        """The scheduler goes on calling, and the thread must not be busy with that."""
        monkeypatch.setattr(module, "RETRY_DELAYS", (3600.0, 3600.0))
        broker.errors["connect"] = DOWN
        publisher.start()
        wait_until(lambda: publisher.problem and publisher._busy_since is None)
        for number in range(200):
            publisher.submit(make(str(number)))
            publisher.revoke("x")
            publisher.settled("y")
            publisher.drain()
        publisher.withdraw_all()
        publisher.stop(0)
        assert broker.count("connect") == 1
