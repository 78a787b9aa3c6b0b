# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support import require

from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.kube import Cluster, ForeignCluster, KubeServer, kube_build
from devkit.servers.node_agent import NodeAgent

KUBECONFIG = "KUBECONFIG"


@pytest.fixture(scope="module")
def kube(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that the tests of a module share, and leave running; the one of $KUBECONFIG if set."""
    if not (kubeconfig := os.environ.get(KUBECONFIG)):
        yield request.getfixturevalue("shared_kube")
        return
    cluster = ForeignCluster(kubeconfig)
    yield cluster
    cluster.delete_namespaces()


@pytest.fixture(scope="module")
def shared_kube() -> Iterator[KubeServer]:
    """An API server of ours that the tests of a module share, and leave running; it has no nodes."""
    _require_kube()
    with KubeServer() as server:
        yield server


@pytest.fixture
def own_kube() -> Iterator[KubeServer]:
    """An API server that a test may kill; its data outlive it."""
    _require_kube()
    with KubeServer() as server:
        yield server


@pytest.fixture
def proxy(own_kube: KubeServer) -> Iterator[FaultyProxy]:
    """Between a test and the server that it may kill."""
    with FaultyProxy("127.0.0.1", own_kube.port) as proxy:
        yield proxy


@pytest.fixture
def agent_on() -> Iterator[Callable[..., NodeAgent]]:
    """Starts node agents, each with a server and the parameters of ``NodeAgent``."""
    with ExitStack() as stack:

        def start(server: KubeServer, **options: Any) -> NodeAgent:
            return stack.enter_context(NodeAgent(server.kubeconfig(), **options))

        yield start


def _require_kube() -> None:
    require(kube_build.can_provide(), f"there is no Kubernetes API server: {kube_build.ADVICE}")
