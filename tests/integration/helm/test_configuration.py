# SPDX-License-Identifier: Apache-2.0
"""The configuration in each recipe of docs/how-to/helm.md is right for the Airflow that is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_dispatch_provider.get_provider_info import EXECUTORS

from .charts import charts
from .deployment import Deployment
from .recipes import Recipe, recipes

pytestmark = pytest.mark.once

NEWEST = [chart for chart in charts() if chart.folder is None][-1]
ALONE = ("LocalExecutor", "CeleryExecutor", "KubernetesExecutor")


@pytest.fixture(scope="module")
def deployment(
    recipe: Recipe, helm: Path, scratch: Path, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    return Deployment(NEWEST.render(helm, scratch, recipe.values), tmp_path_factory.mktemp(recipe.name))


def kinds(recipe: Recipe, deployment: Deployment) -> set[str]:
    """Airflow's names of what the configured class runs tasks with."""
    name = recipe.executor.rpartition(".")[2]
    if name in ALONE:
        return {name}
    return {each["executor"].rpartition(".")[2] for each in json.loads(deployment.answers.backends)}


def test_executor_of_the_chart_lists_the_kinds_of_the_backends(
    recipe: Recipe, deployment: Deployment
) -> None:
    assert recipe.executor in EXECUTORS
    assert set(recipe.values["executor"].split(",")) == kinds(recipe, deployment)


def test_validate_finds_no_mistake_in_what_the_scheduler_sees(recipe: Recipe, deployment: Deployment) -> None:
    if recipe.executor.rpartition(".")[2] in ALONE:
        pytest.skip("one kind alone: there is nothing to route")
    assert deployment.answers.code == 0, deployment.answers.findings


def test_validate_reads_the_routing_file_of_the_rendered_config_map(
    helm: Path, scratch: Path, tmp_path: Path
) -> None:
    deployment = Deployment(NEWEST.render(helm, scratch, recipes()["router"].values), tmp_path)
    file = tmp_path / "opt/airflow/dispatch/dispatch.yaml"
    file.write_text(file.read_text().replace("routes:", "rotues:"))
    assert deployment.answers.code == 1
    assert "rotues" in deployment.answers.findings
