# SPDX-License-Identifier: Apache-2.0
"""The engine with a real worker, which no execution API answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import wait_until

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.celery.engine import CeleryEngine
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, servers_of
from airflow_dispatch_provider.engines.engine import Job
from airflow_dispatch_provider.lifecycle.events import Began, Ended, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import make_callback

from .engines import Hand, running
from .test_engine_valkey import app_of
from .workers import Worker

pytestmark = pytest.mark.integration("redis")


@pytest.fixture(scope="module")
def app(valkey: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a broker and a result backend, with a worker that serves the queue ``default``."""
    app = app_of(valkey.url(), valkey.url(1))
    with Worker(tmp_path_factory.mktemp("worker"), valkey.url(), valkey.url(1)) as worker:
        worker.wait_until_ready(app)
        yield app


@pytest.fixture
def hand(app: Any) -> Iterator[Hand]:
    with running(app) as hand:
        yield hand


def test_a_task_that_could_not_begin_has_ended_and_nobody_knows_whether_it_had_begun(hand):
    """The database is asked, and no try is used."""
    (number,) = hand.submit(1, "default")
    (ended,) = hand.hears(Ended, [number])
    assert (ended.how, ended.began) == (Outcome.FAILED, None)
    assert ended.reason
    assert not [event for event in hand.heard if isinstance(event, Began)]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_a_callback_begins_and_ends(hand):
    hand.engine.submit([Job(900, "callback", make_callback(queue="default"))])
    (ended,) = hand.hears(Ended, [900])
    kinds = [type(event) for event in hand.said_of(900)]
    assert kinds in ([Sent, Ended], [Sent, Began, Ended])
    assert isinstance(ended.how, Outcome)


def test_a_revoked_task_is_dropped_by_the_worker(hand, app):
    """Nobody serves its queue."""
    (number,) = hand.submit(1, "nobody")
    (sent,) = hand.hears(Sent, [number])
    hand.engine.revoke(number)
    inspect = app.control.inspect(timeout=2)
    wait_until(lambda: sent.info in str(inspect.revoked()))
    assert hand.said_of(number)[-1] == Ended(number, Outcome.FAILED, None, "revoked")


def test_workers_are_counted(app):
    options = CeleryOptions(timeout=5.0)
    engine = CeleryEngine("x", lambda: servers_of(lambda: app, options, count_workers=True), 16, options)
    engine.start("1")
    wait_until(lambda: engine.room().slots == 2)
    engine.stop(0)
