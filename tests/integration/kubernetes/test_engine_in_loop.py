# SPDX-License-Identifier: Apache-2.0
"""The engine under the dispatch loop, beside a second backend that always has room: what a Dag's author would see."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wait_until
from unit.dispatch.loop_house import FINISHED, Clerk, Surface
from unit.lifecycle.builders import route, settings

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.engines.kubernetes.engine import KubernetesEngine
from airflow_dispatch_provider.engines.kubernetes.pod_api import Timing
from airflow_dispatch_provider.lifecycle.events import BackendRules, Offered, Queued
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Row, RowState, State
from airflow_dispatch_provider.testing import InMemoryExecutor, make_task
from devkit.servers.kube import KubeServer
from devkit.servers.node_agent import NodeAgent
from devkit.servers.pod_fates import EXIT, IMAGE_PULL_ERROR, Fate

from .engines import HEIR, JOB_ID, pieces, pods_of, row_of
from .executors import options
from .troubles import task_with

pytestmark = [pytest.mark.integration("kubernetes"), pytest.mark.recent]


class House:
    """Backend ``kubernetes``, and an in-memory one ``b``."""

    def __init__(self, given: dict[str, Any], *routes: Any, scheduler_id: int = JOB_ID) -> None:
        self.kubernetes = KubernetesEngine("kubernetes", 1000, lambda: pieces(given), Timing(call=2.0))
        self.other = InMemoryExecutor(parallelism=1000)
        self.clerk, self.buffer = Clerk(), {}
        self.told: dict[Any, list[str]] = {}
        self.loop = Loop(
            Machine(
                settings(
                    *routes,
                    rules={"kubernetes": BackendRules(max_delay=2.0)},
                    look_every=0.2,
                    look_again=0.1,
                    launch_delay=0.1,
                    launch_delay_max=0.5,
                )
            ),
            {"kubernetes": self.kubernetes, "b": ForeignEngine("b", lambda: self.other, 1000)},
            self.clerk,
            Surface(),
        )
        self.loop.start(str(scheduler_id), time.monotonic())

    def queue(self, *tasks: Any) -> list[Any]:
        """Their keys. The namespace of each is its lane."""
        keys = [airflow_api.workload_key(self.other, task) for task in tasks]
        for key, task in zip(keys, tasks, strict=True):
            lanes = {"kubernetes": self.kubernetes.lane(task)}
            queued = Queued(key, task_ref(task), priority_of(task), task, lanes, subject=task.ti)
            self.loop.tell(time.monotonic(), queued)
        return keys

    def beat(self) -> House:
        self.loop.heartbeat(time.monotonic(), self.buffer)
        for key, value in self.buffer.items():
            self.told.setdefault(key, []).append(str(value[0]))
        self.buffer.clear()
        return self

    def runs(self, pod: Any) -> Fate:
        """It lets its task begin, which has finished by the time at which it ends."""
        self.clerk.others = FINISHED
        return Fate(EXIT)

    def until(self, keys: list[Any], state: State) -> None:
        wait_until(lambda: self.beat() and all(self.state(key) is state for key in keys), 120)

    def state(self, key: Any) -> State:
        return self.loop.machine.state(key)

    def words(self, key: Any) -> list[str]:
        return [step.words for step in self.loop.machine.story(key)]

    @property
    def failed(self) -> list[Any]:
        return [key for key, values in self.told.items() if "failed" in values]


@pytest.fixture
def house() -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(*args: Any, **more: Any) -> House:
        made.append(House(*args, **more))
        return made[-1]

    yield make
    for each in made:
        each.kubernetes.stop(time.monotonic() + 5)


@pytest.fixture
def namespace(shared_kube: KubeServer) -> str:
    return shared_kube.create_namespace()


@pytest.fixture
def given(shared_kube: KubeServer, namespace: str, tmp_path: Path) -> dict[str, Any]:
    return options(shared_kube.kubeconfig(), namespace, tmp_path)


def node_in(agent_on: Any, server: KubeServer, *namespaces: str, decide: Any = None) -> NodeAgent:
    return agent_on(server, namespaces=namespaces, processes=0, decide=decide or (lambda pod: Fate(EXIT)))


def test_a_full_namespace_overflows_and_the_others_go_on(shared_kube, namespace, given, house, agent_on):
    other = shared_kube.create_namespace()
    listed = {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": f"{namespace},{other}"}
    own = house({**given, **listed}, route("over", "kubernetes", "b"), route("*", "kubernetes"))
    shared_kube.set_quota(namespace, pods=3)
    overflowing = own.queue(*(make_task(queue="over") for _ in range(10)))
    own.until(overflowing, State.SENT)
    assert len(own.other.given) == 7
    waiting = own.queue(*(make_task(queue="wait") for _ in range(3)))
    own.until(own.queue(*(task_with(namespace=other) for _ in range(5))), State.SENT)
    assert {own.state(key) for key in waiting} == {State.HELD}
    shared_kube.set_quota(namespace, pods=100)
    own.until(waiting, State.SENT)
    assert own.failed == []


def test_requests_about_pods_are_measured(shared_kube, namespace, given, house, agent_on):
    """As the API server has answered them: pods that were created, and deleted once they were over."""
    own = house(given, route("*", "kubernetes"))
    node_in(agent_on, shared_kube, namespace, decide=own.runs)
    own.until(own.queue(*(make_task() for _ in range(3))), State.ENDED)
    counts = Counter()

    def deleted():
        counts.update(own.beat().kubernetes.take_measured().counts)
        return counts["kubernetes_executor.pod_deletion_status", "200"] == 3

    wait_until(deleted, 60)
    assert counts["kubernetes_executor.pod_creation_status", "200"] == 3
    # A deletion that is asked for again, since the watch has not told of it yet, finds no pod.
    counts.pop(("kubernetes_executor.pod_deletion_status", "404"), None)
    assert {status for _, status in counts} == {"200"}


def test_a_server_that_is_away_sends_all_to_the_next_target_and_is_used_again(
    own_kube, tmp_path, house, agent_on
):
    namespace = own_kube.create_namespace()
    given = options(own_kube.kubeconfig(), namespace, tmp_path)
    own = house(given, route("*", "kubernetes", "b"))
    own.until(own.queue(*(make_task() for _ in range(5))), State.SENT)
    own_kube.kill()
    wait_until(lambda: own.beat() and own.kubernetes.room().unavailable)
    during = own.queue(*(make_task() for _ in range(20)))
    own.until(during, State.SENT)
    assert len(own.other.given) == 20
    own_kube.restart()
    wait_until(lambda: own.beat() and own.kubernetes.room().unavailable is None)
    wait_until(lambda: own.beat() and str(own.loop.machine.circuit("kubernetes")) == "closed")
    own.until(own.queue(*(make_task() for _ in range(5))), State.SENT)
    assert (len(own.other.given), len(pods_of(own_kube, namespace))) == (20, 10)
    assert own.failed == []


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(
            Fate(IMAGE_PULL_ERROR),
            {"worker_pod_pending_fatal_container_state_reasons": "ErrImagePull"},
            id="has no image",
        ),
        pytest.param(Fate(EXIT), {}, id="ends well, and its image has started something else"),
    ],
)
def test_a_pod_that_never_began_its_task_is_made_again_and_costs_no_try(
    first, more, shared_kube, namespace, given, house, agent_on
):
    """The database says that it is queued; the second pod lets it begin."""
    fates = iter([first])
    own = house({**given, **more}, route("*", "kubernetes"))
    node_in(agent_on, shared_kube, namespace, decide=lambda pod: next(fates, None) or own.runs(pod))
    (key,) = own.queue(make_task())
    own.until([key], State.ENDED)
    assert own.told[key][-1] == "success"
    assert "had not begun: it will be launched again" in own.words(key)
    assert own.failed == []
    assert own.loop.machine.slots_used["kubernetes"] == 0


def test_a_pod_that_is_deleted_while_it_waits_is_made_again(shared_kube, namespace, given, house, agent_on):
    own = house(given, route("*", "kubernetes"))
    (key,) = own.queue(make_task())
    own.until([key], State.SENT)
    (pod,) = pods_of(shared_kube, namespace)
    shared_kube.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")
    node_in(agent_on, shared_kube, namespace, decide=own.runs)
    own.until([key], State.ENDED)
    assert own.told[key][-1] == "success"
    assert own.failed == []


def test_a_deferred_task_that_comes_back_waits_for_its_first_half_and_keeps_no_slot(
    shared_kube, namespace, given, house, agent_on
):
    own = house(given, route("*", "kubernetes"))
    task = make_task()
    (key,) = own.queue(task)
    own.until([key], State.SENT)
    own.queue(task)
    node_in(agent_on, shared_kube, namespace, decide=own.runs)
    wait_until(lambda: own.beat() and len(own.told.get(key, ())) and own.state(key) is State.ENDED)
    wait_until(lambda: own.beat() and own.loop.machine.slots_used["kubernetes"] == 0)
    wait_until(lambda: own.beat() and own.told[key][-1] == "success")
    wait_until(lambda: not pods_of(shared_kube, namespace))


def test_the_tasks_of_a_dead_scheduler(shared_kube, namespace, given, house, agent_on):
    """Those with a pod are adopted; one without is set back, the same try; one that runs elsewhere is left alone."""
    dead = house(given, route("*", "kubernetes"))
    running, waiting = make_task(), make_task()
    dead.until(dead.queue(running, waiting), State.SENT)
    heir = house(given, route("*", "kubernetes"), scheduler_id=HEIR)
    wait_until(lambda: heir.beat() and heir.kubernetes.room().unavailable is None)
    for key, task, runs in (
        ("running", running, True),
        ("waiting", waiting, False),
        ("lost", make_task(), False),
        ("elsewhere", make_task(), True),
    ):
        heir.clerk.rows[key] = Row(RowState.RUNNING if runs else RowState.QUEUED)
        subject = row_of(task, JOB_ID)
        offered = Offered(key, task_ref(task), runs, evidence="kubernetes", subject=subject)
        heir.loop.offer(offered, time.monotonic())
    heir.until(["running"], State.RUNNING)
    heir.until(["waiting"], State.SENT)
    wait_until(lambda: heir.beat() and heir.clerk.returned)
    heir.until(["lost"], State.ENDED)
    heir.until(["elsewhere"], State.UNCLEAR)
    assert heir.clerk.returned == ["lost"]
    heir.clerk.rows.update(dict.fromkeys(("running", "waiting"), Row(RowState.OVER)))
    node_in(agent_on, shared_kube, namespace)
    heir.until(["running", "waiting"], State.ENDED)
    assert heir.told == {}
    assert heir.loop.machine.slots_used["kubernetes"] == 0


def test_what_is_over_in_airflow_keeps_neither_slot_nor_pod(shared_kube, namespace, given, house):
    """Its pod waits for a node for ever."""
    own = house(given, route("*", "kubernetes"))
    (key,) = own.queue(make_task())
    own.until([key], State.SENT)
    own.clerk.rows[key] = Row(RowState.OVER)
    own.until([key], State.ENDED)
    assert own.loop.machine.slots_used["kubernetes"] == 0
    wait_until(lambda: not pods_of(shared_kube, namespace))


def test_a_revoked_task_leaves_no_pod_and_its_slot_is_free(shared_kube, namespace, given, house):
    own = house(given, route("*", "kubernetes"))
    (key,) = own.queue(make_task())
    own.until([key], State.SENT)
    assert own.loop.revoke(key, time.monotonic())
    wait_until(lambda: own.beat() and own.loop.machine.slots_used["kubernetes"] == 0)
    assert pods_of(shared_kube, namespace) == []
    assert own.failed == []
