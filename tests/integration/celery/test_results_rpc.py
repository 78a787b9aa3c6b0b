# SPDX-License-Identifier: Apache-2.0
"""Results as messages through a real RabbitMQ, also while it is away or mute."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable

import pytest
from celery import Celery
from support import wait_until

from airflow_dispatch_provider.engines.celery import result_watcher
from airflow_dispatch_provider.engines.celery.result_sources import open_source, reply_queue
from airflow_dispatch_provider.engines.celery.result_watcher import ResultWatcher
from airflow_dispatch_provider.engines.celery.results import Result
from devkit.servers.faulty_proxy import FaultyProxy

from .conftest import Broker
from .watching import IMPATIENT, collect, make_app, new_id, store, until_reached, watching

pytestmark = pytest.mark.integration("rabbitmq")

Proxy = Callable[[Broker], FaultyProxy]


@pytest.fixture
def app(rabbitmq: Broker) -> Celery:
    return make_app("rpc://", rabbitmq.url())


def declared(watcher: ResultWatcher, app: Celery) -> str:
    """The name of the queue, once it exists: a publisher, too, has to see to this before it sends a task."""
    assert watcher.reply_queue is not None
    with app.connection_for_write() as connection:
        watcher.reply_queue(connection.default_channel).declare()
    return str(watcher.reply_to)


def test_results_are_found(app):
    with watching(app) as watcher:
        name = declared(watcher, app)
        until_reached(watcher, app, name)
        celery_id = new_id()
        watcher.watch(celery_id)
        store(app, celery_id, "STARTED", reply_to=name)
        assert [result.state for result in collect(watcher, 1)] == ["STARTED"]
        store(app, celery_id, "FAILURE", ValueError("no"), name)
        (result,) = collect(watcher, 1)
        assert (result.celery_id, result.state, repr(result.info)) == (
            celery_id,
            "FAILURE",
            "ValueError('no')",
        )


def test_results_from_before_the_watch_are_found(app):
    with watching(app) as watcher:
        name = declared(watcher, app)
        until_reached(watcher, app, name)
        celery_id = new_id()
        store(app, celery_id, reply_to=name)
        until_reached(watcher, app, name)
        watcher.watch(celery_id)
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]


def test_a_message_that_nobody_took_over_is_read_again(app):
    """It is acknowledged only after the watcher has it."""
    first = open_source(app, IMPATIENT)
    store(app, "a", reply_to=app.thread_oid)
    assert wait_until(lambda: next(first.ask([], {}), None)) == [Result("a", "SUCCESS")]
    first.close()
    second = open_source(app, IMPATIENT)
    wait_until(lambda: [Result("a", "SUCCESS")] in list(second.ask([], {})))
    second.close()
    third = open_source(app, IMPATIENT)
    assert list(third.ask([], {})) == []
    third.close()


def test_many_results_are_read_in_one_go(app):
    with watching(app) as watcher:
        name = declared(watcher, app)
        ids = [new_id() for _ in range(600)]
        for celery_id in ids:
            watcher.watch(celery_id)
            store(app, celery_id, reply_to=name)
        results = collect(watcher, 600)
    assert {result.celery_id for result in results} == set(ids)


def test_garbage_is_one_tasks_affair(app, caplog):
    """Also what Celery is not set up to accept: a pickle could do anything."""
    bodies = {"application/json": b"{", "application/x-python-serialize": pickle.dumps({"status": "SUCCESS"})}
    with watching(app) as watcher:
        name = declared(watcher, app)
        with app.producer_pool.acquire(block=True) as producer:
            for content_type, body in bodies.items():
                watcher.watch(content_type)
                producer.publish(
                    body,
                    routing_key=name,
                    correlation_id=content_type,
                    content_type=content_type,
                    content_encoding="binary",
                    retry=True,
                )
        until_reached(watcher, app, name)
        assert watcher.problem is None
    for content_type in bodies:
        assert f"The result of Celery task {content_type} is ignored" in caplog.text


@pytest.mark.parametrize("mode", ["refuse", "reset", "hang"])
def test_an_outage_is_noticed_and_what_finished_in_it_is_found(mode, app, rabbitmq, proxy_to: Proxy, caplog):
    """The queue outlives the connection, and the watcher keeps its name."""
    caplog.set_level(logging.INFO)
    proxy = proxy_to(rabbitmq)
    with watching(make_app("rpc://", proxy.url(rabbitmq.url()))) as watcher:
        name = declared(watcher, app)
        until_reached(watcher, app, name)
        celery_id = new_id()
        watcher.watch(celery_id)
        proxy.mode = mode
        wait_until(lambda: watcher.problem)
        store(app, celery_id, reply_to=name)
        proxy.mode = "forward"
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
        wait_until(lambda: watcher.problem is None)
        assert watcher.reply_to == name
        until_reached(watcher, app, name)
    records = [record for record in caplog.records if record.name == result_watcher.__name__]
    assert [record.levelno for record in records] == [logging.WARNING, logging.INFO]


def test_a_server_that_is_started_again_gets_the_same_queue(own_rabbitmq):
    """RabbitMQ keeps neither the queue nor what was in it."""
    app = make_app("rpc://", own_rabbitmq.url())
    with watching(app) as watcher:
        name = declared(watcher, app)
        until_reached(watcher, app, name)
        own_rabbitmq.kill()
        wait_until(lambda: watcher.problem)
        own_rabbitmq.restart()
        wait_until(lambda: watcher.problem is None)
        until_reached(watcher, make_app("rpc://", own_rabbitmq.url()), name)


def test_results_from_before_the_first_connection_are_found(app, rabbitmq, proxy_to: Proxy):
    """The publisher may reach the broker sooner than the watcher, and declare the same queue."""
    proxy = proxy_to(rabbitmq)
    proxy.mode = "refuse"
    with watching(make_app("rpc://", proxy.url(rabbitmq.url()))) as watcher:
        wait_until(lambda: watcher.problem)
        name, celery_id = declared(watcher, app), new_id()
        watcher.watch(celery_id)
        store(app, celery_id, reply_to=name)
        proxy.mode = "forward"
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]


def test_each_watcher_has_a_queue_of_its_own(app):
    with watching(app) as one, watching(app) as other:
        assert len({one.reply_to, other.reply_to, reply_queue(app).name}) == 3
