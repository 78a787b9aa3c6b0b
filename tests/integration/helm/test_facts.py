# SPDX-License-Identifier: Apache-2.0
"""Each chart does with ``executor`` what facts.yaml says.

Where DISPATCH_TEST_AIRFLOW_CHARTS names Airflow's charts, this compares the facts with them; otherwise our chart with
the facts that it was made of.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .charts import Chart, Refused
from .rendered import EXECUTOR, Rendered, variables

pytestmark = pytest.mark.once

PACKAGE = "airflow_dispatch_provider.executors"
ROUTER = f"{PACKAGE}.dispatch_executor.DispatchExecutor"
HYBRID = f"{PACKAGE}.celery_kubernetes_executor.CeleryKubernetesExecutor"
EXECUTORS = (
    "LocalExecutor",
    "CeleryExecutor",
    "KubernetesExecutor",
    "CeleryKubernetesExecutor",
    "LocalKubernetesExecutor",
    "CeleryExecutor,KubernetesExecutor",
    "LocalExecutor,CeleryExecutor,KubernetesExecutor",
    "CeleryExecutor, KubernetesExecutor",
    ROUTER,
    HYBRID,
    f"{PACKAGE}.kubernetes_executor.KubernetesExecutor",
)
RULES = (
    "scheduler_launches",
    "scheduler_has_dags",
    "scheduler_log_service",
    "scheduler_log_policy",
    "workers",
    "pod_template",
)
OURS = {"env": [{"name": EXECUTOR, "value": ROUTER}]}


def applies(rule: dict[str, Any], executor: str) -> bool:
    entries = executor.split(",")
    return any(each in executor for each in rule.get("contains", ())) or any(
        each in entries for each in rule.get("names", ())
    )


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_chart_does_with_executor_what_the_facts_say(
    chart: Chart, helm: Path, scratch: Path, executor: str
) -> None:
    if not re.search(chart.facts["accepts"], executor):
        with pytest.raises(Refused, match="'/executor'"):
            chart.render(helm, scratch, {"executor": executor})
        return
    rendered = chart.render(helm, scratch, {"executor": executor})
    assert {rule: getattr(rendered, rule) for rule in RULES} == {
        rule: applies(chart.facts[rule], executor) for rule in RULES
    }


def test_a_chart_refuses_another_executor_under_config(chart: Chart, helm: Path, scratch: Path) -> None:
    with pytest.raises(Refused, match="Please configure the executor with `executor`"):
        chart.render(helm, scratch, {"config": {"core": {"executor": ROUTER}}})


def test_a_chart_gives_the_users_variables_and_the_jwt_secret_where_the_facts_say(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    rendered = chart.render(helm, scratch, {"executor": "CeleryExecutor,KubernetesExecutor", **OURS})
    copy = f"AIRFLOW__KUBERNETES_ENVIRONMENT_VARIABLES__{EXECUTOR}"
    secret = chart.facts["jwt_secret"]
    for component, container in rendered.containers():
        given = variables(container)
        assert given[EXECUTOR] == ROUTER
        assert (copy in given) == chart.facts["copies_env_for_pods"]
        expected = secret == "everywhere" or component in secret
        assert ("AIRFLOW__API_AUTH__JWT_SECRET" in given) == expected, component


def test_the_chart_names_an_executor_of_its_own_in_a_task_pod_and_the_users_counts(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    rendered: Rendered = chart.render(helm, scratch, {"executor": "KubernetesExecutor", **OURS})
    container = rendered.pod["spec"]["containers"][0]
    assert [each["value"] for each in container["env"] if each["name"] == EXECUTOR][1:] == [ROUTER]


def test_groups_of_workers_are_there_where_the_facts_say(chart: Chart, helm: Path, scratch: Path) -> None:
    values = {"workers": {"celery": {"sets": [{"name": "far", "queue": "far"}]}}}
    if not chart.facts["worker_sets"]:
        with pytest.raises(Refused, match=r"(?s)/workers.*celery"):
            chart.render(helm, scratch, values)
        return
    assert set(chart.render(helm, scratch, values).fleets) == {"airflow-worker", "airflow-worker-far"}
