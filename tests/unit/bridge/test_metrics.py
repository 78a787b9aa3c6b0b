# SPDX-License-Identifier: Apache-2.0
"""Which names are sent, as Airflow's metrics are configured, and that every one of them is allowed."""

from __future__ import annotations

import re

import pytest

from airflow_dispatch_provider.bridge import metrics
from airflow_dispatch_provider.dispatch import gauges
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.routing.reasons import Reason

OFF = metrics.Ways(False, True, False)
PLAIN, BOTH, TAGGED = (metrics.Ways(True, *each) for each in ((True, False), (True, True), (False, True)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, OFF),
        ({"statsd_influxdb_enabled": "True"}, OFF),
        ({"statsd_on": "True"}, PLAIN),
        ({"statsd_on": "True", "legacy_names_on": "False"}, PLAIN),
        ({"statsd_on": "True", "statsd_influxdb_enabled": "True"}, BOTH),
        ({"otel_on": "True"}, BOTH),
        ({"otel_on": "True", "legacy_names_on": "False"}, TAGGED),
        ({"otel_on": "True", "statsd_on": "True"}, PLAIN),
        ({"statsd_datadog_enabled": "True"}, BOTH),
        ({"statsd_datadog_enabled": "True", "statsd_datadog_metrics_tags": "False"}, PLAIN),
    ],
)
def test_ways(options: dict[str, str], expected: metrics.Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tags, the backend has to be in the name; with them, ``legacy_names_on`` decides whether it is."""
    for option, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__METRICS__{option.upper()}", value)
    metrics.ways.cache_clear()
    found = metrics.ways()
    metrics.ways.cache_clear()
    assert found == expected


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("gpu_2-a", "gpu_2-a"), ("Exécuteur", "Ex_cuteur"), ("a.b", "a_b"), ("x:1|c", "x_1_c")],
)
def test_what_statsd_does_not_allow_is_replaced(backend: str, expected: str) -> None:
    """A dot would begin another part of the name, a colon its value."""
    assert metrics.safe(backend) == expected


def test_no_name_is_too_long() -> None:
    """With the longest name of a backend; Airflow drops names above 250 letters, with a prefix of the user's."""
    reasons = [each.value for each in (*Reason, *Waits)]
    names = gauges.names("x" * 60, *reasons)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,150}", name) for name in names)
