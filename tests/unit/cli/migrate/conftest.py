# SPDX-License-Identifier: Apache-2.0
"""No options from the environment but those that a test sets."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_options(_no_configuration: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW__")]:
        monkeypatch.delenv(name)
