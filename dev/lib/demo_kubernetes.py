# SPDX-License-Identifier: Apache-2.0
"""What ./dev/demo --with kubernetes starts beside Airflow: for each Kubernetes backend a cluster with one node."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import kube_build
from airflow_cluster import AirflowCluster, ClusterError
from demo_extra import Extra, worker_env
from demo_layout import WITH_KUBERNETES, Layout, Options
from environment import say
from kube_server import POD_TEMPLATE, KubeServer, merged_kubeconfig
from node_agent import NodeAgent

NAMESPACE = "default"
PROCESSES = 2
"""Pods that a node runs at a time, the others wait for it: each starts an Airflow of its own."""


@contextlib.contextmanager
def clusters(layout: Layout) -> Iterator[Options]:
    """An API server for each Kubernetes backend; all in one kubeconfig, each under its backend's name."""
    kube_build.programs()
    with contextlib.ExitStack() as stack:
        servers = {backend: _started(stack, backend) for backend in layout.workers}
        folder = next(iter(servers.values())).folder
        kubeconfig = merged_kubeconfig(folder / "demo.yaml", servers)
        template = folder / "pod_template.yaml"
        template.write_text(POD_TEMPLATE)
        say(
            f"   the clusters: kubectl --kubeconfig {kubeconfig} --context {' or '.join(servers)} get pods --watch"
        )
        common = {
            "in_cluster": "False",
            "config_file": str(kubeconfig),
            "namespace": NAMESPACE,
            "pod_template_file": str(template),
        }
        yield {name: {"kubernetes_executor": {**common, "cluster_context": name}} for name in servers}


@contextlib.contextmanager
def nodes(
    airflow: AirflowCluster, layout: Layout, options: Options, on_poll: Callable[[str], None]
) -> Iterator[None]:
    """A node for each cluster. There are no images: a pod is a process with this Airflow and its settings."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with contextlib.ExitStack() as stack:
        for backend, worker in layout.workers.items():
            on_poll(worker)
            kubernetes = options[backend]["kubernetes_executor"]
            stack.enter_context(
                NodeAgent(
                    Path(kubernetes["config_file"]),
                    context=kubernetes["cluster_context"],
                    env={**airflow.env, **worker_env(worker), "PATH": path},
                    processes=PROCESSES,
                    node=worker,
                )
            )
        yield


EXTRA = Extra(WITH_KUBERNETES, clusters, nodes, "two Kubernetes API servers", "a node for each cluster")


def _started(stack: contextlib.ExitStack, backend: str) -> KubeServer:
    try:
        return stack.enter_context(KubeServer())
    except RuntimeError as error:
        raise ClusterError(f"the cluster of backend {backend} could not be started: {error}") from error
