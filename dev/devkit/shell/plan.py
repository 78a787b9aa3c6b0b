# SPDX-License-Identifier: Apache-2.0
"""Which settings an executor needs on which integrations, for ``./dev/shell``. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from devkit.environment import variables_of

INTEGRATIONS = ("redis", "rabbitmq", "kubernetes")
QUEUE = "default"
"""The one that tasks have that name none, and that the Celery worker listens to."""

_OURS = "airflow_dispatch_provider.executors"
EXECUTORS = {
    "dispatch": f"{_OURS}.dispatch_executor.DispatchExecutor",
    "local": f"{_OURS}.local_executor.LocalExecutor",
    "celery": f"{_OURS}.celery_executor.CeleryExecutor",
    "kubernetes": f"{_OURS}.kubernetes_executor.KubernetesExecutor",
    "celery-kubernetes": f"{_OURS}.celery_kubernetes_executor.CeleryKubernetesExecutor",
    "local-kubernetes": f"{_OURS}.local_kubernetes_executor.LocalKubernetesExecutor",
}
"""Short names of this package's; anything else is taken for a value of ``[core] executor``."""

_SLOTS = 4


def class_path(executor: str) -> str:
    return EXECUTORS.get(executor, executor)


def integrations(executor: str, asked: Collection[str]) -> tuple[str, ...]:
    """Those that were asked for, and those that the executor cannot do without."""
    name = class_path(executor).rpartition(".")[2]
    needed = set(asked)
    if name.startswith("Celery") and not needed & {"redis", "rabbitmq"}:
        needed.add("redis")
    if "Kubernetes" in name:
        needed.add("kubernetes")
    return tuple(each for each in INTEGRATIONS if each in needed)


def first_command(executor: str) -> str:
    """To look at what was configured: only the routers have routes."""
    routers = {path for name, path in EXECUTORS.items() if name == "dispatch" or "-" in name}
    return "airflow dispatch routes" if class_path(executor) in routers else "airflow providers executors"


def settings(executor: str, options: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Airflow's settings as environment variables.

    :param options: what the integrations say, by section of airflow.cfg: ``celery``, ``kubernetes_executor``
    """
    found = {"core": {"executor": class_path(executor)}, **options}
    if executor == "dispatch":
        found["dispatch"] = dispatch(options)
    return variables_of(found)


def dispatch(options: Mapping[str, Any]) -> dict[str, str]:
    """``[dispatch]`` with a backend for each kind of executor that can run; a queue of its name leads to each."""
    kinds = {"local": "LocalExecutor"}
    kinds |= {"celery": "CeleryExecutor"} if "celery" in options else {}
    kinds |= {"kubernetes": "KubernetesExecutor"} if "kubernetes_executor" in options else {}
    targets = {name: {"backend": name, "queue": QUEUE} if name == "celery" else name for name in kinds}
    return {
        "backends": json.dumps({name: {"executor": kind, "slots": _SLOTS} for name, kind in kinds.items()}),
        "routes": json.dumps([{"queue": name, "to": [target]} for name, target in targets.items()]),
        "default": "local",
    }


def celery_options(urls: Mapping[str, str]) -> dict[str, str]:
    """``[celery]``: RabbitMQ is the broker where both are there.

    :param urls: of ``redis`` and ``rabbitmq``, as far as they are there
    """
    results = urls.get("redis", "rpc://")
    return {"broker_url": urls.get("rabbitmq") or urls["redis"], "result_backend": results}


def queues(variables: Mapping[str, str]) -> Sequence[str]:
    """Queues that the example Dag has a task for."""
    routes = json.loads(variables.get("AIRFLOW__DISPATCH__ROUTES", "[]"))
    return [route["queue"] for route in routes] or [QUEUE, "kubernetes"]
