# SPDX-License-Identifier: Apache-2.0
"""Mistakes about options that no backend has set for itself say whose they are, and which value it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import Configure, Outcome

Run = Callable[..., Outcome]

LONG = "/no/such/" + "folder/" * 12 + "file"
IMAGE = {"worker_container_repository": "x", "worker_container_tag": "1"}


def kubernetes(**config: str) -> dict[str, object]:
    return {
        "executor": "KubernetesExecutor",
        "slots": 4,
        "config": {"kubernetes_executor": {**IMAGE, **config}},
    }


def findings(run: Run, severity: str = "mistake") -> list[tuple[str, str]]:
    rows = run("validate", "-o", "json").json
    return [(row["where"], row["found"]) for row in rows if row["severity"] == severity]


def test_a_default_that_names_a_file(run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that the client of Kubernetes would take, and the backends that lack it."""
    monkeypatch.setenv("KUBECONFIG", "/no/such/kubeconfig")
    outside = kubernetes(in_cluster="false")
    configure(backends={"k1": outside, "k2": {**outside, "slots": 5}}, default=["k1", "k2"])
    said = 'names a file that does not exist (default: "/no/such/kubeconfig"; backends k1, k2).'
    assert findings(run) == [("[kubernetes_executor] config_file", said)]


def test_a_value_for_everybody(run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no default, and told in full; one that a backend has set for itself is told by its place alone."""
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE", LONG)
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER", "False")
    configure(backends={"k1": kubernetes(), "k2": kubernetes(config_file="/nor/this")}, default=["k1", "k2"])
    assert findings(run) == [
        (
            "[kubernetes_executor] config_file",
            f'names a file that does not exist ("{LONG}"; backend k1).',
        ),
        (
            "[dispatch] backends.k2.config.kubernetes_executor.config_file",
            "names a file that does not exist.",
        ),
    ]


def test_a_default_that_names_no_file(
    run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an airflow.cfg that Airflow has written gives this option, too, it is no default."""
    monkeypatch.setattr("airflow_dispatch_provider.cli.option_findings.is_given", lambda *_: False)
    configure(backends={"k": kubernetes()})
    said = "is True, and this is no pod of a cluster (default; backend k)."
    assert ("[kubernetes_executor] in_cluster", said) in findings(run, "warning")


def test_a_value_of_the_wrong_kind(run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not quoted."""
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER", "perhaps")
    configure(backends={"k": kubernetes()})
    said = "is neither true nor false (backend k)."
    assert findings(run) == [("[kubernetes_executor] in_cluster", said)]


def test_an_executor_that_is_no_backend(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no name of the user's."""
    alone = "airflow_dispatch_provider.executors.kubernetes_executor.KubernetesExecutor"
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", alone)
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER", "False")
    monkeypatch.setenv("KUBECONFIG", "/no/such/kubeconfig")
    said = 'names a file that does not exist (default: "/no/such/kubeconfig").'
    assert findings(run) == [("[kubernetes_executor] config_file", said)]
