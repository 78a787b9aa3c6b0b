# SPDX-License-Identifier: Apache-2.0
"""The page about metrics has each that the package sends, and each of the providers that it does not send."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.providers.celery.executors import celery_executor, celery_executor_utils
from airflow.providers.cncf.kubernetes.executors import kubernetes_executor, kubernetes_executor_utils

from airflow_dispatch_provider.bridge import metrics

from .pages import DOCS

PAGE = (DOCS / "reference" / "metrics.md").read_text()
PROVIDERS = [celery_executor, celery_executor_utils, kubernetes_executor, kubernetes_executor_utils]


class Client:
    """Notes the names that it is given."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def gauge(self, name: str, value: float) -> None:
        self.names.append(name)

    def incr(self, name: str, count: int = 1, tags: Any = None) -> None:
        self.names.append(name)


def test_every_metric_of_the_package_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    monkeypatch.setattr(metrics, "stats", lambda: client)
    metrics.gauge_backend("<backend>", open_slots=1, running=1, held=1)
    metrics.count_dispatches("<backend>", "overflow", 1)
    metrics.count_failure("<backend>")
    metrics.gauge_refused_file(True)
    assert len(client.names) == 6
    assert [name for name in client.names if f"\n| `{name}` |" not in PAGE] == []


def sent_by(provider: ModuleType) -> set[str]:
    source = Path(str(provider.__file__)).read_text()
    return {*re.findall(r'"((?:celery|kubernetes_executor)\.[a-z_.]+)"', source)}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.__name__.rpartition(".")[2])
def test_every_metric_of_a_provider_is_accounted_for(provider: ModuleType) -> None:
    assert sent_by(provider)
    rows = PAGE[PAGE.index("## Airflow's, of CeleryExecutor") :]
    assert [name for name in sent_by(provider) if f"`{name}`" not in rows] == []
