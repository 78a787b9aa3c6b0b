# SPDX-License-Identifier: Apache-2.0
"""Metrics of an executor: which are sent, how often, and that they cost next to nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from unit.lifecycle.builders import route, settings

from airflow_dispatch_provider.bridge import metrics
from airflow_dispatch_provider.dispatch.gauges import Gauges
from airflow_dispatch_provider.engines.engine import Measured
from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, BackendRules, Broken, Settings
from airflow_dispatch_provider.testing import make_task
from tests.unit.dispatch.loop_house import House


class Client:
    """Notes what Airflow's metrics are told: names, and their tags where there are any."""

    def __init__(self) -> None:
        self.gauges: dict[Any, float] = {}
        self.counts: Counter[Any] = Counter()
        self.times: list[Any] = []
        self.calls = 0

    def _address(self, name: str, tags: Any) -> Any:
        self.calls += 1
        return (name, *sorted(tags.items())) if tags else name

    def gauge(self, name: str, value: float, tags: Any = None) -> None:
        self.gauges[self._address(name, tags)] = value

    def incr(self, name: str, count: int = 1, *, tags: Any = None) -> None:
        self.counts[self._address(name, tags)] += count

    def timing(self, name: str, milliseconds: float, *, tags: Any = None) -> None:
        self.times.append((self._address(name, tags), milliseconds))


class Metered(House):
    """A house with metrics; each beat takes a millisecond."""

    def __init__(self, *routes: Any, team: str | None = None, alone: bool = False, **options: Any) -> None:
        super().__init__(*routes, **options)
        self.metrics = Gauges(self.loop.machine, self.loop.engines, team, alone)

    def beat(self, times: int = 1, passed: float = 1.0, took: float = 0.001) -> House:
        for _ in range(times):
            super().beat(1, passed)
            self.metrics.beat(self.now, took)
        return self


@pytest.fixture(params=[metrics.Ways(True, True, False)])
def client(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Client:
    noted = Client()
    monkeypatch.setattr(metrics, "stats", lambda: noted)
    monkeypatch.setattr(metrics, "ways", lambda: request.param)
    return noted


def test_each_backend_has_its_gauges(client: Client) -> None:
    """Slots, what is used, what waits for it first and for how long; and those that every executor has."""
    house = Metered(route("*", "a"))
    house.queue(make_task(), make_task(), make_task()).beat(10)
    assert client.gauges == {
        "dispatch.slots.a": 1,
        "dispatch.used.a": 1,
        "dispatch.ahead.a": 0,
        "dispatch.held.a": 2,
        "dispatch.oldest_wait.a": 7,
        "dispatch.circuit_open.a": 0,
        "dispatch.cordoned.a": 0,
        "dispatch.held_by_reason.a.waits_full": 2,
        "executor.open_slots.a": 0,
        "executor.running_tasks.a": 1,
        "executor.queued_tasks.a": 2,
        "dispatch.slots.b": 1,
        "dispatch.used.b": 0,
        "dispatch.ahead.b": 0,
        "dispatch.held.b": 0,
        "dispatch.oldest_wait.b": 0,
        "dispatch.circuit_open.b": 0,
        "dispatch.cordoned.b": 0,
        "executor.open_slots.b": 1,
        "executor.running_tasks.b": 0,
        "executor.queued_tasks.b": 0,
        "dispatch.heartbeat_longest": 1,
        "dispatch.held_back": 0,
        "dispatch.execution_api_away": 0,
    }


@pytest.mark.parametrize("client", [metrics.Ways(True, False, True)], indirect=True)
def test_where_tags_are_kept_the_backend_is_one(client: Client) -> None:
    """So is the reason, and the team."""
    house = Metered(route("*", "a"), team="blue")
    house.queue(make_task(), make_task()).beat(7)
    tags = (("backend", "a"), ("team_name", "blue"))
    assert client.gauges["dispatch.held", *tags] == 1
    reason = ("reason", "waits_full")
    assert client.gauges["dispatch.held_by_reason", *sorted([*tags, reason])] == 1
    assert not [name for name in client.gauges if str(name).startswith("dispatch.held.")]


def test_one_that_is_no_router_leaves_to_airflow_what_airflow_sends(client: Client) -> None:
    """The base class's gauges have the same names as those of a backend that is called like its class."""
    Metered(alone=True).beat(7)
    assert "dispatch.slots.a" in client.gauges
    assert not [name for name in client.gauges if name.startswith("executor.")]


def test_the_whole_router_has_gauges_too(client: Client) -> None:
    """The longest heartbeat of the last minute or two, and whether the Execution API is away."""
    house = Metered()
    house.beat(took=0.5).beat(59).loop.tell(house.now, Broken(EXECUTION_API, "refused"))
    house.beat(10)
    assert client.gauges["dispatch.heartbeat_longest"] == 500
    assert client.gauges["dispatch.execution_api_away"] == 1
    house.beat(125)
    assert client.gauges["dispatch.heartbeat_longest"] == 1
    assert [name for name, _ in client.times] == ["dispatch.heartbeat"] * 195


def test_a_reason_that_is_over_is_set_to_zero(client: Client) -> None:
    """A gauge keeps its last value."""
    house, one = Metered(route("*", "a")), make_task()
    house.queue(one, make_task()).beat(10)
    assert client.gauges["dispatch.held_by_reason.a.waits_full"] == 1
    house.finish("a", one)
    house.beat(10)
    assert client.gauges["dispatch.held_by_reason.a.waits_full"] == 0


def test_a_backend_that_is_removed_is_set_to_zero(client: Client) -> None:
    """Once: then nothing is sent of it any more."""
    house = Metered()
    house.beat(6)
    known: Settings = settings(route("*", "a"))
    house.loop.tell(house.now, Settings(known.routes, {"a": BackendRules()}, known.limits))
    del house.loop.engines["b"]
    house.beat(10)
    assert client.gauges["dispatch.slots.b"] == 0
    del client.gauges["dispatch.slots.b"]
    house.beat(20)
    assert "dispatch.slots.b" not in client.gauges


def test_counts_are_sent_as_they_change(client: Client) -> None:
    """With the heartbeat in which they do, and once."""
    house, one = Metered(route("*", "a")), make_task()
    house.queue(one).beat(3)
    house.finish("a", one)
    house.beat(3)
    assert client.counts["dispatch.ended.a", ("backend", "a")] == 1


def test_gauges_come_in_rounds(client: Client) -> None:
    """Five seconds apart at least, however fast the scheduler loops."""
    house = Metered()
    house.beat(1, passed=0.01)
    sent = client.calls
    house.beat(400, passed=0.01)
    assert client.calls - sent == 400 + 10  # the timer of each heartbeat, and the gauges of the other backend


def test_one_that_has_not_changed_is_sent_now_and_then(client: Client) -> None:
    """In every sixth round: whatever keeps the gauges may have been started anew."""
    house = Metered()
    house.beat(2)
    client.gauges.clear()
    house.beat(28)
    assert client.gauges.keys() == {
        "dispatch.heartbeat_longest",
        "dispatch.held_back",
        "dispatch.execution_api_away",
    }
    house.beat(2)
    assert client.gauges["dispatch.slots.a"] == client.gauges["dispatch.slots.b"] == 1


def test_no_heartbeat_pays_for_all_backends(client: Client) -> None:
    """Forty of them take ten heartbeats."""
    house = Metered(rules={f"x{number}": BackendRules() for number in range(38)})
    by_beat = []
    for _ in range(12):
        before = client.calls
        house.beat(passed=0.1)
        by_beat.append(client.calls - before)
    assert by_beat[0] == 4 * 10 + 4
    assert by_beat[9:] == [4 * 10 + 1, 1, 1]


def test_where_metrics_are_off_nothing_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even looked at."""
    monkeypatch.setattr(metrics, "ways", lambda: metrics.Ways(False, True, False))
    house = Metered()
    house.metrics = Gauges(None, None, None, False)
    house.beat(3)


def test_requests_of_engines_have_the_names_of_airflows_executors(client: Client) -> None:
    """Counts with the status, and some durations in milliseconds."""
    house = Metered()
    measured = Measured(
        {("kubernetes_executor.pod_creation_status", "200"): 3}, [("kubernetes_executor.pod_creation", 0.25)]
    )
    monkey: Any = house.loop.engines["b"]
    monkey.take_measured = lambda: measured
    house.beat()
    address = "kubernetes_executor.pod_creation_status", ("backend", "b"), ("status", "200")
    assert client.counts[address] == 3
    assert (("kubernetes_executor.pod_creation", ("backend", "b")), 250.0) in client.times
