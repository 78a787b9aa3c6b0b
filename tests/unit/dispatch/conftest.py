# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from .support import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A monotonic clock that stands still until the test moves it."""
    stopped = Clock()
    monkeypatch.setattr("airflow_dispatch_provider.executors.face.time", stopped)
    return stopped
