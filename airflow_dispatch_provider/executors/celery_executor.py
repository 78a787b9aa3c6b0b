# SPDX-License-Identifier: Apache-2.0
"""Tasks on Celery workers, with all traffic with the broker and the result backend off the scheduler's thread."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from airflow.providers.celery.executors.celery_executor import CeleryExecutor as AirflowCeleryExecutor
from airflow.providers.celery.executors.celery_executor_utils import create_celery_app
from celery import Celery

from airflow_dispatch_provider.bridge.executor_classes import workload_kinds
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.engines.celery.checks import app_problems, celery_doubts, conf_problems
from airflow_dispatch_provider.engines.celery.engine import CeleryEngine
from airflow_dispatch_provider.engines.celery.servers import CeleryOptions, servers_of
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.executors.standalone import Standalone
from airflow_dispatch_provider.lifecycle.events import BackendRules


class CeleryExecutor(Standalone):
    """Sends workloads to Celery workers, with the app, the options, the messages and the workers of Airflow's
    CeleryExecutor.

    An outage of the broker fails no task: what was not sent is held until it is back.
    """

    rules: ClassVar[BackendRules] = BackendRules(by_queue=True)
    counts_workers = True

    # Of Airflow's class, since the workers are the same. It is no base class: what it keeps, the engine keeps.
    sentry_integration = AirflowCeleryExecutor.sentry_integration
    supports_sentry = AirflowCeleryExecutor.supports_sentry
    supports_ad_hoc_ti_run = AirflowCeleryExecutor.supports_ad_hoc_ti_run
    pre_assigns_external_executor_id = AirflowCeleryExecutor.pre_assigns_external_executor_id
    get_cli_commands = staticmethod(AirflowCeleryExecutor.get_cli_commands)
    if AIRFLOW_V_3_4_PLUS:
        supported_workload_types = AirflowCeleryExecutor.supported_workload_types
    else:
        supports_callbacks = AIRFLOW_V_3_2_PLUS

    @cached_property
    def celery_app(self) -> Celery:
        """Airflow's, made of this executor's own configuration."""
        return create_celery_app(self.conf)

    def make_engine(self, name: str, slots: int, *, counts_workers: bool = False) -> CeleryEngine:
        """See ``protocols.HasEngine``."""
        if problems := self.config_problems():
            raise DispatchConfigError(problems)
        options = CeleryOptions.of(self.conf)
        return CeleryEngine(
            name,
            lambda: servers_of(lambda: self.celery_app, options, counts_workers),
            slots,
            options,
            workload_kinds(self),
        )

    def config_problems(self) -> list[Problem]:
        """See ``protocols.ChecksConfig``: broker, result backend, transport options, certificates, modules."""
        return self.conf_problems(self.conf) or app_problems(self.celery_app)

    @staticmethod
    def conf_problems(conf: Any) -> list[Problem]:
        """See ``protocols.ChecksConf``: the Celery app could not be made of these options."""
        return conf_problems(conf)

    def config_doubts(self) -> list[Problem]:
        """See ``protocols.DoubtsConfig``: transport options that look misspelt."""
        return list(celery_doubts(self.celery_app))
