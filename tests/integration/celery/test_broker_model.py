# SPDX-License-Identifier: Apache-2.0
"""The simulation's broker is tied to real ones: the same scripts run on all, and all say the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from integration.sides import said

from airflow_dispatch_provider.lifecycle.events import Adopted, Ended, Rejected, Returned, Sent, Unknown
from airflow_dispatch_provider.lifecycle.states import Outcome
from devkit.servers.valkey import ValkeyServer

from .broker_sides import ModelSide, RealSide, Side

pytestmark = [pytest.mark.integration("redis", "rabbitmq"), pytest.mark.recent]

SENT = ("Sent", None, None)
FAILED, SUCCESS = Outcome.FAILED, Outcome.SUCCESS
MODEL, VALKEY, RABBITMQ = "model", "valkey", "rabbitmq"


@pytest.fixture(params=[MODEL, VALKEY, RABBITMQ])
def side(request: pytest.FixtureRequest, valkey: ValkeyServer) -> Iterator[Side]:
    if request.param == MODEL:
        yield ModelSide()
        return
    with ExitStack() as stack:
        yield RealSide(request.getfixturevalue(request.param), valkey, stack)


@pytest.fixture(params=[MODEL, VALKEY])
def mortal(request: pytest.FixtureRequest, valkey: ValkeyServer) -> Iterator[Side]:
    """Its broker may be killed."""
    if request.param == MODEL:
        yield ModelSide()
        return
    with ExitStack() as stack:
        yield RealSide(request.getfixturevalue("own_valkey"), valkey, stack)


@pytest.mark.parametrize(
    ("state", "error", "how", "began"),
    [
        ("SUCCESS", "", SUCCESS, True),
        ("FAILURE", "refused", FAILED, False),
        ("FAILURE", "crashed", FAILED, None),
        ("REVOKED", "", FAILED, None),
    ],
)
def test_what_is_said_of_a_message_that_a_worker_is_through_with(side, state, error, how, began):
    """Whether the task had begun."""
    (number,) = side.submit()
    side.hears(number, Sent)
    side.store(number, "STARTED")
    side.store(number, state, error)
    assert [said(event) for event in side.hears(number, Ended)] == [SENT, ("Ended", how, began)]


@pytest.mark.parametrize(
    ("state", "kind"), [("STARTED", Adopted), ("SUCCESS", Unknown), ("REVOKED", Unknown)]
)
def test_another_scheduler_adopts_what_a_worker_has_begun_with(side, state, kind):
    """A final result may be that of an earlier half of the task."""
    (number,) = side.submit()
    side.hears(number, Sent)
    side.store(number, state)
    assert len(side.hears(side.adopt(number), kind, heir=True)) == 1


def test_what_no_worker_knows_of_is_unknown(side):
    assert len(side.hears(side.adopt(None), Unknown, heir=True)) == 1


def test_what_cannot_be_sent_is_rejected_and_keeps_no_other(side):
    number = side.submit_spoilt()
    (other,) = side.submit()
    side.hears(other, Sent)
    assert [said(event)[0] for event in side.hears(number, Rejected)] == ["Rejected"]
    assert side.room().unavailable is None


def test_what_is_revoked_has_ended_and_its_result_is_no_news(side):
    (number,) = side.submit()
    side.hears(number, Sent)
    side.revoke(number)
    assert said(side.hears(number, Ended)[-1]) == ("Ended", FAILED, None)
    side.store(number, "REVOKED")
    (other,) = side.submit()
    side.hears(other, Sent)
    assert len(side.hears(number, Ended)) == 2


def test_while_the_broker_is_away_nothing_is_sent_and_nothing_is_lost(mortal):
    """It comes back with its messages."""
    (before,) = mortal.submit()
    mortal.hears(before, Sent)
    mortal.kill()
    mortal.wait_until(lambda: mortal.room().unavailable is not None)
    (meanwhile,) = mortal.submit()
    assert said(mortal.hears(meanwhile, Returned)[-1])[0] == "Returned"
    mortal.restart(empty=False)
    mortal.wait_until(lambda: mortal.room().unavailable is None)
    (after,) = mortal.submit()
    mortal.hears(after, Sent)
    mortal.store(before, "SUCCESS")
    assert [said(event) for event in mortal.hears(before, Ended)] == [SENT, ("Ended", SUCCESS, True)]


def test_of_what_a_broker_has_lost_the_database_is_asked(mortal):
    """But for what a worker has."""
    lost, taken = mortal.submit()[0], mortal.submit()[0]
    for number in (lost, taken):
        mortal.hears(number, Sent)
    mortal.store(taken, "STARTED")
    (seen,) = mortal.submit()
    mortal.hears(seen, Sent)
    mortal.store(seen, "SUCCESS")
    mortal.hears(seen, Ended)
    mortal.kill()
    mortal.wait_until(lambda: mortal.room().unavailable is not None)
    mortal.restart(empty=True)
    end = mortal.hears(lost, Ended)[-1]
    assert (said(end), end.mishap) == (("Ended", FAILED, None), True)
    assert [said(event) for event in mortal.hears(taken, Sent)] == [SENT]
