# SPDX-License-Identifier: Apache-2.0
"""Fates of a pod on the test node, and the status that a kubelet would report for each.

Pure: manifests in, dictionaries out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

ANNOTATION = "dispatch-test/fate"
"""A pod with this annotation meets the named fate, whatever the agent's ``decide`` says."""

RUN = "run"
EXIT = "exit"
IMAGE_PULL_ERROR = "image-pull-error"
EVICTED = "evicted"
PREEMPTED = "preempted"
OOM_KILLED = "oom-killed"
UNSCHEDULABLE = "unschedulable"
NODE_LOST = "node-lost"
KINDS = (RUN, EXIT, IMAGE_PULL_ERROR, EVICTED, PREEMPTED, OOM_KILLED, UNSCHEDULABLE, NODE_LOST)


@dataclass(frozen=True)
class Fate:
    """The agent's plan for a pod.

    =================  ==================================================================================
    run                its command runs as a process, and its exit code is the pod's
    exit               no process: Running for ``after`` seconds, then an end with ``exit_code``
    image-pull-error   bound, then Pending for good: ErrImagePull, and ImagePullBackOff after ``after``
    evicted            Running; after ``after`` seconds killed, and Failed with the reason Evicted
    preempted          Running; after ``after`` seconds deleted by the scheduler for a more important pod
    oom-killed         Running; after ``after`` seconds killed with exit code 137 and reason OOMKilled
    unschedulable      Pending for good, never bound
    node-lost          Running; after ``after`` seconds killed and deleted, with nobody left to confirm it
    =================  ==================================================================================
    """

    kind: str = RUN
    exit_code: int = 0
    after: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fate is named {self.kind!r}; there are: {', '.join(KINDS)}")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unschedulable() -> Json:
    message = "0/1 nodes are available: 1 Insufficient cpu."
    return {
        "phase": "Pending",
        "conditions": [_condition("PodScheduled", False, "Unschedulable", message)],
    }


def waiting(pod: Json, reason: str, message: str = "") -> Json:
    """Bound, with its containers not started."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {
        "phase": "Pending",
        "conditions": _conditions(ready=False),
        "containerStatuses": _containers(pod, "containers", state),
    }


def image_pull(pod: Json, reason: str) -> Json:
    image = pod["spec"]["containers"][0]["image"]
    text = "Back-off pulling image" if reason == "ImagePullBackOff" else "failed to pull image"
    return waiting(pod, reason, f'{text} "{image}": not found')


def running(pod: Json, started: str) -> Json:
    return {
        "phase": "Running",
        "hostIP": "127.0.0.1",
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
        "startTime": started,
        "conditions": _conditions(ready=True),
        "containerStatuses": _containers(pod, "containers", {"running": {"startedAt": started}}),
        "initContainerStatuses": _containers(
            pod, "initContainers", _terminated(0, "Completed", started), ready=True
        ),
    }


def ended(pod: Json, started: str, exit_code: int, reason: str = "") -> Json:
    """All containers ended; the first with this exit code, the others with 0."""
    reason = reason or ("Error" if exit_code else "Completed")
    containers = _containers(pod, "containers", _terminated(0, "Completed", started))
    containers[0]["state"] = _terminated(exit_code, reason, started)
    return {
        "phase": "Failed" if exit_code else "Succeeded",
        "conditions": _conditions(ready=False, reason="PodFailed" if exit_code else "PodCompleted"),
        "containerStatuses": containers,
    }


def evicted(pod: Json, started: str) -> Json:
    message = "The node was low on resource: memory."
    return {
        **ended(pod, started, 137, "Error"),
        "reason": "Evicted",
        "message": message,
        "conditions": [
            *_conditions(ready=False, reason="PodFailed"),
            _condition("DisruptionTarget", True, "TerminationByKubelet", message),
        ],
    }


def preempted() -> Json:
    message = "default-scheduler: preempting to accommodate a higher priority pod"
    return {
        "conditions": [
            *_conditions(ready=True),
            _condition("DisruptionTarget", True, "PreemptionByScheduler", message),
        ]
    }


def node_lost() -> Json:
    message = "Node which was running pod is unresponsive"
    return {"reason": "NodeLost", "message": message, "conditions": _conditions(ready=False)}


def environment(pod: Json, container: Json, base: Mapping[str, str]) -> dict[str, str]:
    """A container's variables on top of ``base``; references to secrets and config maps are left out."""
    variables = dict(base)
    for entry in container.get("env") or ():
        value = entry.get("value", "" if "valueFrom" not in entry else None)
        if value is None and "fieldRef" in entry["valueFrom"]:
            value = field(pod, entry["valueFrom"]["fieldRef"]["fieldPath"])
        if value is not None:
            variables[entry["name"]] = value
    return variables


def field(pod: Json, path: str) -> str | None:
    """The value that the downward API gives for a path such as ``metadata.labels['app']``; None when it has nothing."""
    path, _, key = path.partition("['")
    value: Any = pod
    for part in path.split("."):
        value = (value or {}).get(part)
    if key:
        value = (value or {}).get(key.removesuffix("']"))
    return None if value is None else str(value)


def _containers(pod: Json, kind: str, state: Json, ready: bool | None = None) -> list[Json]:
    runs = "running" in state
    return [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": runs if ready is None else ready,
            "started": runs,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"].get(kind) or ()
    ]


def _terminated(exit_code: int, reason: str, started: str) -> Json:
    return {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": now(),
        }
    }


def _conditions(ready: bool, reason: str = "") -> list[Json]:
    return [
        _condition("PodScheduled", True),
        _condition("Initialized", True),
        _condition("ContainersReady", ready, reason),
        _condition("Ready", ready, reason),
    ]


def _condition(kind: str, holds: bool, reason: str = "", message: str = "") -> Json:
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
    }
