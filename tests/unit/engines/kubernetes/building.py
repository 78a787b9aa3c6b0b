# SPDX-License-Identifier: Apache-2.0
"""Pods made by Airflow's executor, to compare ours with, and everything they are made of."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf import kubernetes as provider
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import KubernetesExecutor
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import AirflowKubernetesScheduler
from airflow.providers.cncf.kubernetes.kube_config import KubeConfig
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import models as k8s

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask, PodFactory
from airflow_dispatch_provider.testing.workloads import make_task

JOB_ID = "17"
PROVIDER = Path(provider.__file__).parent
TEMPLATES = sorted(
    [
        *PROVIDER.glob("pod_template_file_examples/*.yaml"),
        *PROVIDER.glob("kubernetes_executor_templates/*.yaml"),
    ]
)
TEMPLATE = PROVIDER / "pod_template_file_examples/git_sync_template.yaml"

Extra = Callable[[Any], Any]


def no_extra(queue: str | None) -> None:
    """No coordinator."""


def kube_config(template: Path | str = TEMPLATE, image: str | None = "repo/worker:1", **options: Any) -> Any:
    config = KubeConfig()
    config.pod_template_file = str(template)
    config.kube_image = image
    config.kube_namespace = "airflow"
    for name, value in options.items():
        setattr(config, name, value)
    return config


def key_of(workload: Any) -> Any:
    return airflow_api.workload_key(KubernetesExecutor, workload)


class Failed(Exception):
    """Airflow's executor has failed the task instead of making a pod."""


def airflows(config: Any, workload: Any, extra: Extra = no_extra) -> dict[str, Any]:
    """The pod as Airflow's executor would send it; the parts that need no network are its own."""
    queue: SimpleQueue = SimpleQueue()
    made: list[Any] = []

    def fail(key, info):
        raise Failed(info)

    executor = SimpleNamespace(
        log=logging.getLogger("executor"),
        fail=fail,
        _coordinator_extra=extra,
        _coordinator_pod_template_file=lambda it: KubernetesExecutor._coordinator_pod_template_file(None, it),
        _coordinator_kube_image=lambda it: KubernetesExecutor._coordinator_kube_image(None, it),
        event_buffer={},
        scheduler_job_id=JOB_ID,
        last_handled={},
        pod_launch_attempts={},
        task_queue=queue,
    )
    config_of_task = workload.ti.executor_config or {}
    KubernetesExecutor.execute_async(
        executor, key_of(workload), [workload], workload.ti.queue, config_of_task
    )
    scheduler = SimpleNamespace(
        log=logging.getLogger("scheduler"),
        kube_config=config,
        namespace=config.kube_namespace,
        scheduler_job_id=JOB_ID,
        supports_task_instance_uuid=getattr(KubernetesExecutor, "supports_task_instance_uuid", False),
        run_pod_async=lambda pod, **_: made.append(pod),
        # Newer providers have a method of its own for this part.
        _build_pod_request=lambda job: AirflowKubernetesScheduler._build_pod_request(scheduler, job),
    )
    AirflowKubernetesScheduler.run_next(scheduler, queue.get())
    return PodGenerator.serialize_pod(made[0])


def factory(config: Any, extra: Callable[[str | None], Mapping[str, Any] | None] = no_extra) -> PodFactory:
    return PodFactory(config, JOB_ID, extra)


def container(name: str = "base", **fields: Any) -> Any:
    return k8s.V1Container(name=name, **fields)


def spec(**fields: Any) -> Any:
    return k8s.V1Pod(spec=k8s.V1PodSpec(**{"containers": [], **fields}))


def base(**fields: Any) -> Any:
    return spec(containers=[container(**fields)])


def metadata(**fields: Any) -> Any:
    return k8s.V1Pod(metadata=k8s.V1ObjectMeta(**fields))


OVERRIDES: dict[str, Callable[[], Any]] = {
    "nothing": k8s.V1Pod,
    "image": lambda: base(image="special:2"),
    "empty image": lambda: base(image=""),
    "env": lambda: base(
        env=[
            k8s.V1EnvVar(name="A", value="1"),
            k8s.V1EnvVar(
                name="B",
                value_from=k8s.V1EnvVarSource(secret_key_ref=k8s.V1SecretKeySelector(key="k", name="s")),
            ),
        ],
        env_from=[k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name="c"))],
    ),
    "resources": lambda: base(
        resources=k8s.V1ResourceRequirements(requests={"cpu": "1"}, limits={"memory": "2Gi"})
    ),
    "volumes": lambda: k8s.V1Pod(
        spec=k8s.V1PodSpec(
            containers=[container(volume_mounts=[k8s.V1VolumeMount(mount_path="/x", name="x")])],
            volumes=[k8s.V1Volume(name="x", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Gi"))],
        )
    ),
    "init containers": lambda: spec(
        init_containers=[container("git-sync", image="sync:2"), container("other", image="other")]
    ),
    "sidecar": lambda: spec(containers=[container(), container("sidecar", image="side", args=["serve"])]),
    "labels and annotations": lambda: metadata(
        labels={"team": "a", "dag_id": "mine", "try_number": "9"},
        annotations={"note": "b", "run_id": "mine", "map_index": "4"},
    ),
    "empty labels": lambda: metadata(labels={}, annotations={}),
    "name": lambda: metadata(name=FIXED),
    "namespace": lambda: metadata(namespace="elsewhere"),
    "args": lambda: base(args=["echo", "x"], command=["sh"]),
    "another name of the container": lambda: spec(containers=[container("job", image="i")]),
    "placement": lambda: spec(
        tolerations=[k8s.V1Toleration(key="gpu", operator="Exists", toleration_seconds=3)],
        node_selector={"disk": "ssd"},
        affinity=k8s.V1Affinity(
            node_affinity=k8s.V1NodeAffinity(
                required_during_scheduling_ignored_during_execution=k8s.V1NodeSelector(
                    node_selector_terms=[
                        k8s.V1NodeSelectorTerm(
                            match_expressions=[
                                k8s.V1NodeSelectorRequirement(key="z", operator="In", values=["a"])
                            ]
                        )
                    ]
                )
            )
        ),
    ),
    "everything else": lambda: k8s.V1Pod(
        api_version="v1",
        kind="Pod",
        metadata=k8s.V1ObjectMeta(
            finalizers=["f"],
            owner_references=[k8s.V1OwnerReference(api_version="v1", kind="Job", name="j", uid="u")],
        ),
        spec=k8s.V1PodSpec(
            containers=[],
            restart_policy="OnFailure",
            priority_class_name="p",
            host_network=False,
            termination_grace_period_seconds=0,
            image_pull_secrets=[k8s.V1LocalObjectReference(name="s")],
            security_context=k8s.V1PodSecurityContext(run_as_user=1),
        ),
    ),
}


RUN_ID = "scheduled__2024-01-01T00:00:00+00:00"
FIXED = "my-name"
"""The name in the override ``name``; all others end at random."""


def task(pod_override: Any = None, **fields: Any) -> Any:
    """An ``ExecuteTask`` with that override, or with the whole ``executor_config``."""
    config = fields.pop("executor_config", {"pod_override": pod_override} if pod_override else None)
    workload = make_task(**{"run_id": RUN_ID, **fields})
    return workload.model_copy(update={"ti": workload.ti.model_copy(update={"executor_config": config})})


def without_suffix(manifest: Any) -> Any:
    """The manifest with its name apart; the random end of the name is cut off."""
    manifest = copy.deepcopy(manifest)
    name = manifest["metadata"].pop("name")
    return name if name == FIXED else re.fullmatch(r"(.*-)[a-z0-9]{8}", name)[1], manifest


def assert_same(config: Any, workload: Any, extra: Extra = no_extra, pods: Any = None) -> Any:
    """Ours is Airflow's, twice: as the first of its kind and out of the cache."""
    pods = pods or factory(config, extra)
    expected = airflows(config, workload, extra)
    first, second = pods.build(workload, key_of(workload)), pods.build(workload, key_of(workload))
    # As text, in which 1 and True differ.
    texts = [json.dumps(without_suffix(each), sort_keys=True) for each in (first, second, expected)]
    assert texts == [texts[-1]] * 3
    return first


def assert_invalid(pods: PodFactory, workload: Any, *words: str) -> None:
    """No pod, and one line that has these words in it."""
    with pytest.raises(InvalidTask) as raised:
        pods.build(workload, key_of(workload))
    text = str(raised.value)
    assert "\n" not in text
    for each in words:
        assert each in text
