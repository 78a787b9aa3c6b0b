# SPDX-License-Identifier: Apache-2.0
"""Executors of a user's."""

from __future__ import annotations

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor


class MyCeleryExecutor(CeleryExecutor):
    """May read options of its own besides."""


class TasksOnly(BaseExecutor):
    """Runs neither callbacks nor connection tests."""
