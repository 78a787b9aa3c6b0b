# SPDX-License-Identifier: Apache-2.0
"""Tasks whose pods have trouble of their own with a real API server."""

from __future__ import annotations

from typing import Any

from kubernetes.client import models as k8s

from airflow_dispatch_provider.testing import make_task
from devkit.servers.kube import KubeServer

_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


def task_with(namespace: str | None = None, labels: Any = None, **container: Any) -> Any:
    """A task whose pod_override says that."""
    metadata = k8s.V1ObjectMeta(namespace=namespace, labels=labels)
    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base", **container)])
    return make_task(executor_config={"pod_override": k8s.V1Pod(metadata=metadata, spec=spec)})


def cpu(amount: str) -> Any:
    return task_with(resources=k8s.V1ResourceRequirements(requests={"cpu": amount}))


def set_quota(server: KubeServer, namespace: str, **hard: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    server.request("POST", path, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    server.request("PATCH", f"{path}/q/status", {"status": status})


def break_webhook_for(server: KubeServer, namespace: str, **labels: str) -> None:
    """Pods with these labels are answered with HTTP 500: their webhook does not answer."""
    webhook = {
        "name": "inject.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        ],
        "objectSelector": {"matchLabels": labels},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    server.request("POST", _WEBHOOKS, {"metadata": {"name": namespace}, "webhooks": [webhook]})


def mend_webhook_for(server: KubeServer, namespace: str) -> None:
    server.request("DELETE", f"{_WEBHOOKS}/{namespace}")


TROUBLES = {
    "more than the whole quota": lambda: cpu("8"),
    "too large for etcd": lambda: task_with(env=[k8s.V1EnvVar(name="X", value="x" * 1_700_000)]),
    "its webhook does not answer": lambda: task_with(labels={"inject": "yes"}),
    "a namespace that is not there": lambda: task_with(namespace="nowhere"),
    "a path for a namespace": lambda: task_with(namespace="kube-system/pods?x="),
    "an invalid name": lambda: make_task(
        executor_config={"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(name="No_Name"))}
    ),
}
