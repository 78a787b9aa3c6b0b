# SPDX-License-Identifier: Apache-2.0
"""The description of this package for Airflow; called by its ProvidersManager in every process."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.settings.options import CONFIG

EXECUTORS = (
    "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor",
    "airflow_dispatch_provider.executors.local_executor.LocalExecutor",
    "airflow_dispatch_provider.executors.celery_executor.CeleryExecutor",
    "airflow_dispatch_provider.executors.kubernetes_executor.KubernetesExecutor",
    "airflow_dispatch_provider.executors.celery_kubernetes_executor.CeleryKubernetesExecutor",
    "airflow_dispatch_provider.executors.local_kubernetes_executor.LocalKubernetesExecutor",
)


def get_provider_info() -> dict[str, Any]:
    """The provider metadata (schema: ``provider_info.schema.json`` of Airflow)."""
    return {
        "package-name": "airflow-dispatch-provider",
        "name": "Dispatch",
        "description": "Executors that choose a backend for every task by its queue.",
        "executors": list(EXECUTORS),
        "config": CONFIG,
        "db-managers": ["airflow_dispatch_provider.bridge.database.manager.DispatchDBManager"],
        "cli": ["airflow_dispatch_provider.cli.definition.get_dispatch_cli_commands"],
    }
