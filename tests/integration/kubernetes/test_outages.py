# SPDX-License-Identifier: Apache-2.0
"""The executor while its API server is away, hangs, is cut off, or lets it do nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.utils.state import TaskInstanceState
from faulty_proxy import FaultyProxy
from kube_server import KubeServer, merged_kubeconfig
from node_agent import NodeAgent
from pod_fates import EXIT, Fate

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes import controller, pod_api
from airflow_dispatch_provider.executors import kubernetes_executor
from airflow_dispatch_provider.executors.kubernetes_executor import WAITED, KubernetesExecutor
from airflow_dispatch_provider.testing import make_task

from .executors import JOB_ID, Events, Orphan, beat_until, ended, options, started

pytestmark = pytest.mark.integration("kubernetes")

SUCCESS = TaskInstanceState.SUCCESS
USER = "scheduler"
DOCS = Path(__file__).parents[3] / "docs" / "kubernetes.md"


def documented() -> list[dict[str, Any]]:
    """The objects that the documentation has the user create."""
    (text,) = re.findall(r"<!-- manifest -->\n```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return list(yaml.safe_load_all(text))


def least() -> list[dict[str, Any]]:
    """The rules of their role."""
    (rules,) = (manifest["rules"] for manifest in documented() if manifest["kind"] == "Role")
    return list(rules)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No database; and an executor that is as impatient as a test."""
    queued = Stored(TaskInstanceState.QUEUED.value, JOB_ID)
    monkeypatch.setattr(kubernetes_executor, "stored", lambda ids: dict.fromkeys(ids, queued))
    monkeypatch.setattr(KubernetesExecutor, "_alive_other_scheduler_job_ids", lambda self: set())
    monkeypatch.setattr(kubernetes_executor, "Timing", lambda: pod_api.Timing(call=2.0, silence=3.0))
    monkeypatch.setattr(controller, "HUNG_AFTER", 1.0)


@pytest.fixture
def namespace(own_kube: KubeServer) -> str:
    return own_kube.create_namespace()


@pytest.fixture
def agent(own_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> NodeAgent:
    """Reaches the server directly, whatever is between it and the executor."""
    return agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))


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
    """A task that is queued meanwhile waits, the user is told for what, and the health says so."""
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


def test_what_runs_is_adopted_when_the_server_answers_again(
    own_kube, namespace, proxy, tmp_path, agent_on, monkeypatch
):
    """It was asked before, and nobody knows what has become of that: no task counts as vanished."""
    tasks = [make_task() for _ in range(3)]
    with started(options(own_kube.kubeconfig(), namespace, tmp_path)) as first:
        for task in tasks:
            first.queue_workload(task, None)
        beat_until(first, lambda events: len(events) == 3)
    running = Stored(TaskInstanceState.RUNNING.value, JOB_ID + 2)
    monkeypatch.setattr(kubernetes_executor, "stored", lambda ids: dict.fromkeys(ids, running))
    given = options(own_kube.kubeconfig(url=proxy.url(own_kube.url())), namespace, tmp_path)
    proxy.mode = "hang"
    with started(given, job_id=JOB_ID + 2) as heir:
        keys = [airflow_api.workload_key(heir, task) for task in tasks]
        orphans = [Orphan(task, TaskInstanceState.RUNNING) for task in tasks]
        assert list(heir.try_adopt_task_instances(orphans)) == []
        proxy.mode = "forward"
        agent = agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
        all_succeed_once(heir, keys, agent)


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
    for _ in range(5):
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


def test_the_documented_manifest_is_enough(own_kube, tmp_path, agent_on):
    """As it stands: pods are created, watched and deleted with it, and nothing else is asked for."""
    namespace = "airflow"
    own_kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    for manifest in documented():
        own_kube.apply(manifest)
    agent = agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
    entry = own_kube.account_entry(namespace, "airflow-scheduler")
    kubeconfig = merged_kubeconfig(tmp_path / "kubeconfig.yaml", {"least": entry})
    with started(options(kubeconfig, namespace, tmp_path)) as executor:
        all_succeed_once(executor, queue(executor, 3), agent)
        beat_until(
            executor, lambda _: not own_kube.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        )
        assert executor.health() is None


@pytest.mark.parametrize("verb", ["create", "list", "watch", "delete"])
def test_a_missing_permission_is_named_and_fails_nothing(own_kube, namespace, tmp_path, agent_on, verb):
    """It is for the operator, and not for the task."""
    agent = agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
    pods, *others = least()
    own_kube.allow(USER, namespace, [{**pods, "verbs": [v for v in pods["verbs"] if v != verb]}, *others])
    given = options(own_kube.kubeconfig(USER), namespace, tmp_path)
    with started(given) as executor:
        keys = queue(executor, 3)
        events = beat_until(executor, lambda _: f"to {verb} pods" in (trouble_of(executor) or ""))
        assert [value[0] for value in events.values() if value[0] == TaskInstanceState.FAILED] == []
        own_kube.allow(USER, namespace, least())
        events |= beat_until(executor, lambda new: ended(*keys)(events | new), timeout=120)
        assert {events[key][0] for key in keys} == {SUCCESS}
        assert len(agent.started) == len(set(agent.started)) == len(keys)


def trouble_of(executor: KubernetesExecutor) -> str | None:
    """The trouble is told, also where new pods can be created all the same."""
    return executor.health() or executor._controller._finisher.trouble.reason


def test_expired_credentials_are_read_again(own_kube, namespace, tmp_path, agent_on):
    """A new token in the same file: no restart is needed."""
    agent = agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
    own_kube.allow(USER, namespace, least())
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
