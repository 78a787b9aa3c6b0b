# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from airflow import settings

from airflow_dispatch_provider.engines.kubernetes import trouble


@pytest.fixture
def little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and jitter take so little time that a test can still see them, and do not grow."""
    monkeypatch.setattr(trouble, "growing_delay", lambda *_: 1.0)
    monkeypatch.setattr(trouble.random, "uniform", lambda low, high: 0.05)


@pytest.fixture
def hook(monkeypatch):
    """Installs a mutation hook."""
    return lambda function: monkeypatch.setattr(settings, "pod_mutation_hook", function)
