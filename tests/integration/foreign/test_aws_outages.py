# SPDX-License-Identifier: Apache-2.0
"""The executors of the amazon provider as backends while AWS cannot be used, beside another backend."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk
from devkit.servers.faulty_proxy import FaultyProxy, Mode

from .aws import Service
from .conftest import Start

pytestmark = [pytest.mark.integration("moto"), pytest.mark.once]

ROUTES = [{"queue": "aws", "to": ["aws"]}, {"queue": "either", "to": ["aws", "other"]}]
OTHER = {"executor": "airflow_dispatch_provider.testing.in_memory.InMemoryExecutor", "slots": 2}


@pytest.mark.parametrize("mode", ["hang", "reset"])
def test_another_backend_goes_on_and_nothing_is_lost(
    service: Service, start: Start, proxy: FaultyProxy, mode: Mode
) -> None:
    """A call that hangs costs the scheduler's thread boto's own time-out, here one second."""
    clerk, there, here = InMemoryClerk(), make_task(queue="aws"), make_task(queue="default")
    hand = start(clerk, {"other": OTHER}, routes=ROUTES, default="other")
    clerk.rows |= {task.ti.key: Row(RowState.QUEUED) for task in (there, here)}
    other = hand.router._backends["other"].executor
    proxy.mode = mode
    hand.queue(there, here)
    hand.succeeded(here)
    hand.beat_until(lambda: (other.finish_all(), hand.is_ended(here))[1])
    assert hand.state(here) == "success"
    assert not hand.is_ended(there)
    proxy.mode = "forward"
    hand.beat_until(service.received)
    hand.succeeded(there)
    # A submission that nobody waited for any more may arrive, too: one of the two runs is let begin.
    hand.beat_until(lambda: (service.end(0), hand.is_ended(there))[1])
    assert hand.state(there) == "success"


def test_where_it_cannot_start_work_takes_the_next_target_until_it_can(
    service: Service, start: Start, proxy: FaultyProxy
) -> None:
    """It checks at its start that AWS answers, and is started again later."""
    proxy.mode = "refuse"
    hand = start(None, {"other": OTHER}, routes=ROUTES, default="other", retry_min_delay=0.5)
    there, either = make_task(queue="aws"), make_task(queue="either")
    hand.queue(there, either)
    other = hand.router._backends["other"].executor
    hand.succeeded(either)
    hand.beat_until(lambda: (other.finish_all(), hand.is_ended(either))[1])
    assert not service.received()
    proxy.mode = "forward"
    hand.beat_until(service.received)
    hand.succeeded(there)
    service.end(0)
    hand.beat_until(lambda: hand.is_ended(there))
    assert (hand.state(either), hand.state(there)) == ("success", "success")
