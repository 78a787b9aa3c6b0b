# SPDX-License-Identifier: Apache-2.0
"""Executors that run nothing, under the names that Dags ask for."""

from __future__ import annotations

from airflow_dispatch_provider.testing import InMemoryExecutor


class CeleryExecutor(InMemoryExecutor):
    pass


class KubernetesExecutor(InMemoryExecutor):
    pass
