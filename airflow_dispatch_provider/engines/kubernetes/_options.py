# SPDX-License-Identifier: Apache-2.0
"""The options of one Kubernetes backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dispatch_provider.engines.kubernetes.finisher import delete_options
from airflow_dispatch_provider.engines.kubernetes.kube_config import KubeConfig


@dataclass(frozen=True)
class KubernetesOptions:
    """Where pods are made, and what becomes of them."""

    namespace: str
    """Of pods that name no other."""

    watched: tuple[str | None, ...]
    """Namespaces to watch; None: all of them."""

    limit: int = 32
    """Requests of one kind at a time: ``[dispatch] kubernetes_concurrency``."""

    max_unsent: int = 250
    """Jobs on their way to the server at a time: ``[dispatch] kubernetes_max_unsent``."""

    fatal_reasons: tuple[str, ...] = ()
    """``[kubernetes_executor] worker_pod_pending_fatal_container_state_reasons``."""

    delete: bool = True
    delete_failed: bool = False
    delete_options: Mapping[str, Any] = field(default_factory=dict)
    """``delete_option_kwargs`` in the API's words."""

    request_args: Mapping[str, Any] = field(default_factory=dict)
    """``kube_client_request_args``."""

    @property
    def named(self) -> tuple[str, ...]:
        """The namespaces to watch; none where all of them are."""
        return () if None in self.watched else tuple(filter(None, self.watched))


def options_of(kube_config: KubeConfig, conf: Any) -> KubernetesOptions:
    """
    :param kube_config: from the backend's own configuration
    :param conf: that configuration
    """
    return KubernetesOptions(
        namespace=kube_config.kube_namespace,
        watched=watched(kube_config),
        limit=conf.getint("dispatch", "kubernetes_concurrency", fallback=32),
        max_unsent=conf.getint("dispatch", "kubernetes_max_unsent", fallback=250),
        fatal_reasons=tuple(kube_config.worker_pod_pending_fatal_container_state_reasons),
        delete=kube_config.delete_worker_pods,
        delete_failed=kube_config.delete_worker_pods_on_failure,
        delete_options=delete_options(kube_config.delete_option_kwargs),
        request_args=kube_config.kube_client_request_args,
    )


def namespaces(kube_config: KubeConfig) -> tuple[str | None, ...]:
    """Those that the backend is configured for; None: all."""
    if not kube_config.multi_namespace_mode:
        return (kube_config.kube_namespace,)
    return tuple(kube_config.multi_namespace_mode_namespace_list or (None,))


def watched(kube_config: KubeConfig) -> tuple[str | None, ...]:
    """Pods that name no namespace are in that of the backend, which a list of several may leave out."""
    listed, home = namespaces(kube_config), kube_config.kube_namespace
    return listed if {None, home} & {*listed} else (*listed, home)
