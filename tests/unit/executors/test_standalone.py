# SPDX-License-Identifier: Apache-2.0
"""Facts that the executors over one engine share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor
from airflow_dispatch_provider.executors.kubernetes_executor import KubernetesExecutor
from airflow_dispatch_provider.executors.local_executor import LocalExecutor


class Asked(Exception):
    """An engine was asked for, with so many slots."""


def ask(self, name, slots, **rest):
    raise Asked(slots)


@pytest.mark.parametrize("cls", [CeleryExecutor, KubernetesExecutor, LocalExecutor])
def test_a_team_has_the_parallelism_of_its_own_configuration(cls, monkeypatch):
    """Airflow's base class reads the number of no team."""
    monkeypatch.setattr(cls, "make_engine", ask)
    executor = cls()
    executor.team_name = "science"
    # A reader that knows this one number.
    executor.conf = SimpleNamespace(getint=lambda *names: {("core", "parallelism"): 5}[names])
    with pytest.raises(Asked, match=r"^5$"):
        executor.start()
