# SPDX-License-Identifier: Apache-2.0
"""Settings of ready-made routers, as a user would write them under ``[dispatch]``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from typing import Any

KUBERNETES = "kubernetes"
"""Name of the backend that runs the tasks of ``kubernetes_queue``."""

DEFAULT_KUBERNETES_QUEUE = "kubernetes"
"""As in the Celery and the Kubernetes provider, which declare the options."""


@dataclass(frozen=True)
class Hybrid:
    """An executor of Airflow 2 that ran one queue on Kubernetes and everything else elsewhere."""

    section: str
    """Where its ``kubernetes_queue`` stands."""

    backend: str
    """Name of the backend that runs everything else."""

    executor: str
    """Executor of that backend."""


CELERY_KUBERNETES = Hybrid("celery_kubernetes_executor", "celery", "CeleryExecutor")
LOCAL_KUBERNETES = Hybrid("local_kubernetes_executor", "local", "LocalExecutor")


def preset(hybrid: Hybrid, kubernetes_queue: str, parallelism: int) -> dict[str, Any]:
    """``backends``, ``routes`` and ``default`` of a hybrid.

    :param kubernetes_queue: the exact name of a queue; empty: no queue goes to Kubernetes by this option
    :param parallelism: the slots of each backend, as ``[core] parallelism`` was that of each executor in Airflow 2
    """
    executors = {hybrid.backend: hybrid.executor, KUBERNETES: "KubernetesExecutor"}
    route = {"queue": escape(kubernetes_queue), "to": [KUBERNETES]}
    return {
        "backends": {name: {"executor": path, "slots": parallelism} for name, path in executors.items()},
        "routes": [route] if kubernetes_queue else [],
        "default": hybrid.backend,
    }


def completed(given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings, completed by a preset.

    A backend takes from the preset the keys that were not given for it. The preset's routes come last, without
    those whose queue was given a route for every Dag. A value that is no object or list is left for the parser
    to complain about.
    """
    return {
        **given,
        "backends": _backends(given.get("backends", {}), preset["backends"]),
        "routes": _routes(given.get("routes", []), preset["routes"]),
        "default": given.get("default", preset["default"]),
    }


def without_own_slots(given: Mapping[str, Any], preset: Mapping[str, Any]) -> frozenset[str]:
    """Names of the preset's backends for which no ``slots`` were given."""
    backends = _object(given.get("backends"))
    return frozenset(name for name in preset["backends"] if "slots" not in _object(backends.get(name)))


def _backends(given: Any, preset: Mapping[str, Any]) -> Any:
    if not isinstance(given, dict):
        return given
    return {
        **preset,
        **{
            name: {**preset.get(name, {}), **backend} if isinstance(backend, dict) else backend
            for name, backend in given.items()
        },
    }


def _routes(given: Any, preset: Sequence[Mapping[str, Any]]) -> Any:
    if not isinstance(given, list):
        return given
    taken = [route.get("queue") for route in map(_object, given) if route.get("dag_id") is None]
    return [*given, *(route for route in preset if route["queue"] not in taken)]


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
