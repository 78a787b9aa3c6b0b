# SPDX-License-Identifier: Apache-2.0
"""The state of a task by its pod: pods are JSON objects as a list or watch request of the API server gives them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import POD_REVOKED_KEY

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey, task_instance_uuid
from airflow_dispatch_provider.engines.kubernetes._pods import Seen
from airflow_dispatch_provider.engines.kubernetes._seen import Kind, Observation, PodName
from airflow_dispatch_provider.engines.kubernetes.labels import TASK_INSTANCE_ID_ANNOTATION
from airflow_dispatch_provider.masking import one_line

Pod = Mapping[str, Any]


MARK = "airflow-dispatch/dispatch"
"""Annotation of a pod: the mark of the dispatch that it was made for."""

BASE = "base"
"""The container that runs the task, as Airflow calls it."""


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
    if (code := _exit_code(pod)) == 0 and not status.get("reason"):
        return Observation(Kind.SUCCEEDED, None, started, lives_on=phase == "Running" and not gone)
    # Virtual kubelets say so in a reason, whatever the phase.
    if phase == "Failed" or status.get("reason") == "ProviderFailed":
        return _failed(pod, started)
    if phase == "Succeeded":
        return Observation(Kind.SUCCEEDED, None, started)
    if code is not None and not _restarts(pod):
        return replace(_failed(pod, started), lives_on=not gone)
    if gone:
        return _deleted(pod, started)
    if phase in (None, "Pending"):
        return _pending(pod, fatal_waiting_reasons, started)
    return Observation(Kind.RUNNING, "being deleted" if metadata.get("deletionTimestamp") else None, started)


def see(event_type: str, pod: Pod, fatal_waiting_reasons: Collection[str]) -> Seen:
    """The same, with all else that the engine keeps of a pod; for parameters see ``observe``."""
    metadata = pod["metadata"]
    return Seen(
        PodName(metadata["namespace"], metadata["name"]),
        observe(event_type, pod, fatal_waiting_reasons),
        _mapping(metadata, "annotations").get(MARK),
        metadata.get("resourceVersion"),
        event_type == "DELETED",
        never_started(pod),
        launch_problem(pod),
    )


def never_started(pod: Pod) -> bool:
    """Whether it is certain, should this be the pod's last state, that the task's container has not run and will not:
    it has no node, or its node has said so. A node that is lost says nothing any more."""
    if _started(pod) or _is_lost(pod):
        return False
    phase = _mapping(pod, "status").get("phase")
    return phase == "Failed" or not _mapping(pod, "spec").get("nodeName") or _waits_in_vain(pod)


def _is_lost(pod: Pod) -> bool:
    status, task = _mapping(pod, "status"), _task_container(pod) or {}
    reasons = {
        each.get("reason")
        for each in status.get("conditions") or ()
        if each.get("type") == "DisruptionTarget"
    }
    ended = _mapping(_mapping(task, "state"), "terminated").get("reason")
    return status.get("reason") == "NodeLost" or bool(reasons & _LOST) or ended == "ContainerStatusUnknown"


_LOST = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
"""Reasons of Kubernetes for taking away a pod whose node may not answer."""


def _waits_in_vain(pod: Pod) -> bool:
    """Its image cannot be had, or its container not be made: the kubelet tries again later, and not at this moment."""
    waiting = _mapping(_mapping(_task_container(pod) or {}, "state"), "waiting").get("reason")
    return waiting is not None and waiting not in _HARMLESS


def launch_problem(pod: Pod) -> str | None:
    """Why a pod that is still pending does not run, in one line; None when there is nothing to complain about."""
    status = _mapping(pod, "status")
    if status.get("phase") != "Pending":
        return None
    problems = [_unscheduled(status)]
    problems += [_waiting_line(container) for container in _all_statuses(status)]
    return one_line("; ".join(filter(None, problems))) or None


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
    status, task = _mapping(pod, "status"), _task_container(pod)
    init = _guilty(_statuses(status, "initContainerStatuses"), "init")
    own = init or _guilty([task] if task else [], "main") or {}
    ended = own if own.get("container_state") == "terminated" else None
    guilty = ended or _guilty(_statuses(status, "containerStatuses"), "main") or own
    parts = [_pod_line(status) or _disruption(pod), _container_line(guilty)]
    text = "; ".join(filter(None, parts)) or "Failed: the pod gives no reason"
    return Observation(Kind.FAILED, one_line(text), started)


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
            return Observation(Kind.FAILED, _waiting_line(container), started)
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


def task_container_of(names: Sequence[str]) -> str | None:
    """The name of the container that runs the task: ``base``, wherever it stands, since a proxy may be put before it;
    the first one in a pod that calls it otherwise."""
    return BASE if BASE in names else next(iter(names), None)


def _task_container(pod: Pod) -> Mapping[str, Any] | None:
    """The status of the container that runs the task. The kubelet sorts the statuses by name."""
    statuses = _statuses(_mapping(pod, "status"), "containerStatuses")
    name = task_container_of([each.get("name") for each in _mapping(pod, "spec").get("containers") or ()])
    return next((status for status in statuses if status.get("name") == (name or BASE)), None)


def _exit_code(pod: Pod) -> int | None:
    """Of the task's container, if it has run and ended."""
    terminated = _mapping(_mapping(_task_container(pod) or {}, "state"), "terminated")
    return terminated.get("exitCode") if _has_run({"terminated": terminated}) else None


def _restarts(pod: Pod) -> bool:
    """Whether the kubelet starts a container again that has failed, as it does unless told otherwise."""
    policy = _mapping(pod, "spec").get("restartPolicy")
    return bool(policy != "Never")


def _guilty(containers: Sequence[Mapping[str, Any]], container_type: str) -> dict[str, Any] | None:
    """The first container that ended badly, else the last one that waits."""
    return _ended_badly(containers, container_type) or _waits(containers, container_type)


def _ended_badly(containers: Sequence[Mapping[str, Any]], container_type: str) -> dict[str, Any] | None:
    for container in containers:
        terminated = _mapping(_mapping(container, "state"), "terminated")
        if terminated and terminated.get("exitCode") != 0 and terminated.get("reason") != "Completed":
            said = {**_said("terminated", terminated), "exit_code": terminated.get("exitCode")}
            return {"container_type": container_type, "container_name": container.get("name"), **said}
    return None


def _waits(containers: Sequence[Mapping[str, Any]], container_type: str) -> dict[str, Any] | None:
    for container in reversed(containers):
        waits = _mapping(container, "state").get("waiting")
        if waits is not None:
            name = container.get("name")
            return {"container_type": container_type, "container_name": name, **_said("waiting", waits)}
    return None


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
