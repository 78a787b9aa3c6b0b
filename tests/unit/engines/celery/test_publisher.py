# SPDX-License-Identifier: Apache-2.0
"""The publisher's thread: what it sends, takes back, and knows about what it has sent."""

from __future__ import annotations

import pytest
from support import wait_until

from airflow_dispatch_provider.engines.celery import publisher as module
from airflow_dispatch_provider.engines.celery.publisher import Failed, Sent

from .publishing import DOWN, ids, make, numbered, outcome, reconnect, sent, started


class TestSending:
    def test_all_are_sent_in_order_and_reported(self, publisher, broker):
        """Also those that come while others are being sent."""
        batch = numbered(3000)
        broker.close_gate("send")
        publisher.submit(batch[:1000])
        publisher.start()
        wait_until(lambda: broker.count("send"))
        publisher.submit(batch[1000:])
        assert publisher.unsent == 3000
        broker.open_gates()
        assert sent(publisher, 3000) == broker.arrived == ids(batch)
        assert publisher.unsent == 0

    def test_batches_are_bounded(self, publisher, broker, monkeypatch):
        """The rest follows."""
        monkeypatch.setattr(module, "MAX_BATCH", 7)
        publisher.submit(numbered(20))
        publisher.start()
        sent(publisher, 20)
        assert [len(batch) for batch in broker.batches.values()] == [7, 7, 6]

    def test_the_broker_belongs_to_one_thread(self, publisher, broker, monkeypatch):
        """Nothing of it is thread-safe."""
        monkeypatch.setattr(module, "CHECK_INTERVAL", 0.001)
        started(publisher, broker, *make("a"))
        reconnect(publisher, broker)
        wait_until(lambda: broker.count("check"))
        publisher.stop(60)
        assert set(broker.calls) == {"connect", "send", "missing", "revoke", "check", "close"}
        assert broker.threads == {publisher._thread}

    def test_what_cannot_be_made_is_reported_with_its_reason(self, publisher, broker):
        """Once, with nothing to do with the broker."""
        broker.outcomes = [outcome(rejected=slice(1, 2)), outcome(rejected=slice(1))]
        first, second = make("a", "b", "c"), make("d")
        for batch in (first, second):
            publisher.submit(batch)
            if batch is first:
                publisher.start()
            wait_until(lambda: publisher.unsent == 0)
        failed = {Failed(first[1], "no good"), Failed(second[0], "no good")}
        assert set(publisher.drain()) == failed | {Sent(first[0]), Sent(first[2])}
        assert (publisher.drain(), publisher.problem) == ([], None)
        reconnect(publisher, broker)
        assert broker.asked == [[next(iter(broker.batches))]]
        assert broker.arrived == ["a", "c"]

    def test_the_connection_is_checked_while_there_is_nothing_to_send(self, publisher, broker, monkeypatch):
        """So that an outage is known before a task has to wait for its end."""
        monkeypatch.setattr(module, "CHECK_INTERVAL", 0.001)
        publisher.start()
        wait_until(lambda: broker.count("check") >= 2)
        broker.errors["check"] = DOWN
        wait_until(lambda: publisher.problem)
        broker.errors.clear()
        wait_until(lambda: publisher.problem is None)
        assert broker.count("send") == 0

    def test_the_connection_is_checked_while_there_is_much_to_send(self, publisher, broker, clock):
        """And not more often than that."""
        for number in range(6):
            publisher.submit(make(str(number)))
            if not number:
                publisher.start()
            sent(publisher, 1)
            clock[0] += module.CHECK_INTERVAL / 2
        assert broker.calls == ["connect", *["send"] * 3, "check", *["send"] * 2, "check", "send"]


class TestTakingBack:
    def test_what_waits_is_taken_back_once(self, publisher, broker):
        publisher.submit(make("a", "b", "c"))
        assert publisher.withdraw("b")
        assert not publisher.withdraw("b")
        assert not publisher.withdraw("unknown")
        assert ids(publisher.withdraw_all()) == ["a", "c"]
        assert publisher.withdraw_all() == []
        started(publisher, broker, *make("d"))
        assert broker.arrived == ["d"]

    def test_what_is_being_sent_is_not(self, publisher, broker):
        """Nor what was sent."""
        broker.close_gate("send")
        publisher.submit(make("a"))
        publisher.start()
        wait_until(lambda: broker.count("send"))
        publisher.submit(make("b"))
        assert not publisher.withdraw("a")
        assert ids(publisher.withdraw_all()) == ["b"]
        broker.open_gates()
        assert sent(publisher, 1) == ["a"]
        assert not publisher.withdraw("a")

    def test_what_may_have_arrived_is_not(self, publisher, broker):
        """As long as the broker has not been asked."""
        broker.close_gate("missing")
        broker.outcomes = [outcome(unknown=slice(1), unsent=slice(1, None))]
        publisher.submit(make("a", "b"))
        publisher.start()
        wait_until(lambda: broker.count("missing"))
        assert not publisher.withdraw("a")
        assert ids(publisher.withdraw_all()) == ["b"]
        assert publisher.unsent == 1

    def test_revocations_wait_for_the_broker_and_follow_what_was_sent(self, publisher, broker):
        """None is lost or repeated, however often the connection breaks."""
        broker.errors["connect"] = DOWN
        publisher.submit(make("a"))
        publisher.start()
        wait_until(lambda: publisher.problem)
        publisher.revoke("x")
        publisher.revoke("y")
        broker.errors = {"revoke": DOWN}
        wait_until(lambda: broker.count("revoke") >= 2)
        broker.errors.clear()
        wait_until(lambda: broker.revoked == ["x", "y"])
        assert broker.calls.index("send") < broker.calls.index("revoke")
        publisher.revoke("z")
        wait_until(lambda: broker.revoked == ["x", "y", "z"])


class TestAccounting:
    def test_what_was_not_sent_is_sent_again_before_the_rest(self, publisher, broker):
        broker.outcomes = [outcome(unsent=slice(1, None)), outcome(unsent=slice(None))]
        broker.close_gate("send")
        publisher.submit(make("a", "b", "c"))
        publisher.start()
        wait_until(lambda: broker.count("send"))
        publisher.submit(make("d"))
        broker.open_gates()
        assert sent(publisher, 4) == broker.arrived == ["a", "b", "c", "d"]

    def test_what_was_rejected_beside_a_failure_is_not_sent_again(self, publisher, broker):
        broker.outcomes = [outcome(rejected=slice(1), unsent=slice(1, None))]
        batch = make("a", "b")
        publisher.submit(batch)
        publisher.start()
        wait_until(lambda: publisher.unsent == 0)
        assert set(publisher.drain()) == {Failed(batch[0], "no good"), Sent(batch[1])}
        assert broker.arrived == ["b"]

    @pytest.mark.parametrize("forgetful", [False, True])
    def test_what_arrived_is_not_sent_again(self, forgetful, publisher, broker, caplog):
        """Nor what may have arrived, where the broker cannot tell: two copies are worse than a wait."""
        broker.forgetful = forgetful
        broker.outcomes = [outcome(unknown=slice(2), unsent=slice(3, None))]
        if not forgetful:
            monkey = broker.missing
            broker.missing = lambda receipts: monkey(receipts) and set()
        publisher.submit(make("a", "b", "c", "d"))
        publisher.start()
        assert sent(publisher, 4) == ["c", "a", "b", "d"]
        assert broker.arrived == ["c", "d"]
        assert ("may not have got 2 messages" in caplog.text) == forgetful
        assert "a, b" in caplog.text or not forgetful
        reconnect(publisher, broker)
        assert publisher.drain() == []
        assert broker.arrived == ["c", "d"]

    def test_what_is_missing_is_sent_again_once_and_in_order(self, publisher, broker, monkeypatch):
        """Before what waits, and without what workers have or shall not have."""
        monkeypatch.setattr(module, "MAX_BATCH", 3)
        batch = numbered(60)
        started(publisher, broker, *batch)
        publisher.settled(batch[4].celery_id)
        publisher.revoke(batch[5].celery_id)
        for outgoing in batch[9:12]:
            publisher.settled(outgoing.celery_id)
        wait_until(lambda: broker.revoked)
        kept = list(broker.batches)[::7]
        expected = [o.celery_id for n, o in enumerate(batch) if (n // 3) % 7 and n not in (4, 5, 9, 10, 11)]
        broker.batches = {receipt: broker.batches[receipt] for receipt in kept}
        broker.close_gate("missing")
        broker.breaks.add("revoke")
        publisher.revoke("nobody")
        wait_until(lambda: broker.count("missing"))
        publisher.submit(make("z"))
        broker.open_gates()
        assert sent(publisher, len(expected) + 1) == [*expected, "z"]
        assert broker.arrived[len(kept) * 3 :] == [*expected, "z"]
        reconnect(publisher, broker)
        assert publisher.drain() == []

    @pytest.mark.parametrize("settle", ["settled", "revoke"])
    @pytest.mark.parametrize(
        ("during", "part"), [("send", "unsent"), ("send", "unknown"), ("missing", "unknown"), ("connect", "")]
    )
    def test_what_is_settled_meanwhile_is_not_sent_again(self, during, part, settle, publisher, broker):
        """Neither what the broker did not get, nor what it loses later."""
        if during == "connect":
            started(publisher, broker, *make("a", "b"))
            broker.batches.clear()
            broker.breaks.add("revoke")
            broker.close_gate("connect")
            publisher.revoke("x")
        else:
            broker.outcomes = [outcome(**{part: slice(None)})]
            broker.close_gate(during)
            publisher.submit(make("a", "b"))
            publisher.start()
        wait_until(lambda: broker.count(during) > (during == "connect"))
        getattr(publisher, settle)("a")
        broker.open_gates()
        wait_until(lambda: broker.arrived == ["b"])
        broker.batches.clear()
        reconnect(publisher, broker)
        assert broker.arrived == ["b"]

    def test_what_is_settled_before_it_is_sent_again_is_not(self, publisher, broker):
        """The broker has lost it, and a worker had it already."""
        started(publisher, broker, *make("a", "b"))
        broker.batches.clear()
        broker.breaks |= {"revoke", "send"}
        broker.close_gate("send")
        publisher.revoke("x")
        wait_until(lambda: broker.count("send") == 2)
        publisher.settled("a")
        broker.open_gates()
        wait_until(lambda: broker.arrived == ["b"] and publisher.problem is None)

    def test_what_all_workers_have_is_not_asked_for(self, publisher, broker):
        """Receipts are kept as long as they are needed, and no longer."""
        started(publisher, broker, *make("a", "b"))
        publisher.settled("a")
        reconnect(publisher, broker)
        assert broker.asked == [list(broker.batches)]
        publisher.settled("b")
        reconnect(publisher, broker)
        assert len(broker.asked) == 1
        assert (publisher._receipts, publisher._receipt_of) == ({}, {})
