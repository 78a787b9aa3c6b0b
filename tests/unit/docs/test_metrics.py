# SPDX-License-Identifier: Apache-2.0
"""The page about metrics has each that the package sends, and each of the providers: whether it is sent, or why not."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from airflow.providers.celery.executors import celery_executor, celery_executor_utils
from airflow.providers.cncf.kubernetes.executors import kubernetes_executor, kubernetes_executor_utils

from airflow_dispatch_provider.bridge import metrics
from airflow_dispatch_provider.dispatch.gauges import GAUGES
from airflow_dispatch_provider.engines.kubernetes._tally import CREATION, DELETION, PATCHING
from airflow_dispatch_provider.lifecycle.survey import COUNTS

from .pages import DOCS, sections

PAGE = (DOCS / "reference" / "metrics.md").read_text()
PROVIDERS = [celery_executor, celery_executor_utils, kubernetes_executor, kubernetes_executor_utils]

BACKENDS = {
    **{gauge.metric: "gauge" for gauge in GAUGES},
    metrics.HELD_BY_REASON: "gauge",
    **dict.fromkeys(
        [metrics.DISPATCHED, metrics.FAILURES, *(f"dispatch.{what}" for what in COUNTS)], "counter"
    ),
}
WHOLE = {
    metrics.HEARTBEAT: "timer",
    **dict.fromkeys(
        (metrics.HEARTBEAT_LONGEST, metrics.HELD_BACK, metrics.API_AWAY, metrics.FILE_REFUSED), "gauge"
    ),
}


@pytest.mark.parametrize(
    ("title", "expected"),
    [("This package's, of each backend", BACKENDS), ("This package's, of the whole executor", WHOLE)],
)
def test_the_tables_have_every_metric_of_the_package(title: str, expected: dict[str, str]) -> None:
    """And no other, with its type."""
    assert dict(re.findall(r"^\| `(\S+)` \| (\w+) \|", sections(PAGE)[title], re.MULTILINE)) == expected


def sent_by(provider: ModuleType) -> set[str]:
    source = Path(str(provider.__file__)).read_text()
    return {*re.findall(r'"((?:celery|kubernetes_executor)\.[a-z_.]+)"', source)}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.__name__.rpartition(".")[2])
def test_every_metric_of_a_provider_is_accounted_for(provider: ModuleType) -> None:
    """In one of the two tables."""
    assert sent_by(provider)
    rows = PAGE[PAGE.index("## Airflow's, of CeleryExecutor") :]
    assert [name for name in sent_by(provider) if f"`{name}`" not in rows] == []


def test_those_of_providers_that_are_sent_are_the_ones_that_the_page_says() -> None:
    """Workers send one of them."""
    section = sections(PAGE)["Airflow's, of CeleryExecutor and KubernetesExecutor"]
    said = {
        *re.findall(
            r"`((?:celery|kubernetes_executor)\.[a-z_.]+)`", section.partition("These are not sent")[0]
        )
    }
    sent = {name for each in (CREATION, DELETION, PATCHING) for name in (each, f"{each}_status")}
    assert said == sent | {"celery.execute_command.failure"}
