# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with two Kubernetes backends behind the router, a cluster for each, and ways to break them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

from devkit.bench.memory import pss
from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.deployments.chaos import RUN, Beats, Outages, kill_scheduler, read_beats
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.kube import KubeServer, executor_options, merged_kubeconfig
from devkit.servers.node_agent import NodeAgent

COMPONENTS = ("api-server", "scheduler", "dag-processor")
BACKENDS = ("near", "far")
NAMESPACE = "default"
DAG_ID = "pods"
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
    near.expand(index=list(range({RUN // 2})))
    far.expand(index=list(range({RUN // 2})))

pods()
"""


class KubeDeployment:
    """Airflow, two API servers with a node each, and a proxy between the scheduler and each server.

    Pods run light_task.py in place of Airflow's supervisor; the task of the queue ``far`` goes far.

    :param stack: takes down what was started
    :param slots: of each backend
    :param processes: pods that each node runs at a time
    :param wait: called for the seconds that an outage has to last
    """

    def __init__(
        self,
        home: Path,
        database: str,
        settings: dict[str, str],
        stack: ExitStack,
        slots: int,
        processes: int,
        wait: Callable[[float], None],
    ) -> None:
        self.outages = Outages()
        self._wait, self._stack, self._processes = wait, stack, processes
        self.heartbeats, modules = home / "heartbeats", home / "modules"
        for folder in (self.heartbeats, modules):
            folder.mkdir(parents=True)
        self.servers = {name: stack.enter_context(KubeServer()) for name in BACKENDS}
        self.proxies = {
            name: stack.enter_context(FaultyProxy("127.0.0.1", server.port))
            for name, server in self.servers.items()
        }
        env = {
            "PYTHONPATH": str(modules),
            "CHAOS_HEARTBEATS": str(self.heartbeats),
            "AIRFLOW__CORE__EXECUTOR": "devkit.deployments.timed_executor.TimedDispatchExecutor",
            "AIRFLOW__DISPATCH__BACKENDS": json.dumps(self._backends(home, slots)),
            "AIRFLOW__DISPATCH__ROUTES": json.dumps([{"queue": "far", "to": ["far"]}]),
            "AIRFLOW__DISPATCH__DEFAULT": "near",
        }
        self.airflow = AirflowCluster(home, {**env, **settings}, database, COMPONENTS)
        (self.airflow.dags / "pods.py").write_text(DAG)
        self.agents: dict[str, NodeAgent] = {}

    def start(self) -> None:
        self._stack.enter_context(self.airflow)
        env = {**self.airflow.env, "PATH": str(self._light_python())}
        for name, server in self.servers.items():
            output = self.airflow.home / f"node-{name}"
            output.mkdir()
            agent = NodeAgent(
                server.kubeconfig(), env=env, processes=self._processes, node=output.name, folder=output
            )
            self.agents[name] = self._stack.enter_context(agent)

    def _backends(self, folder: Path, slots: int) -> dict[str, object]:
        entries = {
            name: server.entry(url=self.proxies[name].url(server.url()))
            for name, server in self.servers.items()
        }
        kubeconfig = merged_kubeconfig(folder / "kubeconfig.yaml", entries)
        common = executor_options(kubeconfig, folder, NAMESPACE, delete_worker_pods_on_failure="True")
        return {
            name: {
                "executor": "KubernetesExecutor",
                "slots": slots,
                "config": {"kubernetes_executor": {**common, "cluster_context": name}},
            }
            for name in BACKENDS
        }

    def _light_python(self) -> Path:
        """A folder with the ``python`` that pods find: it runs light_task.py, whatever module it is asked for."""
        folder = self.airflow.home / "light"
        folder.mkdir()
        program = folder / "python"
        script = Path(__file__).with_name("light_task.py")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {script} "$@"\n')
        program.chmod(0o755)
        return folder

    # Outages

    def kill_server(self, name: str, seconds: float) -> None:
        with self.outages.note("API server killed"):
            self.servers[name].kill()
            self._wait(seconds)
            self.servers[name].restart()

    def hang(self, name: str, seconds: float) -> None:
        with self.outages.note("API server hangs"):
            self.proxies[name].mode = "hang"
            self._wait(seconds)
            self.proxies[name].mode = "forward"

    def cut_connections(self, name: str, times: int) -> None:
        """Every second, all of them, watches and whatever is being asked for."""
        with self.outages.note("connections cut"):
            for _ in range(times):
                self.proxies[name].mode = "reset"
                self.proxies[name].mode = "forward"
                self._wait(1)

    def kill_scheduler(self, seconds: float) -> None:
        kill_scheduler(self, self._wait, seconds)

    # What has happened

    def revive(self) -> None:
        """Nothing here may end by itself."""

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

    def left(self) -> int:
        """Pods that are still there."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        return sum(len(server.request("GET", path)["items"]) for server in self.servers.values())

    def beats(self) -> list[Beats]:
        return read_beats(self.heartbeats)

    def scheduler_memory(self) -> tuple[float, int]:
        """MiB (PSS) of the scheduler and its children together, and how many children there are."""
        scheduler = psutil.Process(self.airflow.pid("scheduler"))
        children = scheduler.children(recursive=True)
        return sum(pss(process.pid) for process in (scheduler, *children)) / 2**20, len(children)
