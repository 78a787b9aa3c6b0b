# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from airflow import settings


@pytest.fixture
def hook(monkeypatch):
    """Installs a mutation hook."""
    return lambda function: monkeypatch.setattr(settings, "pod_mutation_hook", function)
