# SPDX-License-Identifier: Apache-2.0
"""Worker pods from templates, and what cannot be built says why."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

import pytest
from kubernetes.client import models as k8s

from airflow_dispatch_provider.engines.kubernetes import pod_template

from .building import (
    TEMPLATE,
    Failed,
    airflows,
    assert_invalid,
    assert_same,
    base,
    factory,
    key_of,
    kube_config,
    metadata,
    spec,
    task,
)

# Templates


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE.read_text())
    return path


def edit(path: Path, text: str) -> None:
    """Like an editor, or a volume of a ConfigMap: a new file takes the place of the old one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_an_edited_template_is_read_again(template):
    """Its next task has the new pod, and an unchanged file is read once."""
    config = kube_config(template)
    pods = factory(config)
    assert_same(config, task(), pods=pods)
    edit(template, template.read_text().replace("runAsUser: 50000", "runAsUser: 12345"))
    manifest = assert_same(config, task(), pods=pods)
    assert manifest["spec"]["securityContext"]["runAsUser"] == 12345


def test_an_unchanged_template_is_read_once(template, monkeypatch):
    """Reading it costs more than all the rest."""
    reads = []
    read = pod_template._read
    monkeypatch.setattr(pod_template, "_read", lambda name: reads.append(name) or read(name))
    pods = factory(kube_config(template))
    for _ in range(3):
        workload = task()
        pods.build(workload, key_of(workload))
    assert reads == [str(template)]


def test_only_so_many_templates_are_kept(template, monkeypatch):
    """A Dag that makes a template for each task does not fill the memory."""
    monkeypatch.setattr(pod_template, "MAX_TEMPLATES", 3)
    templates = pod_template.Templates()
    for number in range(10):
        path = template.with_name(f"{number}.yaml")
        path.write_text(template.read_text())
        assert templates.get(path) is templates.get(path)
    assert len(templates._known) == 3


BROKEN = {
    "not YAML": ("a: [", "is not valid"),
    "empty": ("", "a pod is a mapping, and not NoneType"),
    "a list": ("- a", "a pod is a mapping, and not list"),
    "no containers": ("spec: {}", "containers"),
    "a value that may be a secret": ("kind: Pod\nspec: *hunter2", "no YAML, see line 2"),
    "nonsense": ("metadata: 5\nspec: {containers: 3}", "is not valid"),
    "bytes": (b"\xff\xfe\x00", "cannot be read (not text in UTF-8)"),
}


@pytest.mark.parametrize(("content", "words"), BROKEN.values(), ids=BROKEN)
def test_a_template_that_turns_bad(template, content, words):
    """Its tasks fail with the file, the option and the mistake; the next good version is used at once."""
    good = template.read_text()
    config = kube_config(template)
    pods = factory(config)
    assert_same(config, task(), pods=pods)
    template.write_bytes(content.encode() if isinstance(content, str) else content)
    assert_invalid(pods, task(), "[kubernetes_executor] pod_template_file", words)
    edit(template, good)
    assert_same(config, task(), pods=pods)


@pytest.mark.parametrize("text", ["a: *hunter2", "a: !hunter2 x", "spec: hunter2"])
def test_no_value_of_a_template_is_quoted(tmp_path, text):
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    with pytest.raises(pod_template.TemplateError) as raised:
        pod_template.Templates().get(path)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(("make", "words"), [(os.mkfifo, "is a named pipe"), (os.mkdir, "is a folder")])
def test_a_template_that_is_no_file_is_not_waited_for(tmp_path, make, words):
    make(tmp_path / "pod.yaml")
    with pytest.raises(pod_template.TemplateError, match=words):
        pod_template.Templates().get(tmp_path / "pod.yaml")


def test_a_missing_template(tmp_path):
    """Says who has named it."""
    path = str(tmp_path / "missing.yaml")
    assert_invalid(factory(kube_config(path)), task(), "[kubernetes_executor] pod_template_file", path)
    own = task(executor_config={"pod_template_file": path})
    assert_invalid(factory(kube_config()), own, "the task's executor_config", path)
    coordinated = factory(kube_config(), lambda queue: {"pod_template_file": path})
    assert_invalid(coordinated, task(queue="java"), "[sdk] coordinators for queue java", path)
    assert_invalid(factory(kube_config(tmp_path)), task(), "is a folder")


# What users get wrong


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pod_override": {"spec": {}}}, "executor_config is not valid: TypeError"),
        ({"pod_override": "x"}, "executor_config is not valid: TypeError"),
        ({"KubernetesExecutor": {"image": "x"}}, "executor_config is not valid: TypeError"),
        ({"KubernetesExecutor": 1, "pod_override": k8s.V1Pod()}, "executor_config is not valid"),
        ("x", "executor_config is not valid: AttributeError"),
        (["x"], "executor_config is not valid: AttributeError"),
        ({"pod_template_file": 5}, "is a int, and not a path"),
        ({"pod_template_file": "a\0b"}, "cannot be read"),
    ],
    ids=str,
)
def test_executor_config_garbage(config, words):
    """Fails the task with the reason."""
    assert_invalid(factory(kube_config()), task(executor_config=config), words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (k8s.V1Pod(spec={"containers": []}), "cannot be merged with the pod template"),
        (k8s.V1Pod(metadata={"labels": {}}), "cannot be merged with the pod template"),
        (metadata(labels=["x"]), "cannot be merged with the pod template"),
        (base(env=(k8s.V1EnvVar(name="A"),)), "The chosen field must be a list"),
        (spec(containers=[{"name": "base"}]), "cannot be merged with the pod template"),
        (metadata(labels={"a": {1}}), "set is no part of a pod"),
        (metadata(labels={"a": b"bytes"}), "cannot be written as JSON"),
    ],
    ids=range(7),
)
def test_override_garbage(override, words):
    """An override of the right type with the wrong content fails its task alone, each time."""
    config = kube_config()
    pods = factory(config)
    for _ in range(2):
        assert_invalid(pods, task(override), words)
    assert_same(config, task(), pods=pods)
    with pytest.raises(Exception):  # noqa: B017, PT011
        json.dumps(airflows(config, task(override)))


def test_airflow_fails_the_same_tasks():
    """A bad executor_config is the task's end with Airflow's executor as well."""
    with pytest.raises(Failed):
        airflows(kube_config(), task(executor_config={"pod_override": "x"}))


def test_a_coordinator_that_raises():
    """Nothing but InvalidTask leaves the factory."""

    def extra(queue):
        raise RuntimeError("no such coordinator")

    assert_invalid(factory(kube_config(), extra), task(), "RuntimeError: no such coordinator")
