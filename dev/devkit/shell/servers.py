# SPDX-License-Identifier: Apache-2.0
"""The servers that ``./dev/shell`` starts beside Airflow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from devkit.environment import DevError, say, step
from devkit.servers.kube import KubeServer, executor_options
from devkit.servers.node_agent import NodeAgent, airflow_env
from devkit.servers.rabbitmq import RabbitServer, is_installed
from devkit.servers.valkey import ValkeyServer
from devkit.shell import plan as shell_plan

RABBITMQ = "DISPATCH_TEST_RABBITMQ"
PROCESSES = 2
"""Pods that the node runs at a time."""


@dataclass
class Servers:
    """The servers that run."""

    options: dict[str, dict[str, str]] = field(default_factory=dict)
    """By section of airflow.cfg."""

    variables: dict[str, str] = field(default_factory=dict)
    """By which tests find them, instead of starting their own."""


def start(stack: ExitStack, integrations: Sequence[str], folder: Path) -> Servers:
    """Start them; raises DevError, or what a server raises."""
    found, urls = Servers(), {}
    if "redis" in integrations:
        with step("Starting Valkey"):
            urls["redis"] = stack.enter_context(ValkeyServer()).url()
    if "rabbitmq" in integrations:
        urls["rabbitmq"] = found.variables[RABBITMQ] = _rabbitmq(stack)
    if urls:
        found.options["celery"] = shell_plan.celery_options(urls)
    if "kubernetes" in integrations:
        with step("Starting a Kubernetes API server"):
            server = stack.enter_context(KubeServer())
        found.variables["KUBECONFIG"] = str(server.kubeconfig())
        found.options["kubernetes_executor"] = executor_options(server.kubeconfig(), folder)
    for name, value in {**urls, **found.variables}.items():
        say(f"   {name}: {value}")
    return found


def start_node(stack: ExitStack, kubeconfig: Path, env: Mapping[str, str]) -> None:
    """Pods then run as processes with this environment."""
    stack.enter_context(NodeAgent(kubeconfig, env=airflow_env(env), processes=PROCESSES))


def _rabbitmq(stack: ExitStack) -> str:
    if given := os.environ.get(RABBITMQ):
        return given
    if not is_installed():
        raise DevError(
            f"RabbitMQ is not installed. On Debian or Ubuntu: apt-get install rabbitmq-server; or set {RABBITMQ}"
            " to the amqp:// URL of one that runs."
        )
    with step("Starting RabbitMQ"):
        return stack.enter_context(RabbitServer()).url()
