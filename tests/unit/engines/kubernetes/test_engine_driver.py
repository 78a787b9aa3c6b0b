# SPDX-License-Identifier: Apache-2.0
"""The thread of the Kubernetes engine, with an API server in memory: lost answers, users' code, its own death."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support import wait_until

from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.engines.kubernetes import _driver, _search
from airflow_dispatch_provider.engines.kubernetes._driver import Driver
from airflow_dispatch_provider.engines.kubernetes._options import KubernetesOptions, watched
from airflow_dispatch_provider.engines.kubernetes.engine import KubernetesEngine
from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask
from airflow_dispatch_provider.engines.kubernetes.status import MARK
from airflow_dispatch_provider.lifecycle.events import Recovered, Rejected, Returned, Sent

from .fakes import NAMESPACE, FakeApi, FakeFactory, status

OPTIONS = KubernetesOptions(NAMESPACE, (NAMESPACE,), limit=4)


class World:
    """A driver with its thread, and what it has said."""

    def __init__(self, **more: Any) -> None:
        self.api, self.factory = FakeApi(), FakeFactory()
        self.given = {"renew": lambda workload: workload, **more}
        api: Any = self.api
        self.driver = Driver("x", api, self.factory, OPTIONS, "7", "7", **self.given)
        self.heard: list[Any] = []

    def submit(self, *dispatches: int) -> None:
        self.driver.submit([Job(number, f"key {number}", f"workload {number}") for number in dispatches])

    def hears(self, *events: Any) -> None:
        """Waits until all of these have been said."""

        def all_said() -> bool:
            self.heard += self.driver.take_events()
            return all(event in self.heard for event in events)

        wait_until(all_said, 20)


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**more: Any) -> World:
        made.append(World(**more))
        made[-1].driver.start()
        return made[-1]

    yield make
    for each in made:
        each.driver.stop(0.0)


def at_server(world: World, mark: str | None) -> None:
    """The server has a pod of that name, with that mark."""
    metadata = {"name": "pod-1", "namespace": NAMESPACE, "annotations": {MARK: mark} if mark else {}}
    world.api.pods = [{"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}]


def mark_of(world: World, dispatch: int) -> str:
    return f"{world.driver._nonce}-{dispatch}"


def fail_once(world: World, answer: Any) -> None:
    """The first create; every other one succeeds."""
    first = [answer]
    world.api.rules.append(lambda verb, *_: first.pop() if verb == "create" and first else None)


def test_a_pod_carries_the_mark_of_its_dispatch(world):
    house = world()
    manifests: list[Any] = []
    house.api.rules.append(lambda verb, _, manifest: manifests.append(manifest) if verb == "create" else None)
    house.submit(1)
    house.hears(Sent(1, "7"))
    assert manifests[0]["metadata"]["annotations"][MARK] == mark_of(house, 1)


@pytest.mark.parametrize("lost", [status(500, "etcd"), TimeoutError()], ids=["failed", "lost"])
def test_after_a_doubtful_answer_the_server_is_asked_whether_it_has_the_pod(world, lost):
    """It has: nothing is asked for again."""
    house = world()
    at_server(house, mark_of(house, 1))
    fail_once(house, lost)
    house.submit(1)
    house.hears(Sent(1, "7"))
    assert house.api.names("create") == ["pod-1"]


def test_after_an_answer_that_was_lost_the_same_name_is_asked_for_again(world):
    house = world()
    fail_once(house, TimeoutError())
    house.submit(1)
    house.hears(Sent(1, "7"))
    assert house.api.names("create") == ["pod-1", "pod-1"]


def test_a_failure_that_left_no_pod_is_the_jobs_own_where_a_neutral_pod_could_be_created(world):
    house = world()
    fail_once(house, status(500, "webhook"))
    house.submit(1)
    house.hears(Recovered("x"))
    assert [event.dispatch for event in house.heard if isinstance(event, Rejected)] == [1]
    assert house.api.names("create") == ["pod-1"]


def test_a_pod_that_met_others_at_the_quota_is_asked_for_again_and_blames_nobody(world):
    """As where many are created at a time in a namespace with a quota."""
    house = world()
    conflict = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'
    fail_once(house, status(409, conflict, "Conflict"))
    house.submit(1)
    house.hears(Sent(1, "7"))
    assert house.heard == [Sent(1, "7")]
    assert house.api.names("create") == ["pod-1", "pod-1"]


def test_a_pod_of_that_name_with_another_mark_is_not_taken_for_its_own(world):
    house = world()
    at_server(house, "somebody's")
    fail_once(house, TimeoutError())
    house.submit(1)
    house.hears(Rejected(1, "Another pod has this name"))


def test_what_cannot_be_built_keeps_no_other_whatever_is_raised(world):
    house = world()
    house.factory.error = InvalidTask("no template")
    house.submit(1)
    house.hears(Rejected(1, "no template"))
    house.factory.error = ValueError("oops")
    house.submit(2)
    house.hears(Recovered("x"))
    house.factory.error = None
    house.submit(3)
    house.hears(Sent(3, "7"))


def test_code_of_a_user_that_would_end_the_thread_ends_nothing(world):
    """It is rejected, and the thread goes on."""
    exits = [SystemExit(1)]

    def renew(workload: Any) -> Any:
        if exits:
            raise exits.pop()
        return workload

    house = world(renew=renew)
    house.submit(1)
    wait_until(lambda: house.hears() or [e for e in house.heard if isinstance(e, Rejected)])
    house.driver.revive()
    house.submit(2)
    house.hears(Sent(2, "7"))


def test_a_token_is_made_anew_for_a_later_request(world, monkeypatch):
    monkeypatch.setattr("airflow_dispatch_provider.engines.kubernetes._creating.FRESH", 0.0)
    renewed: list[Any] = []
    house = world(renew=lambda workload: renewed.append(workload) or workload)
    fail_once(house, TimeoutError())
    house.submit(1)
    house.hears(Sent(1, "7"))
    assert len(renewed) == 2


def test_a_server_that_answers_nothing_is_noticed(world, monkeypatch):
    monkeypatch.setattr(_driver, "HUNG_AFTER", 0.2)
    house = world()
    house.submit(1)
    house.hears(Sent(1, "7"))
    assert house.driver.problem is None
    house.api.gate.clear()
    house.submit(2)
    wait_until(lambda: "has not answered" in (house.driver.problem or ""))


def test_a_thread_that_is_stuck_in_a_users_code_is_noticed(world, monkeypatch):
    monkeypatch.setattr(_driver, "STUCK_AFTER", 0.2)
    monkeypatch.setattr(_driver, "BEAT", 0.05)
    stuck = [True]

    def renew(workload: Any) -> Any:
        wait_until(lambda: not stuck)
        return workload

    house = world(renew=renew)
    house.submit(1)
    wait_until(lambda: "is stuck" in (house.driver.problem or ""))
    stuck.clear()
    house.hears(Sent(1, "7"))


def test_requests_are_forgotten_with_their_dispatches(world):
    """Whatever becomes of them."""
    house = world()
    house.submit(1)
    house.hears(Sent(1, "7"))
    house.api.gate.clear()
    house.submit(2, 3, 4, 5, 6)
    assert house.driver.withdraw([6]) == {6}
    house.api.gate.set()
    house.hears(*(Sent(number, "7") for number in (2, 3, 4, 5)))
    assert house.driver._requests == {}


def test_what_is_asked_for_and_not_there_is_looked_for_once(world, monkeypatch):
    """However often it is asked for meanwhile."""
    monkeypatch.setattr(_search, "GRACE", 0.05)
    house = world()
    key = SimpleNamespace(id="0197a0c0-0000-7000-8000-000000000000", key="k", queued_by_job_id=3)
    house.driver.adopt([Found(1, "k", key, True)])
    house.driver.adopt([Found(1, "k", key, True)])
    wait_until(lambda: house.hears() or house.heard)
    wanted = [labels for labels in house.api.names("list") if "airflow-worker in (3,7)" in labels]
    assert len(wanted) == 2
    assert len(house.heard) == 1


# The engine around it


def engine(pieces: Callable[[], Any]) -> KubernetesEngine:
    return KubernetesEngine("x", 3, pieces, clock=time.monotonic)


def test_an_engine_that_cannot_be_started_says_so_and_returns_what_it_is_given():
    def pieces() -> Any:
        raise FileNotFoundError("no such template")

    kubernetes = engine(pieces)
    kubernetes.start("7")
    assert "no such template" in kubernetes.room().unavailable
    kubernetes.submit([Job(1, "k", None)])
    (returned,) = kubernetes.poll()
    assert isinstance(returned, Returned)
    kubernetes.forget(1)
    assert kubernetes.withdraw([1]) == kubernetes.stop(0.0) == set()
    assert "no such template" in repr(kubernetes)


@pytest.mark.parametrize(
    ("mode", "listed", "expected"),
    [
        (False, [], ("home",)),
        (True, [], (None,)),
        (True, ["a", "home"], ("a", "home")),
        # Pods that name no namespace are in that of the backend.
        (True, ["a"], ("a", "home")),
    ],
)
def test_which_namespaces_are_watched(mode, listed, expected):
    config = SimpleNamespace(
        kube_namespace="home", multi_namespace_mode=mode, multi_namespace_mode_namespace_list=listed
    )
    assert watched(config) == expected
