# SPDX-License-Identifier: Apache-2.0
"""``pod_mutation_hook``: sees what Airflow would show it, and does what it does there."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
from airflow import settings
from airflow.policies import hookimpl, make_plugin_from_local_settings
from kubernetes.client import models as k8s

from airflow_dispatch_provider.bridge.airflow_api import has_pod_mutation_hook
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.kubernetes.engine import KubernetesEngine

from .building import OVERRIDES, assert_invalid, assert_same, factory, key_of, kube_config, task


@pytest.fixture
def manager():
    """Airflow's registry of hooks, as it was before afterwards."""
    manager = settings.get_policy_plugin_manager() if AIRFLOW_V_3_2_PLUS else settings.POLICY_PLUGIN_MANAGER
    plugins = []

    def register(plugin):
        plugins.append(plugin)
        manager.register(plugin)

    yield SimpleNamespace(hook=manager.hook, register=register)
    for plugin in plugins:
        manager.unregister(plugin)


def change(pod):
    """A hook as users write them."""
    pod.metadata.labels["hooked"] = pod.metadata.labels["dag_id"]
    pod.metadata.annotations["hooked"] = pod.metadata.annotations["run_id"]
    del pod.metadata.labels["try_number"]
    pod.metadata.namespace = "hooked"
    pod.spec.containers[0].env.append(k8s.V1EnvVar(name="NAME", value=pod.metadata.name[:5]))
    pod.spec.containers[0].args[-1] += " "
    pod.spec.containers.append(k8s.V1Container(name="sidecar", image="i"))
    pod.spec.tolerations = [*(pod.spec.tolerations or []), k8s.V1Toleration(key="hooked")]


@pytest.mark.parametrize("override", [None, *OVERRIDES])
def test_a_hook_that_changes_pods(override, hook):
    """The pod is the one that Airflow sends after the hook, also the second time."""
    hook(lambda pod: None if override == "args" else change(pod))
    assert_same(kube_config(), task(OVERRIDES[override]() if override else None, map_index=2))


def test_a_hook_that_replaces_the_labels_leaves_those_by_which_the_pod_is_found(hook):
    """Without them it would be taken for gone, and made anew again and again."""

    def replace(pod):
        pod.metadata.labels, pod.metadata.annotations = {"team": "data", "airflow-worker": "9"}, None

    hook(replace)
    metadata = factory(kube_config()).build(task(dag_id="d"), key_of(task(dag_id="d")))["metadata"]
    assert metadata["labels"]["team"] == "data"
    assert metadata["labels"]["kubernetes_executor"] == "True"
    assert metadata["labels"]["airflow-worker"] != "9"
    assert metadata["annotations"]["dag_id"] == "d"


def test_what_a_hook_sees(hook):
    """A V1Pod of the task's own, without marks, which it may copy, print and keep."""
    seen = []
    hook(lambda pod: seen.append(copy.deepcopy(pod)))
    config = kube_config()
    assert_same(config, task(OVERRIDES["env"](), map_index=3))
    airflows_pod, *ours = seen
    for pod in ours:
        assert type(pod) is k8s.V1Pod
        assert pod.metadata.name != airflows_pod.metadata.name
        pod.metadata.name = airflows_pod.metadata.name
        assert pod.to_dict() == airflows_pod.to_dict()
        assert repr(pod) == repr(airflows_pod)
        assert pod == airflows_pod
    assert ours[0].spec is not ours[1].spec


def test_a_hook_that_breaks_pods_of_others(hook):
    """The changes of a hook to one pod are not seen by the next."""
    config = kube_config()
    pods = factory(config)

    def clear(pod):
        for part in (pod.spec.containers, pod.spec.volumes, pod.metadata.labels, pod.metadata.annotations):
            part.clear()

    hook(clear)
    workload = task(OVERRIDES["env"]())
    pods.build(workload, key_of(workload))
    hook(lambda pod: None)
    assert_same(config, workload, pods=pods)


def test_a_hook_that_raises(hook):
    """The task fails with the exception."""

    def refuse(pod):
        raise ValueError(f"no pods for\n{pod.metadata.annotations['dag_id']}")

    hook(refuse)
    assert_invalid(
        factory(kube_config()), task(dag_id="d"), "pod_mutation_hook raised ValueError: no pods for d"
    )


@pytest.mark.parametrize("attribute", ["metadata", "metadata.namespace"])
def test_a_hook_that_takes_the_namespace_away(attribute, hook):
    """There is nowhere to create such a pod."""

    def remove(pod):
        *parts, last = attribute.split(".")
        for part in parts:
            pod = getattr(pod, part)
        setattr(pod, last, None)

    hook(remove)
    assert_invalid(factory(kube_config()), task(), "no namespace any more after the pod_mutation_hook")


def test_a_hook_that_takes_labels_and_name_away(hook):
    """The pod keeps the name by which it is known, the labels by which it is found, and its task's id."""

    def remove(pod):
        pod.metadata.labels = pod.metadata.annotations = pod.metadata.name = None
        pod.metadata.generate_name = "x-"

    hook(remove)
    workload = task(dag_id="d", task_id="t")
    found = factory(kube_config()).build(workload, key_of(workload))["metadata"]
    assert found["name"].startswith("d-t-")
    assert found["generateName"] == "x-"
    names = {"airflow-worker", "kubernetes_executor", *(["ti_id"] if AIRFLOW_V_3_4_PLUS else [])}
    assert found["labels"].keys() == names


@pytest.mark.parametrize(("value", "words"), [(object(), "AttributeError"), (b"bytes", "TypeError")])
def test_a_hook_that_puts_something_else_in(value, words, hook):
    """A pod that cannot be sent fails the task."""

    def spoil(pod):
        pod.metadata.labels["x"] = value

    hook(spoil)
    assert_invalid(factory(kube_config()), task(), f"The pod cannot be built: {words}")


def test_copies_of_a_pod_are_cheap(hook):
    """Its parts share one Configuration, and keep it when the hook copies them."""
    seen = []
    hook(lambda pod: seen.extend([pod, pod.spec, copy.deepcopy(pod.spec.containers[0])]))
    workload = task(OVERRIDES["env"]())
    factory(kube_config()).build(workload, key_of(workload))
    assert len({id(part.local_vars_configuration) for part in seen}) == 1


def test_the_namespace_of_a_pod_is_known_only_without_a_hook(hook):
    """A task that the hook sends elsewhere does not wait for the namespace that its task names."""
    engine = KubernetesEngine("x", 3, pieces=lambda: pytest.fail("It is not started."))
    override = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace="named"))
    workload = task(executor_config={"pod_override": override})
    assert engine.lane(workload) == "named"
    hook(change)
    assert engine.lane(workload) is None


def test_no_hook(manager, monkeypatch):
    """A stock Airflow has none, whatever else is registered."""
    assert not has_pod_mutation_hook()
    manager.register(SimpleNamespace(dag_policy=hookimpl(lambda dag: None)))
    assert not has_pod_mutation_hook()
    monkeypatch.setattr(settings, "pod_mutation_hook", lambda pod: None)
    assert has_pod_mutation_hook()


def test_a_hook_of_a_plugin(manager):
    """Registered in Airflow's policy manager."""

    class Plugin:
        @staticmethod
        @hookimpl
        def pod_mutation_hook(pod):
            pod.metadata.labels["plugin"] = "yes"

    manager.register(Plugin())
    assert assert_same(kube_config(), task())["metadata"]["labels"]["plugin"] == "yes"


def test_a_hook_in_local_settings(manager):
    """As Airflow finds it in ``airflow_local_settings``, with a parameter of any name."""

    def pod_mutation_hook(it):
        it.metadata.labels["local"] = "yes"

    module = SimpleNamespace(pod_mutation_hook=pod_mutation_hook)
    make_plugin_from_local_settings(manager, module, {"pod_mutation_hook"})
    assert assert_same(kube_config(), task())["metadata"]["labels"]["local"] == "yes"
