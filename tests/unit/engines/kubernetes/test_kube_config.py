# SPDX-License-Identifier: Apache-2.0
"""The options of one backend have the values that the provider reads of the whole Airflow's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pytest
from airflow.configuration import conf
from airflow.providers.cncf.kubernetes import kube_config as provider

from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.engines.kubernetes.kube_config import KubeConfig

OPTIONS: list[dict[str, str]] = [
    {},
    {"namespace": "pods", "pod_template_file": "/pod.yaml"},
    {"worker_container_repository": "r", "worker_container_tag": "t"},
    {"worker_container_repository": "r"},
    {"worker_container_tag": "t"},
    {"multi_namespace_mode": "True"},
    {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": "a,b"},
    {"multi_namespace_mode": "False", "multi_namespace_mode_namespace_list": "a,b"},
    {"worker_pod_pending_fatal_container_state_reasons": "ErrImagePull, CreateContainerError"},
    {"worker_pod_pending_fatal_container_state_reasons": ""},
    {"delete_worker_pods": "False", "delete_worker_pods_on_failure": "True"},
    {"delete_option_kwargs": '{"grace_period_seconds": 0}'},
    {"kube_client_request_args": '{"_request_timeout": 30}'},
    {"kube_client_request_args": '{"_request_timeout": [5, 30.5]}'},
    {"kube_client_request_args": '{"_request_timeout": null}'},
    {"kube_client_request_args": "{}"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_value_is_the_providers(options: Mapping[str, str], monkeypatch: pytest.MonkeyPatch):
    """Of Airflow's own options, which every version of the provider can read."""
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}", value)
    theirs, ours = provider.KubeConfig(), asdict(KubeConfig.of(conf))
    assert ours == {name: getattr(theirs, name) for name in ours}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_backend_has_options_of_its_own(options: Mapping[str, str], monkeypatch: pytest.MonkeyPatch):
    """The values are those that Airflow would have with the same options."""
    mine = KubeConfig.of(BackendConf("k", {"kubernetes_executor": dict(options)}, conf))
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}", value)
    assert mine == KubeConfig.of(conf)
