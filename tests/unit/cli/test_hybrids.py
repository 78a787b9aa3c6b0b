# SPDX-License-Identifier: Apache-2.0
"""The commands show what a hybrid in ``[core] executor`` brings along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes_files import kubeconfig

from tests.unit.cli.conftest import Configure, Outcome

Run = Callable[..., Outcome]

EXECUTORS = "airflow_dispatch_provider.executors"
CELERY_KUBERNETES = f"{EXECUTORS}.celery_kubernetes_executor.CeleryKubernetesExecutor"
LOCAL_KUBERNETES = f"{EXECUTORS}.local_kubernetes_executor.LocalKubernetesExecutor"


@pytest.fixture(autouse=True)
def _hybrid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", CELERY_KUBERNETES)
    monkeypatch.setenv("AIRFLOW__CELERY_KUBERNETES_EXECUTOR__KUBERNETES_QUEUE", "pods")


def test_validate_finds_nothing_to_complain_about(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With nothing under [dispatch], not even a warning: slots share [core] parallelism on purpose."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", LOCAL_KUBERNETES)
    (tmp_path / "kubeconfig").write_text(kubeconfig("http://127.0.0.1:1"))
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER", "False")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY", "my-company/airflow")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG", "1")
    done = run("validate", "--strict")
    assert (done.code, done.err) == (0, "")
    assert done.out == "The [dispatch] configuration is right: 2 backends, 1 route and a default.\n"


def test_validate_warns_of_options_that_airflow_2_still_took(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A section that was renamed long ago: nothing of it would be in use."""
    monkeypatch.setenv("AIRFLOW__KUBERNETES__NAMESPACE", "tasks")
    where = [row["where"] for row in run("validate", "-o", "json").json]
    assert "[kubernetes]" in where


def test_validate_names_mistakes_in_what_is_on_top(run: Run, configure: Configure) -> None:
    """The user's own options are checked against the backends of the preset."""
    configure(routes=[{"queue": "gpu", "to": ["kubernetes"]}, {"queue": "x", "to": ["kubernets"]}])
    done = run("validate", "-o", "json")
    assert [row["where"] for row in done.json] == ["[dispatch] routes[1].to[0]"]


def test_backends(run: Run, configure: Configure) -> None:
    """Those of the preset, with the slots that were given."""
    configure(backends={"kubernetes": {"slots": 5}})
    rows = {
        row["name"]: (row["executor"].rpartition(".")[2], row["slots"])
        for row in run("backends", "-o", "json").json
    }
    assert rows == {"celery": ("CeleryExecutor", 32), "kubernetes": ("KubernetesExecutor", 5)}


@pytest.mark.parametrize(("executor", "other"), [(CELERY_KUBERNETES, "celery"), (LOCAL_KUBERNETES, "local")])
def test_routes(executor: str, other: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One route of the class that is configured, and its default."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    monkeypatch.setenv("AIRFLOW__LOCAL_KUBERNETES_EXECUTOR__KUBERNETES_QUEUE", "pods")
    rows = run("routes", "-o", "json").json
    assert [(row["queue"], row["targets"][0]["backend"]) for row in rows] == [
        ("pods", "kubernetes"),
        (None, other),
    ]


def test_explain(run: Run) -> None:
    """The queue of the old option, and any other."""
    assert run("explain", "--queue", "pods", "-o", "json").json["choice"]["backend"] == "kubernetes"
    assert run("explain", "--queue", "kubernetes", "-o", "json").json["choice"]["backend"] == "celery"


def test_one_among_several_executors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stands in [core] executor, and under an alias."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"LocalExecutor,hybrid:{CELERY_KUBERNETES}")
    assert len(run("backends", "-o", "json").json) == 2


def test_explain_a_task_that_asks_for_an_executor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that its Dag gives."""
    monkeypatch.setenv(
        "AIRFLOW__CORE__EXECUTOR",
        f"{CELERY_KUBERNETES},KubernetesExecutor:{EXECUTORS}.by_name.KubernetesExecutor",
    )
    found = run("explain", "--queue", "default", "--executor", "KubernetesExecutor", "-o", "json").json
    assert (found["route"], found["choice"]["backend"]) == ("default, KubernetesExecutor", "kubernetes")
    assert found["why"].endswith(
        "the default is taken; of the backends only those of KubernetesExecutor count"
    )


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ("{router},LocalExecutor:{named}.LocalExecutor", "no backend has an executor of that name"),
        ("CeleryExecutor:{named}.CeleryExecutor,{router}", "before the router"),
        ("CeleryExecutor:{named}.CeleryExecutor", "without a router before it"),
    ],
)
def test_validate_names_of_executors(
    entries: str, says: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration that would keep the scheduler from starting."""
    entries = entries.format(router=CELERY_KUBERNETES, named=f"{EXECUTORS}.by_name")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", entries)
    done = run("validate", "-o", "json")
    assert done.code == 1
    assert any(row["where"] == "[core] executor" and says in row["found"] for row in done.json)


@pytest.mark.parametrize(
    "first",
    ["LocalExecutor", "airflow.executors.local_executor.LocalExecutor", f"{EXECUTORS}.by_name.LocalExecutor"],
)
def test_the_router_to_put_first_is_the_one_that_is_listed(
    first: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one beside it would be a second router."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"{first},{LOCAL_KUBERNETES}")
    remedies = [
        row["remedy"] for row in run("validate", "-o", "json").json if row["where"] == "[core] executor"
    ]
    assert [remedy.replace("'", "") for remedy in remedies] == [f"Put {LOCAL_KUBERNETES} first."]


def test_a_router_by_its_bare_name_is_one_mistake(
    run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is checked as with the router that is meant."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalKubernetesExecutor")
    configure(
        backends={"local": {"slots": 48}, "kubernetes": {"slots": 5}},
        routes=[{"queue": "x", "to": ["kubernets", "local"]}],
    )
    rows = run("validate", "-o", "json").json
    assert [(row["where"], row["remedy"]) for row in rows if row["severity"] == "mistake"] == [
        ("[core] executor", f"Did you mean {LOCAL_KUBERNETES!r}?"),
        ("[dispatch] routes[0].to[0]", "Did you mean 'kubernetes'?"),
    ]
