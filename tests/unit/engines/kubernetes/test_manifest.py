# SPDX-License-Identifier: Apache-2.0
"""Worker pods equal those of Airflow's executor, and reuse what they can."""

from __future__ import annotations

import copy
import json
import re

import pytest
from airflow.providers.cncf.kubernetes.executors import kubernetes_executor_types
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import KubernetesExecutor
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import models as k8s

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.kubernetes import labels
from airflow_dispatch_provider.engines.kubernetes.manifest import PodFactory

from .building import (
    JOB_ID,
    OVERRIDES,
    TEMPLATE,
    TEMPLATES,
    assert_invalid,
    assert_same,
    base,
    factory,
    key_of,
    kube_config,
    metadata,
    no_extra,
    spec,
    task,
    without_suffix,
)

# Equality


@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_templates_and_overrides(template, override):
    """Every template of the provider with every kind of override."""
    assert_same(kube_config(template), task(OVERRIDES[override]()))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_without_override(template):
    """A task like most."""
    assert_same(kube_config(template), task())


@pytest.mark.parametrize(
    "fields",
    [
        {"map_index": 0},
        {"map_index": 12, "try_number": 3},
        {"run_id": "manual"},
        {"dag_id": "d" * 200, "task_id": "group." + "t" * 200, "run_id": "r" * 200},
        {"dag_id": "größe", "task_id": "任务1", "run_id": "x ёж/\\\"'{}"},
        {"dag_id": "-._x_.-", "task_id": "_a_", "run_id": "-2"},
        {"dag_id": "mark", "task_id": "{args}", "run_id": "%s $name"},
        {"try_number": 1_000_000_000},
        {"queue": "other", "token": "eyJhbGciOi.eyJzdWIi.c2ln"},
    ],
    ids=str,
)
@pytest.mark.parametrize("override", [None, "labels and annotations", "args"])
def test_tasks(fields, override):
    """Mapped ones, and names that are not fit for labels."""
    assert_same(kube_config(), task(OVERRIDES[override]() if override else None, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"dag_id": "レポート", "task_id": "集計", "run_id": "手動"},
        {"dag_id": "_", "task_id": "_", "run_id": "-"},
        {"dag_id": "ё" * 200, "task_id": "___"},
    ],
    ids=str,
)
def test_ids_without_an_ascii_letter_or_digit_make_a_pod_that_the_api_server_takes(fields):
    """The provider's own names and labels for them begin with a dash (HTTP 422)."""
    metadata = factory(kube_config()).build(workload := task(None, **fields), key_of(workload))["metadata"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", metadata["name"])
    assert metadata["annotations"]["task_id"] == fields["task_id"]
    for value in metadata["labels"].values():
        assert re.fullmatch(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", value)
    ti = workload.ti
    found = dict(term.split("=") for term in labels.selector(ti, ti.try_number, JOB_ID).split(","))
    assert found.items() <= metadata["labels"].items()


def test_the_pods_of_an_unknown_scheduler_are_selected_as_those_of_any():
    """And not those that an operator of a Dag has made."""
    ti = task().ti
    assert labels.selector(ti, 1, None).endswith(",airflow-worker")


@pytest.mark.parametrize("namespace", ["kube-system/pods?x=", "..", "a/b", "A", "", "x" * 64, "-a", "a\n"])
def test_a_namespace_that_can_be_none_is_refused(namespace):
    """It would become part of a path that the scheduler asks for with its own rights."""
    override = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace=namespace or " "))
    assert_invalid(factory(kube_config()), task(override), "can be none")


@pytest.mark.parametrize(
    ("watched", "taken"), [((None,), True), (("airflow", "there"), True), (("airflow",), False)]
)
def test_a_namespace_whose_pods_nobody_watches_is_refused(watched, taken):
    """Nobody would see the pod end."""
    pods = PodFactory(kube_config(), JOB_ID, no_extra, watched)
    override = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace="there"))
    if taken:
        assert pods.build(workload := task(override), key_of(workload))["metadata"]["namespace"] == "there"
    else:
        assert_invalid(pods, task(override), "namespace there", "multi_namespace_mode")


def test_a_neutral_pod_is_one_of_the_backends_template(hook):
    """For no task, and without a token; the mutation hook has seen it, as every pod."""
    hook(lambda pod: pod.metadata.labels.update(team="a"))
    manifest = factory(kube_config(TEMPLATES[0])).plain("there")
    assert manifest["metadata"]["namespace"] == "there"
    assert manifest["metadata"]["labels"]["team"] == "a"
    (base,) = (each for each in manifest["spec"]["containers"] if each["name"] == "base")
    assert (base["image"], base["args"]) == ("repo/worker:1", ["true"])


def test_where_no_neutral_pod_can_be_made_there_is_none(hook):
    hook(lambda pod: 1 / 0)
    assert factory(kube_config()).plain("airflow") is None


@pytest.mark.parametrize("error", [SystemExit("policy"), KeyboardInterrupt(), BaseException("x")])
def test_a_hook_that_tries_to_end_the_process_fails_its_task(hook, error):
    """The thread that makes all pods goes on."""

    def end(pod: object) -> None:
        raise error

    hook(end)
    assert_invalid(factory(kube_config()), task(), "pod_mutation_hook", type(error).__name__)


@pytest.mark.parametrize("image", [None, "", "repo/other:2"])
@pytest.mark.parametrize("override", [None, "image", "empty image"])
def test_images(image, override):
    """The configuration's image, unless the override has one; the template's where neither has."""
    assert_same(kube_config(image=image), task(OVERRIDES[override]() if override else None))


def test_one_factory_serves_all_kinds_of_tasks():
    """Values cached for one task do not show up in another."""
    config = kube_config()
    pods = factory(config)
    for _ in range(2):
        for make in (lambda: None, *OVERRIDES.values()):
            for fields in ({}, {"map_index": 5}):
                assert_same(config, task(make(), **fields), pods=pods)


def test_multi_namespace_mode():
    """The override's namespace counts, and the configuration's where it has none."""
    config = kube_config(
        multi_namespace_mode=True, multi_namespace_mode_namespace_list=["a", "b"], kube_namespace="a"
    )
    assert assert_same(config, task())["metadata"]["namespace"] == "a"
    assert assert_same(config, task(metadata(namespace="b")))["metadata"]["namespace"] == "b"


def test_the_template_of_the_task():
    """``executor_config`` names another template, as text or as a path; nothing at all counts as none."""
    other = TEMPLATES[0]
    assert other != TEMPLATE
    for path in (str(other), other, "", None):
        assert_same(kube_config(), task(executor_config={"pod_template_file": path, "other": 1}))
    assert_same(
        kube_config(), task(executor_config={"pod_template_file": other, "pod_override": base(image="x")})
    )


def test_no_template():
    """Without any, the pod has only what the configuration and the override say."""
    assert_same(kube_config(""), task())
    assert_same(kube_config(""), task(OVERRIDES["everything else"]()))


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"pod_template_file": str(TEMPLATES[0])},
        {"pod_template_file": ""},
        {"worker_container_repository": "jvm", "worker_container_tag": "21"},
        {"worker_container_repository": "jvm"},
        {
            "pod_template_file": str(TEMPLATES[0]),
            "worker_container_repository": "jvm",
            "worker_container_tag": "21",
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("config", [None, {"pod_template_file": str(TEMPLATES[2])}])
@pytest.mark.skipif(
    not hasattr(KubernetesExecutor, "_coordinator_kube_image"), reason="this provider has no coordinators"
)
def test_coordinators(extra, config):
    """A queue's coordinator chooses template and image, before the task does."""
    seen = []

    def extra_of(queue):
        seen.append(queue)
        return extra

    assert_same(kube_config(), task(executor_config=config, queue="java"), extra_of)
    assert set(seen) == {"java"}


def test_the_key_is_written_into_the_pod():
    """From Airflow 3.4 on the pod carries the id of its task instance, whatever the override says."""
    workload = task(metadata(labels={"ti_id": "x"}, annotations={"task_instance_id": "x"}))
    manifest = assert_same(kube_config(), workload)
    expected = str(workload.ti.id) if AIRFLOW_V_3_4_PLUS else "x"
    assert manifest["metadata"]["labels"]["ti_id"] == expected
    assert manifest["metadata"]["annotations"]["task_instance_id"] == expected


@pytest.mark.skipif(
    not hasattr(kubernetes_executor_types, "TASK_INSTANCE_ID_LABEL"), reason="this provider has no such names"
)
def test_the_names_of_that_label_and_annotation_are_the_providers():
    """Airflow's executor finds the pods of this one, and the other way round."""
    for name in ("TASK_INSTANCE_ID_ANNOTATION", "TASK_INSTANCE_ID_LABEL"):
        assert getattr(labels, name) == getattr(kubernetes_executor_types, name)


def test_each_pod_has_a_name_of_its_own():
    """Two pods of the same task differ in it."""
    pods, workload = factory(kube_config()), task()
    assert len({pods.build(workload, key_of(workload))["metadata"]["name"] for _ in range(100)}) == 100


# Reuse


def test_prototypes_are_reused(monkeypatch):
    """Airflow's slow code runs once per kind of pod, and an override counts by its content."""
    calls = []

    def counted(function):
        def call(*args, **options):
            calls.append(function.__name__)
            return function(*args, **options)

        return staticmethod(call)

    for name in ("construct_pod", "reconcile_pods"):
        monkeypatch.setattr(PodGenerator, name, counted(getattr(PodGenerator, name)))
    pods = factory(kube_config())

    def calls_for(*overrides):
        calls.clear()
        for override in overrides:
            workload = task(override)
            pods.build(workload, key_of(workload))
        return calls.count("construct_pod"), len(calls)

    calls_for(None)
    assert calls_for(None, None) == (0, 0)
    assert calls_for(base(image="x"), base(image="x"), base(image="x")) == (0, 1)
    assert calls_for(base(image="y"), base(image="x")) == (0, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (spec(host_network=True), spec(host_network=1)),
        (metadata(labels={"a": True}), metadata(labels={"a": 1})),
        (base(), base(args=[])),
        (metadata(labels={"a": "1"}), metadata(labels={"a": 1})),
        (metadata(labels={"a": "1"}), metadata(annotations={"a": "1"})),
        (base(image="x"), base(image_pull_policy="x")),
    ],
    ids=range(6),
)
def test_overrides_that_only_look_the_same(one, other):
    """Nearly equal overrides do not share a prototype, in either order."""
    config = kube_config()
    for overrides in ((one, other), (other, one)):
        pods = factory(config)
        for override in overrides:
            assert_same(config, task(override), pods=pods)


def test_an_override_that_is_valid_but_for_its_type():
    """Airflow merges lists and no tuples: the prototype of the one is not used for the other."""
    config = kube_config()
    pods = factory(config)
    assert_same(config, task(base(env=[k8s.V1EnvVar(name="A")])), pods=pods)
    assert_invalid(pods, task(base(env=(k8s.V1EnvVar(name="A"),))), "The chosen field must be a list")


def test_an_override_that_changes_counts_as_it_is_now():
    """A Dag file may keep its pod_override and change it."""
    config, override = kube_config(), base(image="x")
    pods = factory(config)
    assert_same(config, task(override), pods=pods)
    override.spec.containers[0].image = "y"
    assert assert_same(config, task(override), pods=pods)["spec"]["containers"][0]["image"] == "y"


def test_overrides_stay_as_they_are(hook):
    """The task's own object is neither changed nor part of the pod."""
    hook(lambda pod: pod.spec.containers[0].env.clear())
    override = OVERRIDES["env"]()
    before = copy.deepcopy(override).to_dict()
    workload = task(override)
    factory(kube_config()).build(workload, key_of(workload))
    assert override.to_dict() == before


def test_what_the_caller_may_change():
    """Changes of the metadata of one manifest are not seen in the next."""
    pods, workload = factory(kube_config()), task(OVERRIDES["labels and annotations"]())
    first = pods.build(workload, key_of(workload))
    untouched = copy.deepcopy(first)
    first["metadata"]["labels"].clear()
    first["metadata"]["annotations"]["x"] = "y"
    first["metadata"]["namespace"] = "elsewhere"
    first["spec"] = {}
    second = pods.build(workload, key_of(workload))
    assert without_suffix(second) == without_suffix(untouched)


def test_a_provider_that_writes_task_values_elsewhere(monkeypatch):
    """Where the prototype cannot be trusted, Airflow's code runs for every task."""
    construct = PodGenerator.construct_pod

    def construct_pod(**options):
        pod = construct(**options)
        pod.spec.hostname = f"host-{options['dag_id']}"
        pod.metadata.labels["attempt"] = f"try-{options['try_number']}"
        return pod

    monkeypatch.setattr(PodGenerator, "construct_pod", construct_pod)
    for override in (None, base(image="x")):
        workload = task(override, dag_id="this-dag", try_number=7)
        manifest = factory(kube_config()).build(workload, key_of(workload))
        assert manifest["spec"]["hostname"] == "host-this-dag"
        assert manifest["metadata"]["labels"]["attempt"] == "try-7"
        assert "mark" not in json.dumps(manifest)
