# SPDX-License-Identifier: Apache-2.0
"""Tasks on the scheduler's machine: one process tree per running task, none while idle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_dispatch_provider.engines.local._options import PRELOAD, local_options
from airflow_dispatch_provider.engines.local.engine import LocalEngine
from airflow_dispatch_provider.engines.local.messages import Runner
from airflow_dispatch_provider.executors.standalone import Standalone

log = logging.getLogger(__name__)


class LocalExecutor(Standalone):
    """Runs workloads on this machine, each supervised in a process of its own, forked from a template process.

    At most ``parallelism`` have a process; the others are held, or wait for one to end, and can still be overtaken and
    revoked.
    """

    is_local = True
    serve_logs = True
    if AIRFLOW_V_3_4_PLUS:
        supported_workload_types = airflow_api.WORKLOAD_TYPES
    else:
        supports_callbacks = AIRFLOW_V_3_2_PLUS
        supports_connection_test = AIRFLOW_V_3_3_PLUS

    runner: ClassVar[Runner] = staticmethod(airflow_api.run_workload)
    """The function that runs a workload in its process; importable by name."""

    warm_up: ClassVar[Callable[[Any], object]] = staticmethod(airflow_api.warm_up)
    """The function that the template process calls once, so that no workload has to; importable by name."""

    preload: ClassVar[tuple[str, ...]] = PRELOAD
    """Modules that the template process imports, besides those of ``[dispatch] local_preload``."""

    def make_engine(self, name: str, slots: int, *, counts_workers: bool = False) -> LocalEngine:
        """See ``protocols.HasEngine``; there are no workers to count."""
        cls = type(self)
        options = local_options(self.conf, self.preload)
        return LocalEngine(
            name, slots, self.conf, options, team=self.team_name, runner=cls.runner, warm_up=cls.warm_up
        )

    def debug_dump(self) -> None:
        """Called in a signal handler, so it takes no lock."""
        super().debug_dump()
        for engine in self._loop.engines.values() if self._loop is not None else ():
            pids: Any = getattr(engine, "pids", dict)
            log.info("Processes: %s", pids())
