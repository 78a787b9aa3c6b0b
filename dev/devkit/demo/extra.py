# SPDX-License-Identifier: Apache-2.0
"""Requirements of ``./dev/demo --with ...`` beside Airflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TypeVar

from devkit.demo.layout import Layout, Options
from devkit.deployments.airflow_api import ClusterError
from devkit.deployments.airflow_cluster import AirflowCluster

S = TypeVar("S")
Servers = Callable[[Layout], AbstractContextManager[Options]]
Workers = Callable[[AirflowCluster, Layout, Options, Callable[[str], None]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Extra:
    """
    :ivar servers: run before Airflow does; give each backend's options
    :ivar workers: run what runs the tasks; call the function about once a second with what is being waited for
    """

    layout: Layout
    servers: Servers
    workers: Workers
    servers_title: str
    workers_title: str


def started(stack: ExitStack, server: AbstractContextManager[S], what: str) -> S:
    """Start it; raises ClusterError.

    :param what: it is, in words
    """
    try:
        return stack.enter_context(server)
    except RuntimeError as error:
        raise ClusterError(f"{what} could not be started: {error}") from error


def worker_env(worker: str) -> Mapping[str, str]:
    """Lets Airflow record this name as the host of all that runs there."""
    return {
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "demo_hostname.hostname",
        "DISPATCH_DEMO_WORKER": worker,
    }
