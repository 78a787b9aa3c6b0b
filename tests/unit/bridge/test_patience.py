# SPDX-License-Identifier: Apache-2.0
"""Airflow's own options for how long it waits."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.bridge.patience import overtime


@pytest.mark.parametrize(("option", "seconds"), [("20", 80.0), ("900", 960.0), ("-1", 60.0), ("20s", 60.0)])
def test_a_process_whose_task_is_over_gets_as_long_as_its_supervisor_lets_it(monkeypatch, option, seconds):
    """And a minute more for its log; never less than its engine gives it anyway, as where the option is no number."""
    monkeypatch.setenv("AIRFLOW__CORE__TASK_SUCCESS_OVERTIME", option)
    assert overtime(60.0) == seconds
