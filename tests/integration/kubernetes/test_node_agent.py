# SPDX-License-Identifier: Apache-2.0
"""The node agent does with pods what a scheduler and a kubelet do, as far as executors can see."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from devkit.environment import DEV
from devkit.servers import pod_fates
from devkit.servers.kube import KubeServer
from devkit.servers.node_agent import NodeAgent
from devkit.servers.pod_fates import EXIT, Fate

from .pods import create, phase_is, pod, state_of

pytestmark = pytest.mark.integration("kubernetes")

Json = dict[str, Any]
LONG = ("sleep", "600")


class World:
    """A namespace of its own, on a server whose pods an agent runs."""

    def __init__(self, server: KubeServer, agent: NodeAgent) -> None:
        self.server = server
        self.agent = agent
        self.namespace = server.create_namespace()

    def create(self, *args: Any, **options: Any) -> None:
        create(self.server, self.namespace, pod(*args, **options))

    def wait(self, name: str, condition: Callable[[Json | None], object]) -> Json:
        return self.server.wait_for_pod(self.namespace, name, condition) or {}

    def delete(self, name: str, **options: Any) -> Json:
        return self.server.request("DELETE", self.path(name), options)

    def path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{name}".rstrip("/")


@pytest.fixture(scope="module")
def agent(shared_kube: KubeServer) -> Iterator[NodeAgent]:
    with NodeAgent(shared_kube.kubeconfig(), processes=3) as agent:
        yield agent


@pytest.fixture
def world(shared_kube: KubeServer, agent: NodeAgent) -> World:
    return World(shared_kube, agent)


def test_a_command_runs_with_the_environment_of_its_pod(world: World) -> None:
    """Literal values and fields of the pod are set, its exit code is reported, and the API has its log."""
    show = 'echo "$GREETING $NAME $NODE $APP"'
    container = {
        "name": "base",
        "image": "none",
        "command": ["sh", "-c"],
        "args": [show],
        "env": [
            {"name": "GREETING", "value": "hello"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['app']"}}},
        ],
    }
    manifest = pod("one", containers=[container])
    manifest["metadata"]["annotations"]["app"] = "tests"
    create(world.server, world.namespace, manifest)
    ended = world.wait("one", phase_is("Succeeded", "Failed"))
    assert state_of(ended)["terminated"]["exitCode"] == 0
    log = world.server.request("GET", f"{world.path('one')}/log?container=base&tailLines=1")["text"]
    assert log == "hello one test-node tests\n" == world.agent.log(world.namespace, "one")


def test_the_phases_are_reported_one_by_one(world: World, tmp_path: Path) -> None:
    """A watcher sees Pending, Running and Failed with the exit code, each once and never backwards."""
    go = tmp_path / "go"
    world.create("one", ["sh", "-c", f"{until_there(go)}; exit 3"])
    phases = []
    for event in world.server.watch(world.path(), "0"):
        go.touch()  # the watcher has begun
        phase = event["object"]["status"]["phase"]
        if phases[-1:] != [phase]:
            phases.append(phase)
        if phase == "Failed":
            break
    assert phases[-2:] == ["Running", "Failed"]
    assert phases[:-2] in ([], ["Pending"])
    assert state_of(event["object"])["terminated"]["exitCode"] == 3


def test_a_followed_log_ends_with_the_pod(world: World, tmp_path: Path) -> None:
    """A line that is written after the request is in the answer."""
    go = tmp_path / "go"
    world.create("one", ["sh", "-c", f"echo first; {until_there(go)}; echo last"])
    world.wait("one", phase_is("Running"))
    lines = world.server.lines(f"{world.path('one')}/log?follow=true")
    assert next(lines) == "first\n"
    go.touch()
    assert list(lines) == ["last\n"]


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("trap 'exit 7' TERM; echo up; while true; do sleep 0.05; done", 7),
        ("trap '' TERM; echo up; while true; do sleep 0.05; done", 137),
    ],
    ids=["ends by itself", "has to be killed"],
)
def test_a_deleted_pod_has_its_grace_and_goes(world: World, script: str, exit_code: int) -> None:
    """SIGTERM, SIGKILL after the grace period, a terminal status, and only then is the object gone."""
    world.create("one", ["sh", "-c", script])
    world.wait("one", phase_is("Running"))
    version = world.delete("one", gracePeriodSeconds=1)["metadata"]["resourceVersion"]
    events = []
    for event in world.server.watch(world.path(), version):
        events.append(event)
        if event["type"] == "DELETED":
            break
    assert state_of(events[-1]["object"])["terminated"]["exitCode"] == exit_code
    assert phase_is("Failed")(events[0]["object"])


def test_a_pod_deleted_by_force_leaves_no_process(world: World) -> None:
    """The object is gone at once, and its process is killed."""
    world.create("one", ["sh", "-c", "echo $$; exec sleep 600"])
    world.wait("one", phase_is("Running"))
    pid = int(next(world.server.lines(f"{world.path('one')}/log?follow=true")))
    world.delete("one", gracePeriodSeconds=0)
    world.wait("one", is_gone)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(30)


@pytest.mark.parametrize(
    ("fate", "expected"),
    [
        (pod_fates.IMAGE_PULL_ERROR, {"phase": "Pending", "waiting": "ImagePullBackOff", "bound": True}),
        (pod_fates.UNSCHEDULABLE, {"phase": "Pending", "scheduled": "Unschedulable"}),
        (pod_fates.OOM_KILLED, {"phase": "Failed", "terminated": (137, "OOMKilled"), "bound": True}),
        (
            pod_fates.EVICTED,
            {"phase": "Failed", "reason": "Evicted", "terminated": (137, "Error"), "bound": True},
        ),
        (pod_fates.NODE_LOST, {"phase": "Running", "reason": "NodeLost", "bound": True, "deleted": True}),
    ],
)
def test_what_befalls_a_pod(world: World, fate: str, expected: Json) -> None:
    """Each failure on demand shows in the status where a kubelet or scheduler would write it, and stays."""
    world.create("one", LONG, fate)
    world.wait("one", lambda manifest: manifest and expected.items() <= summary(manifest).items())
    world.delete("one", gracePeriodSeconds=0)
    world.wait("one", is_gone)


def test_a_preempted_pod_is_deleted(world: World) -> None:
    """The reason is in its conditions before it ends, and then it is gone."""
    world.create("one", LONG, pod_fates.PREEMPTED)
    world.wait("one", lambda manifest: manifest and "PreemptionByScheduler" in reasons(manifest))
    world.wait("one", is_gone)


def test_no_more_processes_than_allowed(world: World) -> None:
    """Pods beyond the bound wait as Pending and run later, each once."""
    names = [f"p{number}" for number in range(9)]
    for name in names:
        world.create(name, ["sleep", "0.1"])
    for name in names:
        world.wait(name, phase_is("Succeeded"))
    assert world.agent.peak <= 3
    started = [each for each in world.agent.started if each.startswith(f"{world.namespace}/")]
    assert sorted(started) == [f"{world.namespace}/{name}" for name in names]


def test_pods_outlive_the_api_server(
    own_kube: KubeServer, agent_on: Callable[..., NodeAgent], tmp_path: Path
) -> None:
    """A pod that ends while the server is down is reported when it is back, and none is run twice."""
    agent = agent_on(own_kube, decide=lambda manifest: Fate(EXIT, after=0.2) if is_idle(manifest) else Fate())
    world, go = World(own_kube, agent), tmp_path / "go"
    world.create("busy", ["sh", "-c", until_there(go)])
    world.wait("busy", phase_is("Running"))
    idle = [f"idle-{number}" for number in range(30)]
    for name in idle:
        world.create(name)
    own_kube.kill()
    go.touch()
    own_kube.restart()
    for name in ("busy", *idle):
        assert state_of(world.wait(name, phase_is("Succeeded")))["terminated"]["exitCode"] == 0
    assert sorted(agent.started) == sorted(f"{world.namespace}/{name}" for name in ("busy", *idle))


def test_a_callback_decides_without_processes(
    own_kube: KubeServer, agent_on: Callable[..., NodeAgent]
) -> None:
    """Hundreds of pods end as it says, in the agent's namespaces only."""
    fates = {"good": Fate(EXIT), "bad": Fate(EXIT, exit_code=5, after=0.05)}
    mine, other = own_kube.create_namespace(), own_kube.create_namespace()
    agent = agent_on(
        own_kube, namespaces=[mine], decide=lambda manifest: fates[manifest["metadata"]["name"][:-3]]
    )
    create(own_kube, other, pod("good000"))
    names = [f"{kind}{number:03}" for number in range(100) for kind in fates]
    for name in names:
        create(own_kube, mine, pod(name))
    ended: dict[str, tuple[str, int]] = {}
    for event in own_kube.watch(f"/api/v1/namespaces/{mine}/pods", "0"):
        manifest = event["object"]
        if phase_is("Succeeded", "Failed")(manifest):
            code = state_of(manifest)["terminated"]["exitCode"]
            ended[manifest["metadata"]["name"]] = (manifest["status"]["phase"], code)
        if len(ended) == len(names):
            break
    assert ended == {name: ("Failed", 5) if name.startswith("bad") else ("Succeeded", 0) for name in names}
    assert sorted(agent.started) == sorted(f"{mine}/{name}" for name in names)
    assert agent.peak == 0
    assert own_kube.wait_for_pod(other, "good000", phase_is("Pending"))


def test_as_a_program(own_kube: KubeServer, tmp_path: Path) -> None:
    """It says when it is ready, gives its variables to the pods, and ends with SIGTERM."""
    command = [sys.executable, str(DEV), "node-agent", "--kubeconfig", str(own_kube.kubeconfig())]
    options = ["--env", "PATH=/usr/bin:/bin", "--env", "CODE=4", "--folder", str(tmp_path)]
    namespace = own_kube.create_namespace()
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            create(own_kube, namespace, pod("one", ["sh", "-c", "exit $CODE"]))
            ended = own_kube.wait_for_pod(namespace, "one", phase_is("Failed"))
            assert ended is not None
            assert state_of(ended)["terminated"]["exitCode"] == 4
        finally:
            process.terminate()
        assert process.wait(30) == 0


def until_there(path: Path) -> str:
    return f"until [ -e {path} ]; do sleep 0.05; done"


def is_gone(manifest: Json | None) -> bool:
    return manifest is None


def is_idle(manifest: Json) -> bool:
    return manifest["metadata"]["name"].startswith("idle")


def reasons(manifest: Json) -> set[str]:
    return {each.get("reason", "") for each in manifest["status"].get("conditions", ())}


def summary(manifest: Json) -> Json:
    """Where executors look for what is wrong with a pod."""
    status = manifest["status"]
    state = state_of(manifest) if status.get("containerStatuses") else {}
    scheduled = [
        each.get("reason") for each in status.get("conditions", ()) if each["type"] == "PodScheduled"
    ]
    terminated = state.get("terminated", {})
    return {
        "phase": status["phase"],
        "reason": status.get("reason"),
        "scheduled": scheduled[0] if scheduled else None,
        "waiting": state.get("waiting", {}).get("reason"),
        "terminated": (terminated.get("exitCode"), terminated.get("reason")),
        "bound": "nodeName" in manifest["spec"],
        "deleted": "deletionTimestamp" in manifest["metadata"],
    }
