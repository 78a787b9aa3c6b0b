# SPDX-License-Identifier: Apache-2.0
"""The state of a task by its pod: pods are JSON objects as a list or watch request of the API server gives them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import (
    POD_REVOKED_KEY,
    TASK_INSTANCE_ID_ANNOTATION,
)

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey, task_instance_uuid
from airflow_dispatch_provider.masking import one_line

Pod = Mapping[str, Any]


class Kind(str, Enum):
    """The state of a pod, as far as the executor has to act on it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"

    FAILED = "failed"
    """It has failed, or waits for something that the user has declared fatal."""

    DELETED = "deleted"
    """Somebody else has deleted it before it ended; ``Observation.started`` says whether the task had begun."""

    RELEASED = "released"
    """It has left the watch's label selector, but exists: another scheduler has adopted it, or it is marked done."""

    REVOKED = "revoked"
    """The executor itself took it back: nothing that happens to it counts."""


@dataclass(frozen=True)
class Observation:
    """One event, understood."""

    kind: Kind

    reason: str | None
    """Why, in one line for the task's event log, e.g. ``OOMKilled: container base, exit code 137``. None where
    there is nothing to explain."""

    started: bool
    """Whether the task's own container is known to have started. False is no proof that it has not: a node
    that is lost reports nothing any more."""

    container_reason: str | None = None
    """Of a failure: what Kubernetes says of the guilty container, as in Airflow's ``FailureDetails``; compared
    with ``[kubernetes_executor] pod_launch_failure_excluded_container_reasons``."""


def observe(event_type: str, pod: Pod, fatal_waiting_reasons: Collection[str]) -> Observation:
    """
    Meaning of an event of the watch, or of a pod of a list.

    :param event_type: ``ADDED``, ``MODIFIED`` or ``DELETED``; for a pod of a list ``ADDED``
    :param fatal_waiting_reasons: ``worker_pod_pending_fatal_container_state_reasons``
    """
    metadata, started = _mapping(pod, "metadata"), _started(pod)
    gone = event_type == "DELETED"
    if POD_REVOKED_KEY in _mapping(metadata, "labels"):
        return Observation(Kind.REVOKED, None, started)
    if gone and not metadata.get("deletionTimestamp"):
        return Observation(Kind.RELEASED, None, started)
    status = _mapping(pod, "status")
    phase = status.get("phase")
    # Virtual kubelets say so in a reason, whatever the phase.
    if phase == "Failed" or status.get("reason") == "ProviderFailed":
        return _failed(pod, started)
    if phase == "Succeeded":
        return Observation(Kind.SUCCEEDED, None, started)
    if gone:
        return _deleted(pod, started)
    if phase in (None, "Pending"):
        return _pending(pod, fatal_waiting_reasons, started)
    return Observation(Kind.RUNNING, "being deleted" if metadata.get("deletionTimestamp") else None, started)


def launch_problem(pod: Pod) -> str | None:
    """Why a pod that is still pending does not run, in one line; None when there is nothing to complain about."""
    status = _mapping(pod, "status")
    if status.get("phase") != "Pending":
        return None
    problems = [_unscheduled(status)]
    problems += [_waiting_line(container) for container in _all_statuses(status)]
    return one_line("; ".join(filter(None, problems))) or None


def failure_details(pod: Pod) -> dict[str, Any] | None:
    """Of a failed pod what Airflow calls ``FailureDetails``; None for any other."""
    status = _mapping(pod, "status")
    if status.get("phase") != "Failed":
        return None
    details = {f"pod_{name}": status.get(name) for name in ("reason", "message")}
    guilty = _guilty(status, "initContainerStatuses", "init") or _guilty(status, "containerStatuses", "main")
    return {"pod_status": "Failed", **details, **(guilty or {})}


def identity(pod: Pod, uuid_keys: bool) -> WorkloadKey | None:
    """
    The key under which Airflow knows the pod's task; None when the pod does not say.

    :param uuid_keys: the executor knows tasks by their instance id (``supports_task_instance_uuid``). Pods from
        before an upgrade to Airflow 3.4 have it in their arguments only, which lists of metadata leave out.
    """
    annotations = _mapping(_mapping(pod, "metadata"), "annotations")
    if not uuid_keys:
        return _coordinates(annotations)
    try:
        # An annotation that is there but wrong decides: the arguments may be those of an earlier try.
        text = annotations.get(TASK_INSTANCE_ID_ANNOTATION)
        ti_id = UUID(text) if text is not None else _id_in_arguments(pod)
    except (ValueError, TypeError, AttributeError, LookupError):
        return None
    return None if ti_id is None else task_instance_uuid(ti_id)


def _coordinates(annotations: Mapping[str, str]) -> TaskInstanceKey | None:
    try:
        return TaskInstanceKey(
            dag_id=annotations["dag_id"],
            task_id=annotations["task_id"],
            run_id=annotations["run_id"],
            try_number=int(annotations["try_number"]),
            map_index=int(annotations.get("map_index", -1)),
        )
    except (KeyError, ValueError, TypeError):
        return None


def _id_in_arguments(pod: Pod) -> UUID | None:
    for container in _mapping(pod, "spec").get("containers") or ():
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        if "airflow.sdk.execution_time.execute_workload" in words and "--json-string" in words:
            workload = json.loads(words[words.index("--json-string") + 1])
            return UUID(workload["ti"]["id"])
    return None


def _failed(pod: Pod, started: bool) -> Observation:
    details = failure_details(pod) or {}
    container_reason = details.get("container_reason")
    parts = [_pod_line(_mapping(pod, "status")) or _disruption(pod), _container_line(details)]
    text = "; ".join(filter(None, parts)) or "Failed: the pod gives no reason"
    return Observation(Kind.FAILED, one_line(text), started, container_reason)


def _deleted(pod: Pod, started: bool) -> Observation:
    what = "deleted before it could complete" if started else "deleted before it started"
    why = _disruption(pod) or launch_problem(pod)
    return Observation(Kind.DELETED, one_line(f"{what}: {why}" if why else what), started)


def _pending(pod: Pod, fatal: Collection[str], started: bool) -> Observation:
    status = _mapping(pod, "status")
    task = _task_container(pod)
    for container in [*_statuses(status, "initContainerStatuses"), *([task] if task else [])]:
        waiting = _mapping(_mapping(container, "state"), "waiting")
        reason = waiting.get("reason")
        # The kubelet's own rate limit: it pulls later.
        throttled = reason == "ErrImagePull" and waiting.get("message") == "pull QPS exceeded"
        if reason in fatal and not throttled:
            return Observation(Kind.FAILED, _waiting_line(container), started, reason)
    return Observation(Kind.PENDING, launch_problem(pod), started)


def _started(pod: Pod) -> bool:
    status = _mapping(pod, "status")
    task = _task_container(pod)
    if task is None:
        return status.get("phase") in ("Running", "Succeeded")
    return any(_has_run(_mapping(task, state)) for state in ("state", "lastState"))


# The runtime could not start the process; or the kubelet does not know what has become of it.
_NEVER_RAN = frozenset({"StartError", "ContainerCannotRun", "ContainerStatusUnknown"})


def _has_run(state: Mapping[str, Any]) -> bool:
    if state.get("running") is not None:
        return True
    terminated = _mapping(state, "terminated")
    return bool(terminated.get("startedAt")) and terminated.get("reason") not in _NEVER_RAN


def _task_container(pod: Pod) -> Mapping[str, Any] | None:
    """The status of the pod's first container, which runs the task. The kubelet sorts the statuses by name."""
    statuses = _statuses(_mapping(pod, "status"), "containerStatuses")
    containers = _mapping(pod, "spec").get("containers") or ({"name": "base"},)
    name = containers[0].get("name")
    return next(
        (status for status in statuses if status.get("name") == name), statuses[0] if statuses else None
    )


def _guilty(status: Mapping[str, Any], statuses: str, container_type: str) -> dict[str, Any] | None:
    """The first container that ended badly, else the last one that waits."""
    waiting: dict[str, Any] | None = None
    for container in _statuses(status, statuses):
        state = _mapping(container, "state")
        common = {"container_type": container_type, "container_name": container.get("name")}
        if terminated := _mapping(state, "terminated"):
            if terminated.get("exitCode") != 0 and terminated.get("reason") != "Completed":
                return {**common, **_said("terminated", terminated), "exit_code": terminated.get("exitCode")}
        elif (waits := state.get("waiting")) is not None:
            waiting = {**common, **_said("waiting", waits)}
    return waiting


def _said(name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "container_state": name,
        "container_reason": state.get("reason"),
        "container_message": state.get("message"),
    }


def _pod_line(status: Mapping[str, Any]) -> str | None:
    """E.g. ``Evicted: The node was low on resource: memory``."""
    return ": ".join(filter(None, (status.get("reason"), status.get("message")))) or None


def _container_line(details: Mapping[str, Any]) -> str | None:
    """E.g. ``OOMKilled: container base, exit code 137``."""
    if "container_state" not in details:
        return None
    kind = "init container" if details["container_type"] == "init" else "container"
    line = f"{details['container_reason'] or details['container_state']}: {kind} {details['container_name']}"
    if "exit_code" in details:
        line += f", exit code {details['exit_code']}"
    message = details["container_message"]
    return f"{line}: {message}" if message else line


# What every pod goes through.
_HARMLESS = frozenset({"ContainerCreating", "PodInitializing"})


def _waiting_line(container: Mapping[str, Any]) -> str | None:
    """E.g. ``ErrImagePull: container base: manifest unknown``; None for a container that waits for its turn."""
    waiting = _mapping(_mapping(container, "state"), "waiting")
    reason, message = waiting.get("reason"), waiting.get("message")
    if not reason or (reason in _HARMLESS and not message):
        return None
    line = f"{reason}: container {container.get('name')}"
    return one_line(f"{line}: {message}" if message else line)


def _unscheduled(status: Mapping[str, Any]) -> str | None:
    """E.g. ``Unschedulable: 0/3 nodes are available``."""
    return _condition(status, "PodScheduled", "False")


def _disruption(pod: Pod) -> str | None:
    """Why the cluster took the pod away, e.g. ``PreemptionByScheduler: ...``; None when it does not say."""
    return _condition(_mapping(pod, "status"), "DisruptionTarget", "True")


def _condition(status: Mapping[str, Any], name: str, value: str) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == name and condition.get("status") == value:
            return ": ".join(filter(None, (condition.get("reason") or name, condition.get("message"))))
    return None


def _all_statuses(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from _statuses(status, "initContainerStatuses")
    yield from _statuses(status, "containerStatuses")


def _statuses(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return status.get(name) or []


def _mapping(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under that name; an empty one where there is none, as the API leaves empty ones out."""
    return parent.get(name) or {}
