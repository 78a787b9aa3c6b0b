# SPDX-License-Identifier: Apache-2.0
"""The executor while its API server is away, hangs, is cut off, or lets it do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from faulty_proxy import FaultyProxy
from kube_server import KubeServer
from node_agent import NodeAgent
from pod_fates import EXIT, Fate

from airflow_dispatch_provider.executors import airflow_api, kubernetes_executor
from airflow_dispatch_provider.executors.kubernetes import controller, pod_api
from airflow_dispatch_provider.executors.kubernetes_executor import WAITED, KubernetesExecutor
from airflow_dispatch_provider.executors.task_instances import Stored
from airflow_dispatch_provider.testing import make_task

from .executors import JOB_ID, Events, beat_until, ended, options, started

pytestmark = pytest.mark.integration("kubernetes")

SUCCESS = TaskInstanceState.SUCCESS
USER = "scheduler"
LEAST = [
    {
        "apiGroups": [""],
        "resources": ["pods"],
        "verbs": ["create", "get", "list", "watch", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]
"""See docs/kubernetes.md."""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No database; and an executor that is as impatient as a test."""
    queued = Stored(TaskInstanceState.QUEUED.value, JOB_ID)
    monkeypatch.setattr(kubernetes_executor, "stored", lambda ids: dict.fromkeys(ids, queued))
    monkeypatch.setattr(KubernetesExecutor, "_alive_other_scheduler_job_ids", lambda self: set())
    monkeypatch.setattr(kubernetes_executor, "Timing", lambda: pod_api.Timing(call=2.0, silence=3.0))
    monkeypatch.setattr(controller, "SILENCE", 1.0)


@pytest.fixture
def namespace(own_kube: KubeServer) -> str:
    return own_kube.create_namespace()


@pytest.fixture
def agent(own_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> NodeAgent:
    """Reaches the server directly, whatever is between it and the executor."""
    return agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))


@pytest.fixture
def proxy(own_kube: KubeServer) -> Iterator[FaultyProxy]:
    with FaultyProxy("127.0.0.1", own_kube.port) as proxy:
        yield proxy


@pytest.fixture
def executor(
    own_kube: KubeServer, namespace: str, proxy: FaultyProxy, tmp_path: Path
) -> Iterator[KubernetesExecutor]:
    """With the proxy between it and the server."""
    kubeconfig = own_kube.kubeconfig(url=proxy.url(own_kube.url()))
    with started(options(kubeconfig, namespace, tmp_path), slots=200) as executor:
        yield executor


def queue(executor: Any, number: int = 1) -> list[Any]:
    tasks = [make_task() for _ in range(number)]
    for task in tasks:
        executor.queue_workload(task, None)
    return [airflow_api.workload_key(executor, task) for task in tasks]


def all_succeed_once(executor: Any, keys: list[Any], agent: NodeAgent) -> None:
    events = beat_until(executor, ended(*keys), timeout=120)
    assert {events[key][0] for key in keys} == {SUCCESS}
    assert len(agent.started) == len(set(agent.started)) == len(keys)


@pytest.mark.parametrize("mode", ["refuse", "reset", "hang"])
def test_a_server_that_is_away_costs_time_and_no_task(executor, proxy, agent, mode):
    """What is queued meanwhile waits, the user is told for what, and the health says so."""
    all_succeed_once(executor, queue(executor), agent)
    proxy.mode = mode
    keys = queue(executor, 5)
    events = beat_until(executor, lambda _: executor.health())
    assert [value[0] for value in events.values() if value[0] == TaskInstanceState.FAILED] == []
    proxy.mode = "forward"
    events = beat_until(executor, ended(*keys), timeout=120)
    assert {events[key][0] for key in keys} == {SUCCESS}
    assert len(agent.started) == len(set(agent.started)) == 6


def test_a_server_that_is_away_at_the_start_is_waited_for(own_kube, namespace, tmp_path, agent_on):
    """It is a warning, and not the end of the scheduler."""
    kubeconfig = own_kube.kubeconfig()
    own_kube.kill()
    with started(options(kubeconfig, namespace, tmp_path)) as executor:
        keys = queue(executor)
        beat_until(executor, lambda _: executor.health())
        assert [row.event for row in executor._task_event_logs] in ([], [WAITED])
        own_kube.restart()
        agent = agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
        all_succeed_once(executor, keys, agent)


def test_a_server_that_is_killed_again_and_again_loses_nothing(executor, own_kube, agent):
    """While pods are created, run, end and are deleted."""
    keys = queue(executor, 60)
    events: Events = {}
    for _ in range(3):
        goal = len([value for value in events.values() if value[0] == SUCCESS]) + 5
        events |= beat_until(
            executor,
            lambda new, goal=goal, before=dict(events): (
                len([value for value in (before | new).values() if value[0] == SUCCESS]) >= goal
                or ended(*keys)(before | new)
            ),
            timeout=120,
        )
        own_kube.kill()
        own_kube.restart()
    events |= beat_until(executor, lambda new, before=dict(events): ended(*keys)(before | new), timeout=120)
    assert {events[key][0] for key in keys} == {SUCCESS}
    assert len(agent.started) == len(set(agent.started)) == 60


def test_a_watch_that_is_cut_all_the_time_loses_no_event(executor, proxy, agent):
    """Every few kilobytes, all connections are reset; requests that were cut are repeated under their names."""
    keys = queue(executor, 30)
    events: Events = {}
    for _ in range(8):
        proxy.cut_after(20_000, "down")
        cuts = proxy.cuts
        events |= beat_until(
            executor,
            lambda new, before=dict(events), cuts=cuts: proxy.cuts > cuts or ended(*keys)(before | new),
            timeout=120,
        )
    events |= beat_until(executor, lambda new, before=dict(events): ended(*keys)(before | new), timeout=120)
    assert {events[key][0] for key in keys} == {SUCCESS}
    assert len(agent.started) == len(set(agent.started)) == 30


def test_an_answer_that_is_lost_makes_no_second_pod(executor, proxy, agent):
    """The server has created it; the name tells."""
    all_succeed_once(executor, queue(executor), agent)
    proxy.cut_after(0, "down")
    keys = queue(executor)
    events = beat_until(executor, ended(*keys), timeout=120)
    assert events[keys[0]][0] == SUCCESS
    assert len(agent.started) == len(set(agent.started)) == 2


def test_least_permissions_are_enough_and_a_missing_one_is_named(own_kube, namespace, tmp_path, agent_on):
    """Nothing fails for want of permission: it is for the operator, and not for the task."""
    agent = agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
    without_create = [{**LEAST[0], "verbs": ["get", "list", "watch", "patch", "delete"]}]
    own_kube.allow(USER, namespace, without_create)
    given = options(own_kube.kubeconfig(USER), namespace, tmp_path)
    with started(given) as executor:
        keys = queue(executor, 3)
        beat_until(executor, lambda _: "to create pods" in (executor.health() or ""))
        own_kube.allow(USER, namespace, LEAST)
        all_succeed_once(executor, keys, agent)
        beat_until(
            executor, lambda _: not own_kube.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        )


def test_expired_credentials_are_read_again(own_kube, namespace, tmp_path, agent_on):
    """A new token in the same file: no restart is needed."""
    agent = agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
    own_kube.allow(USER, namespace, LEAST)
    kubeconfig = own_kube.kubeconfig(USER)
    with started(options(kubeconfig, namespace, tmp_path)) as executor:
        all_succeed_once(executor, queue(executor), agent)
        own_kube.change_token(USER)
        own_kube.restart()
        keys = queue(executor)
        beat_until(executor, lambda _: "credentials" in (executor.health() or ""))
        kubeconfig.write_bytes(own_kube.kubeconfig(USER).read_bytes())
        events = beat_until(executor, ended(*keys), timeout=120)
        assert events[keys[0]][0] == SUCCESS
