# SPDX-License-Identifier: Apache-2.0
"""The executor of Airflow 2 that ran one queue on Kubernetes and everything else on this machine."""

from __future__ import annotations

from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from airflow_dispatch_provider.settings.presets import LOCAL_KUBERNETES


class LocalKubernetesExecutor(DispatchExecutor):
    """Routes ``[local_kubernetes_executor] kubernetes_queue`` to the backend ``kubernetes``, everything else to the
    backend ``local``, and takes ``[dispatch]`` on top: see ``settings.presets``."""

    hybrid = LOCAL_KUBERNETES
