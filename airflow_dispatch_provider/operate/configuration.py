# SPDX-License-Identifier: Apache-2.0
"""The configuration of a router, for the process that asks: that of the API server, which has the same airflow.cfg
and the same file as the schedulers."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf as airflow_conf
from airflow.executors.base_executor import ExecutorConf

from airflow_dispatch_provider.bridge.backend_conf import settings_source
from airflow_dispatch_provider.executors.configured import router_classes
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from airflow_dispatch_provider.settings.source import SettingsSource


def router_source(team: str | None) -> SettingsSource:
    """Where the settings of the router of a team come from, None being everybody's. Nothing is read yet."""
    conf: Any = ExecutorConf(team) if team else airflow_conf
    router = router_classes().get(team, DispatchExecutor)
    return settings_source(conf, router.hybrid)
