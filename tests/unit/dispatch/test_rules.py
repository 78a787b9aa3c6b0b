# SPDX-License-Identifier: Apache-2.0
"""The users' settings as the life cycle has them."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.dispatch.rules import machine_settings
from airflow_dispatch_provider.lifecycle import events
from airflow_dispatch_provider.lifecycle.events import BackendRules
from airflow_dispatch_provider.routing.model import Route, Target, TaskRef
from airflow_dispatch_provider.settings.model import BackendSettings, Limits, Settings
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY


@pytest.mark.parametrize(
    ("executor", "rules"),
    [
        ("LocalExecutor", BackendRules()),
        ("CeleryExecutor", BackendRules(by_queue=True)),
        (IN_MEMORY, BackendRules()),
        # Whose class cannot be had, or does not say that it can revoke; Airflow's own can since 3.4.
        ("no.such.Executor", BackendRules()),
        ("airflow.executors.base_executor.BaseExecutor", BackendRules()),
        ("airflow.executors.local_executor.LocalExecutor", BackendRules(revokes=AIRFLOW_V_3_4_PLUS)),
    ],
)
@pytest.mark.parametrize("cordoned", [False, True])
def test_rules_of_a_backend(executor: str, rules: BackendRules, cordoned: bool) -> None:
    """As its class says, with the users' own limits."""
    settings = Settings(
        {"x": BackendSettings(executor, 3, cordoned=cordoned)},
        (Route(queue="q", to=(Target(backend="x", queue="there"),)),),
        Route(queue="*", to=(Target(backend="x"),)),
        Limits(retry_min_delay=2.0, retry_max_delay=33.0),
    )
    limits = events.Limits(look_every=7.0)
    made = machine_settings(settings, limits)
    found = made.backends["x"]
    assert (found.by_queue, found.revokes) == (rules.by_queue, rules.revokes)
    assert (found.cordoned, found.min_delay, found.max_delay) == (cordoned, 2.0, 33.0)
    assert made.limits is limits
    assert [made.routes.match(TaskRef(queue)).route.to[0].queue for queue in ("q", "p")] == ["there", None]
