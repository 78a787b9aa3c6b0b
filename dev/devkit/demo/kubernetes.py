# SPDX-License-Identifier: Apache-2.0
"""Servers of ./dev/demo --with kubernetes: for each Kubernetes backend a cluster with one node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from devkit.demo.extra import Extra, started, worker_env
from devkit.demo.layout import WITH_KUBERNETES, Layout, Options
from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.environment import say
from devkit.programs import kube_build
from devkit.servers.kube import KubeServer, executor_options, merged_kubeconfig
from devkit.servers.node_agent import NodeAgent, airflow_env

PROCESSES = 2
"""Pods that a node runs at a time, the others wait for it: each starts an Airflow of its own."""


@contextlib.contextmanager
def clusters(layout: Layout) -> Iterator[Options]:
    """An API server for each Kubernetes backend; all in one kubeconfig, each under its backend's name."""
    kube_build.programs()
    with contextlib.ExitStack() as stack:
        servers = {
            backend: started(stack, KubeServer(), f"the cluster of backend {backend}")
            for backend in layout.workers
        }
        folder = next(iter(servers.values())).folder
        kubeconfig = merged_kubeconfig(folder / "demo.yaml", servers)
        say(
            f"   the clusters: kubectl --kubeconfig {kubeconfig} --context {' or '.join(servers)} get pods --watch"
        )
        common = executor_options(kubeconfig, folder)
        yield {name: {"kubernetes_executor": {**common, "cluster_context": name}} for name in servers}


@contextlib.contextmanager
def nodes(
    airflow: AirflowCluster, layout: Layout, options: Options, on_poll: Callable[[str], None]
) -> Iterator[None]:
    """A node for each cluster. There are no images: a pod is a process with this Airflow and its settings."""
    with contextlib.ExitStack() as stack:
        for backend, worker in layout.workers.items():
            on_poll(worker)
            kubernetes = options[backend]["kubernetes_executor"]
            stack.enter_context(
                NodeAgent(
                    Path(kubernetes["config_file"]),
                    context=kubernetes["cluster_context"],
                    env=airflow_env({**airflow.env, **worker_env(worker)}),
                    processes=PROCESSES,
                    node=worker,
                )
            )
        yield


EXTRA = Extra(WITH_KUBERNETES, clusters, nodes, "two Kubernetes API servers", "a node for each cluster")
