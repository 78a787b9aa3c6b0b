# SPDX-License-Identifier: Apache-2.0
"""Options of ``[kubernetes_executor]``, in the words of the provider's ``KubeConfig``. Up to provider 10.13, that one
reads the options of the whole Airflow, and never those of one backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_dispatch_provider.engines.kubernetes.cluster import SECTION


@dataclass(frozen=True)
class KubeConfig:
    """The attributes of the provider's class that this engine uses, with the same values."""

    kube_namespace: str
    kube_image: str | None
    pod_template_file: str

    multi_namespace_mode: bool
    multi_namespace_mode_namespace_list: list[str] | None
    """None: all namespaces, where there may be several."""

    worker_pod_pending_fatal_container_state_reasons: list[str]
    delete_worker_pods: bool
    delete_worker_pods_on_failure: bool
    delete_option_kwargs: Mapping[str, Any]
    kube_client_request_args: Mapping[str, Any]

    @classmethod
    def of(cls, conf: Any) -> KubeConfig:
        """
        :param conf: the executor's own configuration
        """
        several = conf.getboolean(SECTION, "multi_namespace_mode")
        listed = _words(conf, "multi_namespace_mode_namespace_list") if several else []
        reasons = _words(conf, "worker_pod_pending_fatal_container_state_reasons")
        return cls(
            kube_namespace=conf.get(SECTION, "namespace"),
            kube_image=_image(conf),
            pod_template_file=conf.get(SECTION, "pod_template_file", fallback=""),
            multi_namespace_mode=several,
            multi_namespace_mode_namespace_list=listed or None,
            worker_pod_pending_fatal_container_state_reasons=[each.strip() for each in reasons],
            delete_worker_pods=conf.getboolean(SECTION, "delete_worker_pods"),
            delete_worker_pods_on_failure=conf.getboolean(SECTION, "delete_worker_pods_on_failure"),
            delete_option_kwargs=conf.getjson(SECTION, "delete_option_kwargs", fallback={}),
            kube_client_request_args=_request_args(conf),
        )


def _words(conf: Any, option: str) -> list[str]:
    text = conf.get(SECTION, option, fallback="")
    return text.split(",") if text else []


def _image(conf: Any) -> str | None:
    repository, tag = (conf.get(SECTION, f"worker_container_{each}") for each in ("repository", "tag"))
    return f"{repository}:{tag}" if repository and tag else None


def _request_args(conf: Any) -> Mapping[str, Any]:
    """With a list of two times as a tuple, as the client wants it."""
    given = conf.getjson(SECTION, "kube_client_request_args", fallback={})
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
