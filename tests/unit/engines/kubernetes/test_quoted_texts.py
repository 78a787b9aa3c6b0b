# SPDX-License-Identifier: Apache-2.0
"""Quotes in a task's failure, out of code and objects of users."""

from __future__ import annotations

import pytest
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask
from tests.known_places import SECRET, TEXTS

from .building import base, factory, key_of, kube_config, task


class _Raising(dict):
    """An ``executor_config`` of which nothing can be read."""

    def get(self, key, default=None):
        raise ValueError(dict.get(self, "text"))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("where", ["executor_config", "pod_override", "pod"])
def test_no_secret_of_a_known_place_is_quoted(where, text, monkeypatch):
    """Words of the client, or of an object of the user's, are part of the task's failure, which everybody may read."""

    def fail(*args, **kwargs):
        raise ValueError(text)

    workload = task(base(image="x"))
    if where == "executor_config":
        workload = task(executor_config=_Raising(text=text))
    elif where == "pod_override":
        monkeypatch.setattr(PodGenerator, "reconcile_pods", fail)
    else:
        monkeypatch.setattr("airflow_dispatch_provider.engines.kubernetes.manifest.Prototype", fail)
    pods = factory(kube_config())
    with pytest.raises(InvalidTask, match="ValueError: ") as raised:
        pods.build(workload, key_of(workload))
    assert SECRET not in str(raised.value)
    assert "***" in str(raised.value)


@pytest.mark.parametrize("text", TEXTS)
def test_no_secret_of_a_known_place_that_a_hook_raises_is_quoted(text, hook):
    """It is part of the task's failure, which everybody may read."""

    def fail(pod):
        raise RuntimeError(text)

    hook(fail)
    with pytest.raises(InvalidTask, match=r"pod_mutation_hook raised RuntimeError: ") as raised:
        factory(kube_config()).build(workload := task(), key_of(workload))
    assert SECRET not in str(raised.value)
