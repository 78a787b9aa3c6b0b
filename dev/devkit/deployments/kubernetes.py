# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with two Kubernetes backends behind the router, a cluster for each, and ways to break them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil

from devkit.deployments.outages import ROUTER, Deployment, Wait
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.kube import KubeServer, executor_options, merged_kubeconfig
from devkit.servers.node_agent import NodeAgent

BACKENDS = ("near", "far")
NAMESPACE = "default"
TASKS = 100
"""Of one Dag run."""

DAG = f"""
from airflow.sdk import dag, task

@task(queue="near")
def near(index):
    pass

@task(queue="far")
def far(index):
    pass

@dag(schedule=None, catchup=False, max_active_runs=1000, max_active_tasks=1000)
def pods():
    near.expand(index=list(range({TASKS // 2})))
    far.expand(index=list(range({TASKS // 2})))

pods()
"""


def _light_python(folder: Path) -> Path:
    """Makes a folder there with the ``python`` that pods find: it runs light_task.py, whatever module is asked for."""
    light = folder / "light"
    light.mkdir()
    program, script = light / "python", Path(__file__).with_name("light_task.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {script} "$@"\n')
    program.chmod(0o755)
    return light


class ClusterDeployment(Deployment):
    """One with the clusters of ``BACKENDS``: an API server and a node each, whose pods run light_task.py in place of
    Airflow's supervisor, and a proxy between the schedulers and each API server."""

    def start_clusters(self, stack: ExitStack) -> None:
        """
        :param stack: takes them down
        """
        self.clusters = {name: stack.enter_context(KubeServer()) for name in BACKENDS}
        self.proxies = {
            name: stack.enter_context(FaultyProxy("127.0.0.1", server.port))
            for name, server in self.clusters.items()
        }
        self.agents: dict[str, NodeAgent] = {}

    def start_nodes(self, stack: ExitStack, processes: int, **env: str) -> None:
        """
        :param processes: pods that each node runs at a time
        :param env: of the pods, on top of Airflow's
        """
        home = self.airflow.home
        env = {**self.airflow.env, "PATH": str(_light_python(home)), **env}
        for name, server in self.clusters.items():
            output = home / f"node-{name}"
            output.mkdir()
            agent = NodeAgent(
                server.kubeconfig(), env=env, processes=processes, node=output.name, folder=output
            )
            self.agents[name] = stack.enter_context(agent)

    def cluster_options(self, folder: Path) -> dict[str, dict[str, str]]:
        """``[kubernetes_executor]`` of each backend; the files that they name are written there."""
        entries = {
            name: server.entry(url=self.proxies[name].url(server.url()))
            for name, server in self.clusters.items()
        }
        kubeconfig = merged_kubeconfig(folder / "kubeconfig.yaml", entries)
        common = executor_options(kubeconfig, folder, NAMESPACE, delete_worker_pods_on_failure="True")
        return {name: {**common, "cluster_context": name} for name in BACKENDS}

    def hang(self, name: str, seconds: float) -> None:
        with self.outages.note("API server hangs"):
            self.proxies[name].mode = "hang"
            self.wait(seconds)
            self.proxies[name].mode = "forward"

    def cut_connections(self, name: str, times: int) -> None:
        """Every second, all of them, watches and whatever is being asked for."""
        with self.outages.note("connections cut"):
            for _ in range(times):
                self.proxies[name].mode = "reset"
                self.proxies[name].mode = "forward"
                self.wait(1)

    def pods_left(self) -> int:
        """Pods that are still there."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        return sum(len(server.request("GET", path)["items"]) for server in self.clusters.values())


class KubeDeployment(ClusterDeployment):
    """Airflow, two API servers with a node each, and a proxy between the scheduler and each server.

    Pods run light_task.py in place of Airflow's supervisor; the task of the queue ``far`` goes far.

    :param stack: takes down what was started
    :param slots: of each backend
    :param processes: pods that each node runs at a time
    """

    def __init__(
        self,
        home: Path,
        database: str,
        settings: dict[str, str],
        stack: ExitStack,
        slots: int,
        processes: int,
        wait: Wait,
    ) -> None:
        self._stack, self._processes = stack, processes
        self.start_clusters(stack)
        home.mkdir()
        env = {
            "AIRFLOW__CORE__EXECUTOR": ROUTER,
            "AIRFLOW__DISPATCH__BACKENDS": json.dumps(self._backends(home, slots)),
            "AIRFLOW__DISPATCH__ROUTES": json.dumps([{"queue": "far", "to": ["far"]}]),
            "AIRFLOW__DISPATCH__DEFAULT": "near",
        }
        super().__init__(home, database, {**env, **settings}, "pods", DAG, wait)

    def start(self) -> None:
        self._stack.enter_context(self.airflow)
        self.start_nodes(self._stack, self._processes)

    def _backends(self, folder: Path, slots: int) -> dict[str, object]:
        return {
            name: {
                "executor": "KubernetesExecutor",
                "slots": slots,
                "config": {"kubernetes_executor": options},
            }
            for name, options in self.cluster_options(folder).items()
        }

    # What has happened

    def ended(self) -> int:
        """Pods that have been started."""
        return sum(len(agent.started) for agent in self.agents.values())

    def started(self) -> dict[str, Counter[str]]:
        """On each cluster: how many pods have been started for ``near`` and for ``far``, and any pod twice."""
        found: dict[str, Counter[str]] = {}
        for name, agent in self.agents.items():
            names = [path.split("/")[1] for path in agent.started]
            found[name] = Counter("far" if "-far-" in pod else "near" for pod in names)
            found[name]["twice"] = len(names) - len(set(names))
        return found

    def scheduler_memory(self) -> tuple[float, int]:
        """MiB (PSS) of the scheduler and its children together, and how many children there are."""
        scheduler = psutil.Process(self.airflow.pid("scheduler"))
        children = scheduler.children(recursive=True)
        return sum(process.memory_full_info().pss for process in (scheduler, *children)) / 2**20, len(
            children
        )
