# SPDX-License-Identifier: Apache-2.0
"""The labels and namespaces by which the executor finds its pods. The provider's own labels may be refused.

The provider makes a label of an id without any ASCII letter or digit that begins with ``-``; the API server takes only
values that begin and end with a letter or a digit (Kubernetes: Labels and Selectors, syntax and character set).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

T = TypeVar("T")

# The provider's, which has names for them from 10.24 on.
TASK_INSTANCE_ID_ANNOTATION = "task_instance_id"
TASK_INSTANCE_ID_LABEL = "ti_id"

_AT_THE_EDGE = "-_."


def valid(labels: Mapping[str, str]) -> dict[str, str]:
    """The same labels, each with a value that the API server takes."""
    return {name: value.strip(_AT_THE_EDGE) for name, value in labels.items()}


def selector(ti: Any, try_number: int, worker: Any, more: Mapping[str, str] | None = None) -> str:
    """Selects the pods of one try of a task instance.

    :param worker: id of the scheduler's job that owns them
    :param more: further labels
    """
    generator: Any = PodGenerator
    labels = generator.build_labels_for_k8s_executor_pod(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        try_number=try_number,
        map_index=ti.map_index,
        run_id=ti.run_id,
        airflow_worker=worker,
        include_version=False,
    )
    wanted = {**valid(labels), **(more or {})}
    terms = [f"{name}={value}" for name, value in sorted(wanted.items())]
    # Not to find pods of other making, where the owner is not known.
    return ",".join(terms if worker else [*terms, "airflow-worker"])


def namespace_of(ti: Any, home: T) -> str | T:
    """The namespace of a task's pod, as far as its ``executor_config`` says; a mutation hook may choose another one.

    :param ti: has whatever its author has written there; None: it is no task
    :param home: of pods that name none
    """
    named: Any = None
    with suppress(Exception):
        named = ti.executor_config["pod_override"].metadata.namespace
    return named if isinstance(named, str) and named else home
