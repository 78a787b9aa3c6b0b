# SPDX-License-Identifier: Apache-2.0
"""Events of pods, as a kubelet, the scheduler and the cluster's controllers cause them."""

from __future__ import annotations

import json
import logging
from queue import SimpleQueue
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import ADOPTED, POD_REVOKED_KEY
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import (
    KubernetesJobWatcher,
)
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge.airflow_api import is_task_instance_uuid
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.kubernetes import status
from airflow_dispatch_provider.engines.kubernetes.status import (
    Kind,
    Observation,
    identity,
    launch_problem,
    observe,
)
from airflow_dispatch_provider.masking import MAX_LENGTH

from .pods import ANNOTATIONS, condition, container, pod, running, terminated, waiting

PENDING, RUNNING, SUCCEEDED, FAILED, DELETED, RELEASED, REVOKED = Kind
FATAL = frozenset({"CreateContainerConfigError", "ErrImagePull", "InvalidImageName"})
ADDED, MODIFIED, GONE = "ADDED", "MODIFIED", "DELETED"

NO_NODE = condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
PREEMPTED = condition("DisruptionTarget", "True", "PreemptionByScheduler", "a more important pod came")
MANIFEST = "manifest unknown"
UNSTARTABLE = terminated(128, "StartError", "exec: no such file", started="1970-01-01T00:00:00Z")

EVENTS = {
    # On its way.
    "just created": (ADDED, pod("Pending"), (PENDING, None, False)),
    "no node": (
        MODIFIED,
        pod("Pending", conditions=[NO_NODE]),
        (PENDING, "Unschedulable: 0/3 nodes are available", False),
    ),
    "container is made": (MODIFIED, pod("Pending", waiting("ContainerCreating")), (PENDING, None, False)),
    "init container runs": (
        MODIFIED,
        pod("Pending", waiting("PodInitializing"), init=[container(running(), "git")]),
        (PENDING, None, False),
    ),
    "backs off, not fatal": (
        MODIFIED,
        pod("Pending", waiting("ImagePullBackOff", "Back-off pulling")),
        (PENDING, "ImagePullBackOff: container base: Back-off pulling", False),
    ),
    "graceful deletion while pending has begun": (
        MODIFIED,
        pod("Pending", deleting=True),
        (PENDING, None, False),
    ),
    # A fatal reason, of the task's container or of an init container.
    "fatal": (
        MODIFIED,
        pod("Pending", waiting("ErrImagePull", MANIFEST)),
        (FAILED, "ErrImagePull: container base: manifest unknown", False),
    ),
    "fatal in init": (
        MODIFIED,
        pod("Pending", waiting("PodInitializing"), init=[container(waiting("InvalidImageName"), "git")]),
        (FAILED, "InvalidImageName: container git", False),
    ),
    "kubelet pulls later": (
        MODIFIED,
        pod("Pending", waiting("ErrImagePull", "pull QPS exceeded")),
        (PENDING, "ErrImagePull: container base: pull QPS exceeded", False),
    ),
    "fatal in a sidecar only": (
        MODIFIED,
        pod(
            "Pending",
            container(waiting("ErrImagePull", MANIFEST), "a-sidecar"),
            running(),
            containers=("base", "a-sidecar"),
        ),
        (PENDING, "ErrImagePull: container a-sidecar: manifest unknown", True),
    ),
    "the first container has another name": (
        MODIFIED,
        pod(
            "Pending",
            container(waiting("ContainerCreating"), "a-sidecar"),
            container(waiting("ErrImagePull"), "job"),
            containers=("job", "a-sidecar"),
        ),
        (FAILED, "ErrImagePull: container job", False),
    ),
    # At work.
    "runs": (MODIFIED, pod("Running", running()), (RUNNING, None, True)),
    "runs, says no more": (ADDED, pod("Running"), (RUNNING, None, True)),
    "only a sidecar runs": (
        MODIFIED,
        pod("Running", container(running(), "a"), waiting("CrashLoopBackOff"), containers=("base", "a")),
        (RUNNING, None, False),
    ),
    "runs again": (
        MODIFIED,
        pod("Running", container(waiting("CrashLoopBackOff"), lastState=terminated(1, "Error"))),
        (RUNNING, None, True),
    ),
    "is being deleted": (
        MODIFIED,
        pod("Running", running(), deleting=True),
        (RUNNING, "being deleted", True),
    ),
    "node lost": (MODIFIED, pod("Unknown", running(), reason="NodeLost"), (RUNNING, None, True)),
    # At its end.
    "succeeded": (MODIFIED, pod("Succeeded", terminated(0, "Completed")), (SUCCEEDED, None, True)),
    "succeeded, says no more": (ADDED, pod("Succeeded"), (SUCCEEDED, None, True)),
    "out of memory": (
        MODIFIED,
        pod("Failed", terminated(137, "OOMKilled")),
        (FAILED, "OOMKilled: container base, exit code 137", True),
    ),
    "failed with a message": (
        MODIFIED,
        pod("Failed", terminated(1, "Error", "boom\nand more")),
        (FAILED, "Error: container base, exit code 1: boom and more", True),
    ),
    "evicted": (
        MODIFIED,
        pod("Failed", reason="Evicted", message="The node was low on resource: memory"),
        (FAILED, "Evicted: The node was low on resource: memory", False),
    ),
    "evicted while it ran": (
        MODIFIED,
        pod("Failed", terminated(137, "Error"), reason="Evicted", message="low on memory"),
        (FAILED, "Evicted: low on memory; Error: container base, exit code 137", True),
    ),
    "preempted": (
        MODIFIED,
        pod("Failed", terminated(143, "Error"), conditions=[PREEMPTED]),
        (
            FAILED,
            "PreemptionByScheduler: a more important pod came; Error: container base, exit code 143",
            True,
        ),
    ),
    "cannot be started": (
        MODIFIED,
        pod("Failed", UNSTARTABLE),
        (FAILED, "StartError: container base, exit code 128: exec: no such file", False),
    ),
    "kubelet does not know": (
        MODIFIED,
        pod("Failed", terminated(137, "ContainerStatusUnknown", started=None)),
        (FAILED, "ContainerStatusUnknown: container base, exit code 137", False),
    ),
    "init container failed": (
        MODIFIED,
        pod("Failed", waiting("PodInitializing"), init=[container(terminated(2, "Error"), "git")]),
        (FAILED, "Error: init container git, exit code 2", False),
    ),
    "failed without a word": (
        MODIFIED,
        pod("Failed"),
        (FAILED, "Failed: the pod gives no reason", False),
    ),
    "virtual kubelet": (
        MODIFIED,
        pod("Pending", reason="ProviderFailed", message="no capacity"),
        (FAILED, "ProviderFailed: no capacity", False),
    ),
    # Taken away by somebody else.
    "deleted while it ran": (
        GONE,
        pod("Running", running(), deleting=True),
        (DELETED, "deleted before it could complete", True),
    ),
    "deleted while pending": (
        GONE,
        pod("Pending", deleting=True),
        (DELETED, "deleted before it started", False),
    ),
    "deleted while it could not start": (
        GONE,
        pod("Pending", waiting("ErrImagePull"), deleting=True),
        (DELETED, "deleted before it started: ErrImagePull: container base", False),
    ),
    "preempted and deleted": (
        GONE,
        pod("Running", running(), deleting=True, conditions=[PREEMPTED]),
        (
            DELETED,
            "deleted before it could complete: PreemptionByScheduler: a more important pod came",
            True,
        ),
    ),
    # How it ended counts, not that it was deleted then.
    "deleted after success": (GONE, pod("Succeeded", deleting=True), (SUCCEEDED, None, True)),
    "deleted after failure": (
        GONE,
        pod("Failed", terminated(1, "Error"), deleting=True),
        (FAILED, "Error: container base, exit code 1", True),
    ),
    # It has left the selector.
    "adopted": (GONE, pod("Running", running()), (RELEASED, None, True)),
    "marked done": (GONE, pod("Succeeded", terminated(0, "Completed")), (RELEASED, None, True)),
    # Taken back by us, whatever happens to it.
    "revoked": (
        GONE,
        pod("Running", running(), deleting=True, labels={POD_REVOKED_KEY: "True"}),
        (REVOKED, None, True),
    ),
    "revoked, failed": (MODIFIED, pod("Failed", labels={POD_REVOKED_KEY: "True"}), (REVOKED, None, False)),
}


@pytest.mark.parametrize(("event", "seen", "expected"), EVENTS.values(), ids=EVENTS)
def test_observe(event, seen, expected):
    """Every event has the meaning of its row."""
    assert observe(event, seen, FATAL) == Observation(*expected)


@pytest.mark.parametrize("event", [ADDED, MODIFIED, GONE])
@pytest.mark.parametrize("seen", [{}, {"metadata": {}}, {"metadata": {"labels": None}, "status": {}}])
def test_a_bare_pod(event, seen):
    """Nothing that the API may leave out is missed."""
    assert observe(event, seen, FATAL).kind is (RELEASED if event == GONE else PENDING)
    assert launch_problem(seen) is None
    assert identity(seen, uuid_keys=True) is None
    assert identity(seen, uuid_keys=False) is None


def test_nothing_is_fatal_by_default():
    """Which waiting reasons end a task is the user's choice."""
    event, seen, _ = EVENTS["fatal"]
    assert observe(event, seen, ()).kind is PENDING


def airflow_event(event, seen, fatal):
    """The ``(state, failure details)`` that Airflow's watcher reports; None when it reports nothing."""
    queue: SimpleQueue = SimpleQueue()
    watcher = SimpleNamespace(
        log=logging.getLogger("watcher"),
        watcher_queue=queue,
        kube_config=SimpleNamespace(worker_pod_pending_fatal_container_state_reasons=fatal),
    )
    model = PodGenerator.deserialize_model_dict(seen)
    KubernetesJobWatcher.process_status(
        watcher,
        pod_name="a-pod",
        namespace="airflow",
        status=model.status.phase,
        annotations=ANNOTATIONS,
        resource_version="7",
        event={"type": event, "object": model, "raw_object": seen},
    )
    if queue.empty():
        return None
    watch = queue.get()
    assert queue.empty()
    return watch.state, watch.failure_details


STATES = {
    PENDING: None,
    RUNNING: None,
    REVOKED: None,
    RELEASED: ADOPTED,
    FAILED: TaskInstanceState.FAILED,
    SUCCEEDED: "succeeded",
}


DIFFERENT = {"fatal in a sidecar only", "the first container has another name"}
"""Airflow looks at the container status that comes first, but the kubelet sorts them by name."""


@pytest.mark.parametrize("name", sorted(EVENTS.keys() - DIFFERENT))
def test_airflow_agrees(name):
    """The same task ends in the same state as with Airflow's watcher."""
    event, seen, (kind, _, started) = EVENTS[name]
    reported = airflow_event(event, seen, list(FATAL))
    if kind is DELETED:
        # Airflow says nothing of a pod that was deleted while it was pending: its task stays queued.
        assert reported == ((TaskInstanceState.FAILED, None) if started else None)
    elif STATES[kind] is None:
        assert reported is None
    else:
        assert (reported[0] or "succeeded") == STATES[kind]


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        # Nothing is wrong, or it is too late to ask.
        (pod("Pending"), None),
        (pod("Pending", waiting("ContainerCreating")), None),
        (pod("Running", waiting("CrashLoopBackOff")), None),
        (pod("Failed", waiting("ErrImagePull")), None),
        (pod("Pending", conditions=[condition("PodScheduled", "True", "ok")]), None),
        # No node; held back on purpose; no reason given.
        (pod("Pending", conditions=[NO_NODE]), "Unschedulable: 0/3 nodes are available"),
        (
            pod("Pending", conditions=[condition("PodScheduled", "False", "SchedulingGated")]),
            "SchedulingGated",
        ),
        (pod("Pending", conditions=[{"type": "PodScheduled", "status": "False"}]), "PodScheduled"),
        # Containers, a harmless reason with a message included.
        (pod("Pending", waiting("ErrImagePull", "a\nb")), "ErrImagePull: container base: a b"),
        (pod("Pending", waiting("ContainerCreating", "slow")), "ContainerCreating: container base: slow"),
        (
            pod("Pending", waiting("B"), init=[container(waiting("A"), "git")]),
            "A: container git; B: container base",
        ),
    ],
)
def test_launch_problem(seen, problem):
    """Says why a pending pod does not run, and nothing of others."""
    assert launch_problem(seen) == problem


def test_reasons_are_short():
    """The event log is no place for a dump."""
    long = "x" * 10_000
    for seen in (pod("Failed", terminated(1, "Error", long)), pod("Pending", waiting("ErrImagePull", long))):
        assert len(observe(MODIFIED, seen, FATAL).reason) == MAX_LENGTH


def identified(annotations, *containers):
    return {"metadata": {"annotations": annotations}, "spec": {"containers": list(containers)}}


@pytest.mark.parametrize(
    ("annotations", "key"),
    [
        (ANNOTATIONS, TaskInstanceKey("a_dag", "a_task", "a_run", 2, -1)),
        ({**ANNOTATIONS, "map_index": "3"}, TaskInstanceKey("a_dag", "a_task", "a_run", 2, 3)),
        # A pod of something else, or one whose template has spoilt our annotations.
        ({}, None),
        (None, None),
        ({**ANNOTATIONS, "try_number": "x"}, None),
        ({**ANNOTATIONS, "map_index": None}, None),
        ({name: value for name, value in ANNOTATIONS.items() if name != "run_id"}, None),
    ],
)
def test_identity_by_coordinates(annotations, key):
    """Up to Airflow 3.3 the annotations name the task; half a name is none."""
    assert identity(identified(annotations), uuid_keys=False) == key


ID = uuid4()
MODULE = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
WORKLOAD = json.dumps({"ti": {"id": str(ID)}})


@pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="no such keys before Airflow 3.4")
@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (identified({"task_instance_id": str(ID)}), ID),
        # From before the upgrade; the template may have put some of it into the command.
        (identified(ANNOTATIONS, {"args": [*MODULE, WORKLOAD]}), ID),
        (identified(ANNOTATIONS, {"command": MODULE, "args": [WORKLOAD]}), ID),
        (identified(None, {"name": "sidecar"}, {"command": None, "args": [*MODULE, WORKLOAD]}), ID),
        # A wrong annotation decides.
        (identified({"task_instance_id": "x"}, {"args": [*MODULE, WORKLOAD]}), None),
        # Nothing to be found.
        (identified(ANNOTATIONS, {"args": ["sleep", "1"]}), None),
        (identified(ANNOTATIONS, {"args": MODULE}), None),
        (identified(ANNOTATIONS, {"args": [*MODULE, "{"]}), None),
        (identified(ANNOTATIONS, {"args": [*MODULE, "[]"]}), None),
        (identified(ANNOTATIONS, {"args": [*MODULE, '{"ti": {"id": 1}}']}), None),
        ({"metadata": {"annotations": ANNOTATIONS}}, None),
    ],
)
def test_identity_by_id(seen, expected):
    """From Airflow 3.4 on the instance id names the task."""
    key = identity(seen, uuid_keys=True)
    assert key is None if expected is None else is_task_instance_uuid(key)
    assert expected is None or UUID(str(key)) == expected


@pytest.mark.parametrize(
    ("shown", "node", "never"),
    [
        # It has no node, or its node says so.
        (pod("Pending"), None, True),
        (pod("Failed", reason="Evicted"), "n", True),
        (pod("Pending", waiting("ImagePullBackOff")), "n", True),
        (pod("Pending", waiting("CreateContainerConfigError")), "n", True),
        (pod("Failed", terminated(128, "StartError")), "n", True),
        # It may be starting at this moment.
        (pod("Pending"), "n", False),
        (pod("Pending", waiting("ContainerCreating")), "n", False),
        # It has started.
        (pod("Running", running()), "n", False),
        (pod("Failed", terminated(1, "Error")), "n", False),
        (pod("Succeeded"), None, False),
        # Its node says nothing any more.
        (pod("Failed", terminated(137, "ContainerStatusUnknown")), "n", False),
        (pod("Failed", reason="NodeLost"), "n", False),
        (pod("Failed", conditions=[condition("DisruptionTarget", "True", "DeletionByPodGC")]), "n", False),
        (pod("Pending", conditions=[condition("DisruptionTarget", "True", "DeletionByTaintManager")]), "n", False),
    ],
)  # fmt: skip
def test_whether_it_is_certain_that_the_task_never_started(shown, node, never):
    spec = {**shown["spec"], **({"nodeName": node} if node else {})}
    assert status.never_started({**shown, "spec": spec}) is never


def test_what_the_engine_keeps_of_a_pod():
    shown = pod("Pending", conditions=[condition("PodScheduled", "False", "Unschedulable", "no node")])
    shown["metadata"]["annotations"] = {status.MARK: "m"}
    seen = status.see("DELETED", shown, ())
    assert (seen.pod, seen.mark, seen.version, seen.gone) == (("airflow", "a-pod"), "m", "7", True)
    assert (seen.stuck, seen.never_started) == ("Unschedulable: no node", True)
