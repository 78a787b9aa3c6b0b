# SPDX-License-Identifier: Apache-2.0
"""A worker pod with marks in the places of what differs from task to task, to be filled in quickly."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

from airflow_dispatch_provider.engines.kubernetes.labels import valid
from airflow_dispatch_provider.engines.kubernetes.models import Model, copy_model, to_json

_generator: Any = PodGenerator
"""Untyped, as the provider's method is."""


@dataclass(frozen=True)
class TaskValues:
    """The values that Airflow writes into the pod of one task, and into no other."""

    name: str
    dag_id: str
    task_id: str
    run_id: str | None
    try_number: int

    map_index: int
    """-1 for a task that is not mapped."""

    args: list[str]
    labels: dict[str, str]
    annotations: dict[str, str]

    @classmethod
    def of(
        cls,
        job_id: str,
        name: str,
        dag_id: str,
        task_id: str,
        run_id: str | None,
        try_number: int,
        map_index: int,
        args: list[str],
    ) -> TaskValues:
        """:param job_id: of the scheduler, for the label that its watch selects by"""
        labels = valid(
            _generator.build_labels_for_k8s_executor_pod(
                dag_id=dag_id,
                task_id=task_id,
                try_number=try_number,
                airflow_worker=job_id,
                map_index=map_index,
                run_id=run_id,
            )
        )
        annotations = {"dag_id": dag_id, "task_id": task_id, "try_number": str(try_number)}
        if map_index >= 0:
            annotations["map_index"] = str(map_index)
        if run_id:
            annotations["run_id"] = run_id
        return cls(name, dag_id, task_id, run_id, try_number, map_index, args, labels, annotations)


# Valid as names and as labels, and found in nobody's template or pod_override.
_MARK = f"mark-{secrets.token_hex(16)}"
_NUMBER = 10**9 + secrets.randbelow(10**9)


def marks(job_id: str, *, mapped: bool, has_run_id: bool) -> TaskValues:
    """Values to be recognised, for the pod of a task of that kind."""
    return TaskValues.of(
        job_id,
        name=f"{_MARK}-name",
        dag_id=f"{_MARK}-dag",
        task_id=f"{_MARK}-task",
        run_id=f"{_MARK}-run" if has_run_id else None,
        try_number=_NUMBER,
        map_index=_NUMBER + 1 if mapped else -1,
        args=[f"{_MARK}-args"],
    )


class Prototype:
    """
    Knows where a pod that Airflow has made for ``marks`` still has them: a ``pod_override`` may have put its own
    name, labels or arguments there.
    """

    def __init__(self, pod: Model, marked: TaskValues) -> None:
        self._pod = pod
        self._manifest = to_json(pod)
        metadata = self._metadata = self._manifest["metadata"]
        self._named = metadata.get("name") == marked.name
        self._labels = _common_keys(metadata.get("labels"), marked.labels)
        self._annotations = _common_keys(metadata.get("annotations"), marked.annotations)
        containers = self._manifest["spec"]["containers"]
        self._args = [at for at, one in enumerate(containers) if one.get("args") == marked.args]
        self.complete = self._has_no_other_marks(marked)
        """Whether that is all. If not, a provider of the future writes task values to places unknown here."""

    def fill(self, values: TaskValues) -> dict[str, Any]:
        """
        The manifest of that task's pod. ``metadata`` with its labels and annotations is the caller's own; all
        the rest is shared with other manifests and must not be changed.
        """
        metadata = dict(self._metadata)
        metadata["labels"] = _replaced(metadata.get("labels"), self._labels, values.labels)
        metadata["annotations"] = _replaced(
            metadata.get("annotations"), self._annotations, values.annotations
        )
        if self._named:
            metadata["name"] = values.name
        spec = self._manifest["spec"]
        if self._args:
            containers = list(spec["containers"])
            for at in self._args:
                containers[at] = {**containers[at], "args": values.args}
            spec = {**spec, "containers": containers}
        return {**self._manifest, "metadata": metadata, "spec": spec}

    def fill_model(self, values: TaskValues) -> Model:
        """The same as a ``V1Pod`` that shares nothing, for a mutation hook."""
        pod = copy_model(self._pod)
        metadata = pod.metadata
        metadata.labels = _replaced(metadata.labels, self._labels, values.labels)
        metadata.annotations = _replaced(metadata.annotations, self._annotations, values.annotations)
        if self._named:
            metadata.name = values.name
        for at in self._args:
            pod.spec.containers[at].args = values.args
        return pod

    def _has_no_other_marks(self, marked: TaskValues) -> bool:
        blank = dict.fromkeys((*marked.labels, *marked.annotations), "")
        filled = self.fill(TaskValues("", "", "", "", 0, 0, [], blank, blank))
        text = json.dumps(filled)
        return not any(mark in text for mark in (_MARK, str(_NUMBER), str(_NUMBER + 1)))


def _common_keys(present: Mapping[str, str] | None, marked: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(key for key, value in (present or {}).items() if marked.get(key) == value)


def _replaced(
    present: Mapping[str, str] | None, keys: tuple[str, ...], values: Mapping[str, str]
) -> dict[str, str]:
    result = dict(present or {})
    for key in keys:
        result[key] = values[key]
    return result
