# SPDX-License-Identifier: Apache-2.0
"""./dev/shell: what it starts and configures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from airflow_dispatch_provider.get_provider_info import EXECUTORS
from airflow_dispatch_provider.settings.source import SettingsSource
from devkit.shell import plan as shell_plan
from tests.unit.settings.fakes import FakeConf

pytestmark = pytest.mark.once

CELERY = {"celery": {"broker_url": "redis://b", "result_backend": "redis://r"}}
KUBERNETES = {"kubernetes_executor": {"config_file": "f"}}


@pytest.mark.parametrize(
    ("executor", "asked", "started"),
    [
        ("dispatch", [], ()),
        ("dispatch", ["kubernetes", "redis"], ("redis", "kubernetes")),
        ("celery", [], ("redis",)),
        ("celery", ["rabbitmq"], ("rabbitmq",)),
        ("celery-kubernetes", [], ("redis", "kubernetes")),
        ("LocalExecutor", [], ()),
        ("KubernetesExecutor", [], ("kubernetes",)),
        ("some.where.CeleryExecutor", [], ("redis",)),
    ],
)
def test_servers_that_an_executor_needs_are_started_unasked(
    executor: str, asked: Sequence[str], started: Sequence[str]
) -> None:
    """Airflow's own and other people's classes are known by their names."""
    assert shell_plan.integrations(executor, asked) == started


def test_each_short_name_is_an_executor_of_this_package() -> None:
    """And all of them have one."""
    assert set(shell_plan.EXECUTORS.values()) == set(EXECUTORS)


@pytest.mark.parametrize(
    ("options", "backends"),
    [
        ({}, ["local"]),
        (CELERY, ["local", "celery"]),
        ({**CELERY, **KUBERNETES}, ["local", "celery", "kubernetes"]),
    ],
)
def test_the_router_has_a_backend_for_all_that_runs(
    options: dict[str, dict[str, str]], backends: list[str]
) -> None:
    """A queue of its name leads to each, which the example Dag uses."""
    variables = shell_plan.settings("dispatch", options)
    given = {
        name: variables[f"AIRFLOW__DISPATCH__{name.upper()}"] for name in ("backends", "routes", "default")
    }
    read = SettingsSource(FakeConf(given), lambda: given).load()
    assert list(read.backends) == list(shell_plan.queues(variables)) == backends


def test_rabbitmq_is_the_broker_where_both_are_there() -> None:
    """Redis then has the results, which RabbitMQ alone would bring by messages."""
    both = shell_plan.celery_options({"redis": "redis://r", "rabbitmq": "amqp://a"})
    assert both == {"broker_url": "amqp://a", "result_backend": "redis://r"}
    assert shell_plan.celery_options({"rabbitmq": "amqp://a"})["result_backend"] == "rpc://"


@pytest.mark.parametrize(
    ("executor", "command"),
    [
        ("dispatch", "dispatch routes"),
        (EXECUTORS[0], "dispatch routes"),
        ("celery-kubernetes", "dispatch routes"),
        ("local", "providers executors"),
        ("CeleryExecutor", "providers executors"),
    ],
)
def test_routes_are_recommended_only_where_there_are_any(executor: str, command: str) -> None:
    assert shell_plan.first_command(executor) == f"airflow {command}"
