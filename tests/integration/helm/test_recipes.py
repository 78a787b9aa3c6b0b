# SPDX-License-Identifier: Apache-2.0
"""Each recipe of docs/how-to/helm.md, rendered with each chart, gives its backends what they need."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .charts import Chart, Refused
from .recipes import Recipe, manifest, recipes
from .rendered import EXECUTOR, Rendered, twice, variables

pytestmark = pytest.mark.once


def rendered(recipe: Recipe, chart: Chart, helm: Path, scratch: Path) -> Rendered:
    if chart.release < recipe.since:
        pytest.skip(f"the page says: since chart {'.'.join(map(str, recipe.since))}")
    return chart.render(helm, scratch, recipe.values)


def test_the_chart_renders_what_each_kind_needs(
    recipe: Recipe, chart: Chart, helm: Path, scratch: Path
) -> None:
    found = rendered(recipe, chart, helm, scratch)
    kinds = recipe.values["executor"].split(",")
    assert {
        "scheduler_has_dags": found.scheduler_has_dags,
        "scheduler_log_service": found.scheduler_log_service,
        "scheduler_log_policy": found.scheduler_log_policy,
        "workers": found.workers,
        "pod_template": found.pod_template,
    } == {
        "scheduler_has_dags": "LocalExecutor" in kinds,
        "scheduler_log_service": "LocalExecutor" in kinds,
        "scheduler_log_policy": "LocalExecutor" in kinds,
        "workers": "CeleryExecutor" in kinds,
        "pod_template": "KubernetesExecutor" in kinds,
    }
    assert found.scheduler_launches or "KubernetesExecutor" not in kinds


def test_every_component_and_task_pod_loads_the_class_of_the_recipe(
    recipe: Recipe, chart: Chart, helm: Path, scratch: Path
) -> None:
    found = rendered(recipe, chart, helm, scratch)
    for component, container in found.containers():
        assert variables(container)[EXECUTOR] == recipe.executor, component
        assert not twice(container), component
    if found.pod_template:
        container = found.pod["spec"]["containers"][0]
        assert variables(container)[EXECUTOR] == recipe.executor
        assert twice(container) <= {EXECUTOR}


def test_the_routing_file_is_mounted_as_a_folder_in_every_component_and_task_pod(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    found = rendered(recipes()["router"], chart, helm, scratch)
    pods = [("pod", found.pod["spec"]["containers"][0]), *found.containers()]
    for component, container in pods:
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "dispatch")
        assert (mount["mountPath"], "subPath" in mount) == ("/opt/airflow/dispatch", False), component
    assert not found.config_map("airflow-dispatch")["metadata"].get("annotations")
    assert found.airflow_cfg["dispatch"]["config_file"] == "/opt/airflow/dispatch/dispatch.yaml"


def test_each_group_of_workers_has_the_broker_of_its_backend_and_no_other(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    found = rendered(recipes()["two-brokers"], chart, helm, scratch)
    scheduler = variables(found.container("scheduler"))
    brokers = {name: variables(fleet)["AIRFLOW__CELERY__BROKER_URL"] for name, fleet in found.fleets.items()}
    assert brokers == {
        "airflow-worker": scheduler["AIRFLOW_DISPATCH__NEAR__CELERY__BROKER_URL"],
        "airflow-worker-far": scheduler["AIRFLOW_DISPATCH__FAR__CELERY__BROKER_URL"],
    }
    assert brokers["airflow-worker"] != brokers["airflow-worker-far"]
    far = found.fleets["airflow-worker-far"]
    assert (
        variables(far)["AIRFLOW__CELERY__RESULT_BACKEND"]
        == scheduler["AIRFLOW_DISPATCH__FAR__CELERY__RESULT_BACKEND"]
    )
    assert "AIRFLOW__CELERY__RESULT_BACKEND" not in variables(found.fleets["airflow-worker"])
    assert far["args"][-1].endswith("-q far")
    assert "AIRFLOW__CELERY__BROKER_URL" not in scheduler


def test_charts_without_groups_of_workers_refuse_the_second_broker(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    recipe = recipes()["two-brokers"]
    if chart.release >= recipe.since:
        pytest.skip("has groups of workers")
    with pytest.raises(Refused, match=r"(?s)/workers.*celery"):
        chart.render(helm, scratch, recipe.values)


def test_only_the_scheduler_and_the_api_server_mount_the_second_clusters_kubeconfig(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    found = rendered(recipes()["elsewhere"], chart, helm, scratch)
    mounting = {
        component
        for component, container in [("pod", found.pod["spec"]["containers"][0]), *found.containers()]
        if any(mount["name"] == "clusters" for mount in container["volumeMounts"])
    }
    assert mounting == {"scheduler", "api-server"}
    assert all("clusters" in found.volumes(component) for component in mounting)


def test_templates_for_elsewhere_need_nothing_of_the_release(chart: Chart, helm: Path, scratch: Path) -> None:
    files = rendered(recipes()["elsewhere"], chart, helm, scratch).config_map("airflow-dispatch")["data"]
    for name, url in {
        "team-b.yaml": "http://airflow-api-server.airflow:8080/execution/",
        "gpu.yaml": "https://airflow.example.com/execution/",
    }.items():
        spec = yaml.safe_load(files[name])["spec"]
        (container,) = spec["containers"]
        assert container["name"] == "base"
        assert variables(container) == {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url}
        assert not spec.keys() & {"serviceAccountName", "volumes", "imagePullSecrets"}


def test_rights_in_the_second_namespace_are_those_of_the_first_and_go_to_the_charts_accounts(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    found = rendered(recipes()["elsewhere"], chart, helm, scratch)
    role, binding = manifest("team-b")
    for rule in role["rules"]:
        assert any(
            set(rule["resources"]) <= set(given["resources"]) and set(rule["verbs"]) <= set(given["verbs"])
            for given in found.launcher_rules()
        ), rule
    assert [(subject["name"], subject["namespace"]) for subject in binding["subjects"]] == [
        (found.account("scheduler"), "airflow"),
        (found.account("api-server"), "airflow"),
    ]


def test_task_pods_and_components_use_the_image_of_the_recipe(
    chart: Chart, helm: Path, scratch: Path
) -> None:
    found = chart.render(helm, scratch, recipes()["router"].values, recipes()["image"].values)
    containers = [found.pod["spec"]["containers"][0], *(container for _, container in found.containers())]
    assert {each["image"] for each in containers} == {"registry.example.com/airflow:3.3.2-dispatch"}
    options = found.airflow_cfg["kubernetes_executor"]
    image = f"{options['worker_container_repository']}:{options['worker_container_tag']}"
    assert image == "registry.example.com/airflow:3.3.2-dispatch"
