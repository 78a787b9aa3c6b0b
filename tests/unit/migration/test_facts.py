# SPDX-License-Identifier: Apache-2.0
"""The migration's knowledge of options agrees with what the executors read."""

from __future__ import annotations

from airflow_dispatch_provider.bridge.options.reads import ENGINES
from airflow_dispatch_provider.migration import facts
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES


def test_options_of_kubernetes_without_effect_are_those_of_the_executor() -> None:
    """The migration may not ask the executors, so it has the names a second time."""
    known = ENGINES[EXECUTOR_ALIASES["KubernetesExecutor"]].without_effect
    assert {name for _, name in known} == {*facts._NO_EFFECT}
