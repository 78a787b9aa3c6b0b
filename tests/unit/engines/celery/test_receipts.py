# SPDX-License-Identifier: Apache-2.0
"""Receipts that are sent along with batches: the broker has lost those batches whose receipt it does not have."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.celery._receipts import Receipts


@pytest.fixture
def receipts() -> Receipts:
    """Two batches: 1 and 2 at 100 s, 3 at 200 s; each is asked for for 600 s."""
    made = Receipts("token", 600.0)
    first, second = made.new(), made.new()
    made.add(first, "id 1", 1, 100.0)
    made.add(first, "id 2", 2, 150.0)
    made.add(second, "id 3", 3, 200.0)
    return made


def test_each_batch_has_one_of_its_own() -> None:
    """They begin with the token of who uses the broker."""
    made = Receipts("token", 600.0)
    assert [made.new() for _ in range(3)] == ["token.1", "token.2", "token.3"]


@pytest.mark.parametrize(
    ("now", "asked_for"),
    [
        (100.0, ["token.1", "token.2"]),
        (700.0, ["token.1", "token.2"]),
        (700.1, ["token.2"]),
        (800.0, ["token.2"]),
        (801.0, []),
    ],
)
def test_it_is_asked_for_as_long_as_no_worker_need_have_begun(
    receipts: Receipts, now: float, asked_for: list[str]
) -> None:
    """Since the first of the batch was sent."""
    assert receipts.to_ask_for(now) == asked_for


def test_a_batch_that_is_settled_is_not_asked_for(receipts: Receipts) -> None:
    """All of it, that is. What is not known here is no error."""
    for celery_id in ("id 1", "id 1", "nobody's"):
        receipts.settled(celery_id)
        assert receipts.to_ask_for(300.0) == ["token.1", "token.2"]
    assert receipts.lost(["token.1"]) == [2]
    receipts.settled("id 2")
    receipts.settled("id 3")
    assert receipts.to_ask_for(300.0) == []


def test_what_the_broker_does_not_have_is_lost_once(receipts: Receipts) -> None:
    """In the order of sending."""
    assert receipts.lost(["token.2", "token.1", "token.9"]) == [1, 2, 3]
    assert receipts.lost(["token.1"]) == []
    assert receipts.to_ask_for(300.0) == []
