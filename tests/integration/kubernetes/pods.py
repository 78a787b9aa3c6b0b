# SPDX-License-Identifier: Apache-2.0
"""Pods as tests need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from devkit.servers.kube import KubeServer
from devkit.servers.pod_fates import ANNOTATION

Json = dict[str, Any]


def pod(name: str, command: Sequence[str] = ("true",), fate: str | None = None, **spec: Any) -> Json:
    """A manifest with the one container ``base``; ``fate`` is for the node agent."""
    return {
        "metadata": {"name": name, "annotations": {ANNOTATION: fate} if fate else {}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "base", "image": "none", "command": list(command)}],
            **spec,
        },
    }


def create(server: KubeServer, namespace: str, manifest: Mapping[str, Any], user: str = "admin") -> Json:
    return server.request("POST", f"/api/v1/namespaces/{namespace}/pods", dict(manifest), user)


def phase_is(*phases: str) -> Any:
    """A condition for ``KubeServer.wait_for_pod``."""
    return lambda pod: pod is not None and pod["status"]["phase"] in phases


def state_of(manifest: Json) -> Json:
    """The state of its first container."""
    return manifest["status"]["containerStatuses"][0]["state"]
