# SPDX-License-Identifier: Apache-2.0
"""Executors as others write them."""

from __future__ import annotations

from typing import Any

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.testing import InMemoryExecutor


class NoArguments(InMemoryExecutor):
    """Its constructor takes nothing, as Airflow calls it."""

    def __init__(self) -> None:
        super().__init__()


class CountsTwice(InMemoryExecutor):
    """Takes what runs off its open slots a second time."""

    @property
    def slots_occupied(self) -> int:
        return 2 * len(self.running)

    if AIRFLOW_V_3_4_PLUS:

        def trigger_workloads(self, open_slots: int) -> None:
            base: Any = BaseExecutor
            base.trigger_workloads(self, open_slots - len(self.running))

    else:

        def trigger_tasks(self, open_slots: int) -> None:
            base: Any = BaseExecutor
            base.trigger_tasks(self, open_slots - len(self.running))
