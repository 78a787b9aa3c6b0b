# SPDX-License-Identifier: Apache-2.0
"""Results from a real Valkey, also while it is away, mute, or refuses what is asked of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery.backends.redis import RedisBackend
from support import wait_until

from airflow_dispatch_provider.engines.celery import result_watcher
from airflow_dispatch_provider.engines.celery.results import Result
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.valkey import ValkeyServer

from .watching import IMPATIENT, Opened, collect, make_app, new_id, store, until_reached, watching

pytestmark = pytest.mark.integration("redis")

Proxy = Callable[[ValkeyServer], FaultyProxy]


@pytest.fixture
def client(valkey: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(valkey.url())


def calls_of(client: redis.Redis, command: str) -> int:
    return client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == result_watcher.__name__]
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


def test_results_come_by_themselves(valkey):
    app = make_app(valkey.url())
    with watching(app) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        store(app, celery_id, "STARTED")
        assert [result.state for result in collect(watcher, 1)] == ["STARTED"]
        store(app, celery_id, "STARTED")
        store(app, celery_id, "FAILURE", ValueError("no"))
        (result,) = collect(watcher, 1)
        assert (result.celery_id, result.state, repr(result.info)) == (
            celery_id,
            "FAILURE",
            "ValueError('no')",
        )


@pytest.mark.parametrize("connected", [False, True])
def test_results_from_before_the_watch_are_found(connected, valkey):
    app = make_app(valkey.url())
    celery_id = new_id()
    with watching(app) as watcher:
        if connected:
            until_reached(watcher, app)
        store(app, celery_id)
        watcher.watch(celery_id)
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]


def test_a_running_fleet_costs_nothing(valkey, client):
    """Each id is asked for once, and then nothing but the connection is looked at."""
    app = make_app(valkey.url())

    def until_all_asked() -> int:
        """How often the server has been asked, once it has for everything that is watched already."""
        celery_id = new_id()
        client.set(app.backend.get_key_for_task(celery_id), '{"status": "SUCCESS"}')  # published to nobody
        watcher.watch(celery_id)
        collect(watcher, 1)
        return calls_of(client, "mget")

    with watching(app) as watcher:
        for _ in range(1200):
            watcher.watch(new_id())
        until_all_asked()
        asked = until_all_asked()
        pings = calls_of(client, "ping")
        wait_until(lambda: calls_of(client, "ping") > pings + 2)
        assert calls_of(client, "mget") == asked
        assert until_all_asked() == asked + 1
        assert watcher.problem is None


def test_only_watched_results_are_decoded(valkey, monkeypatch):
    decoded: list[Any] = []
    decode = RedisBackend.decode_result
    monkeypatch.setattr(RedisBackend, "decode_result", lambda *args: decoded.append(args) or decode(*args))
    app = make_app(valkey.url())
    with watching(app) as watcher:
        until_reached(watcher, app)
        decoded.clear()
        for _ in range(50):
            store(app, new_id())
        until_reached(watcher, app)
        assert 1 <= len(decoded) <= 2  # it may have been asked for, too


def test_glob_characters_in_a_key_prefix_mean_themselves(valkey, client):
    """Messages of other prefixes do not even reach us."""
    app = make_app(valkey.url(), result_backend_transport_options={"global_keyprefix": "a*[b]\\?-"})
    with watching(app) as watcher:
        until_reached(watcher, app)
        assert client.execute_command("PUBSUB", "NUMPAT") == 1
        assert client.publish("a*[b]\\?-celery-task-meta-x", "null") == 1
        assert client.publish("aXb\\Y-celery-task-meta-x", "null") == 0


def test_a_lost_message_is_made_up_for(valkey, client):
    app = make_app(valkey.url())
    with watching(app, replace(IMPATIENT, reconcile=0.1)) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        client.set(app.backend.get_key_for_task(celery_id), '{"status": "SUCCESS", "result": 3}')
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS", 3)]


def test_garbage_is_one_tasks_affair(valkey, client, caplog):
    app = make_app(valkey.url())
    with watching(app) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        client.publish(app.backend.get_key_for_task(celery_id), "{")
        until_reached(watcher, app)
        assert watcher.problem is None
        store(app, celery_id)
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
    assert f"The result of Celery task {celery_id} is ignored" in caplog.text


@pytest.mark.parametrize("mode", ["refuse", "reset", "hang"])
def test_an_outage_is_noticed_and_what_finished_in_it_is_found(mode, valkey, proxy_to: Proxy, caplog):
    caplog.set_level(logging.INFO)
    app, proxy = make_app(valkey.url()), proxy_to(valkey)
    with watching(make_app(proxy.url(valkey.url()))) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        proxy.mode = mode
        wait_until(lambda: watcher.problem)
        store(app, celery_id)
        proxy.mode = "forward"
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
        wait_until(lambda: watcher.problem is None)
        until_reached(watcher, app)
    assert len(warnings(caplog)) == 1
    assert caplog.text.count("is back after") == 1


@pytest.mark.parametrize("part", [0, 30])
def test_a_connection_that_is_cut_once_is_made_again(part, valkey, proxy_to: Proxy):
    """Also what was published in the moment between is found."""
    app, proxy = make_app(valkey.url()), proxy_to(valkey)
    with watching(make_app(proxy.url(valkey.url()))) as watcher:
        until_reached(watcher, app)
        celery_id = new_id()
        watcher.watch(celery_id)
        proxy.cut_after(part, "down")
        store(app, celery_id)
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS")]
        assert proxy.cuts == 1


def test_a_server_that_is_killed_and_started_again(own_valkey):
    app = make_app(own_valkey.url())
    running, finished = new_id(), new_id()
    with watching(app) as watcher:
        until_reached(watcher, app)
        watcher.watch(running)
        store(app, finished)
        own_valkey.kill()
        assert "ConnectionError" in wait_until(lambda: watcher.problem)
        watcher.watch(finished)
        own_valkey.restart()
        assert collect(watcher, 1) == [Result(finished, "SUCCESS")]
        wait_until(lambda: watcher.problem is None)
        store(app, running)
        assert collect(watcher, 1) == [Result(running, "SUCCESS")]


def test_a_server_that_freezes(own_valkey):
    app = make_app(own_valkey.url())
    with watching(app) as watcher:
        until_reached(watcher, app)
        own_valkey.pause()
        assert "has not answered a PING" in wait_until(lambda: watcher.problem)
        own_valkey.resume()
        wait_until(lambda: watcher.problem is None)
        until_reached(watcher, app)


def test_a_server_that_is_not_there_yet(own_valkey):
    app = make_app(own_valkey.url())
    own_valkey.kill()
    with watching(app) as watcher:
        wait_until(lambda: watcher.problem)
        own_valkey.restart()
        wait_until(lambda: watcher.problem is None)
        until_reached(watcher, app)


@pytest.mark.parametrize("rules", [["-psubscribe", "&*"], ["resetchannels"]])
def test_without_permission_to_subscribe_results_are_asked_for(rules, valkey, client, caplog):
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">sesame", "~*", "+@all", *rules)
    app = make_app(valkey.url())
    with watching(make_app(f"redis://limited:sesame@{urlsplit(valkey.url()).netloc}/0")) as watcher:
        until_reached(watcher, app)
        until_reached(watcher, app)
        client.client_kill_filter(_type="normal", skipme=True)
        until_reached(watcher, app)
        assert watcher.problem is None
    assert sum("Redis refuses PSUBSCRIBE" in warning for warning in warnings(caplog)) == 1
    assert "sesame" not in caplog.text


def test_a_wrong_password_is_a_problem_and_not_shown(valkey, client, caplog):
    client.execute_command("ACL", "SETUSER", "someone", "reset", "on", ">sesame", "~*", "&*", "+@all")
    with watching(make_app(f"redis://someone:wrong-one@{urlsplit(valkey.url()).netloc}/0")) as watcher:
        problem = wait_until(lambda: watcher.problem)
    assert "AuthenticationError" in problem
    assert "wrong-one" not in problem + caplog.text


def test_a_limit_of_one_connection_is_widened_to_what_is_needed(valkey):
    app = make_app(valkey.url())
    with watching(make_app(valkey.url(), redis_max_connections=1)) as watcher:
        until_reached(watcher, app)
        assert watcher.problem is None


def test_a_long_result_is_read_whole(valkey, proxy_to: Proxy, caplog):
    app, proxy = make_app(valkey.url()), proxy_to(valkey)
    with watching(make_app(proxy.url(valkey.url()))) as watcher:
        until_reached(watcher, app)
        proxy.delay = 0.05
        celery_id, value = new_id(), "x" * 1_000_000
        watcher.watch(celery_id)
        store(app, celery_id, value=value)
        assert collect(watcher, 1) == [Result(celery_id, "SUCCESS", value)]
    assert warnings(caplog) == []


def test_nothing_is_left_open(valkey, client):
    opened = Opened()
    with watching(make_app(valkey.url()), open_source=opened):
        wait_until(lambda: client.execute_command("PUBSUB", "NUMPAT"))
    assert len(opened) == 1
    wait_until(lambda: client.execute_command("PUBSUB", "NUMPAT") == 0)
    assert client.info("clients")["pubsub_clients"] == 0
