# SPDX-License-Identifier: Apache-2.0
"""The lines for a hybrid, those with the router and those with the other class, as the router reads them."""

from __future__ import annotations

from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from airflow.executors import executor_loader
from kubernetes_files import kubeconfig

from airflow_dispatch_provider.settings.presets import CELERY_KUBERNETES, LOCAL_KUBERNETES, Hybrid
from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]

HYBRIDS = pytest.mark.parametrize("hybrid", [CELERY_KUBERNETES, LOCAL_KUBERNETES])


@pytest.fixture
def proposals(config: Callable[[str], str], run: Run) -> Callable[..., tuple[str, str]]:
    """Both proposals for a hybrid with this ``kubernetes_queue``; None: it is not set."""

    def propose(hybrid: Hybrid, queue: str | None) -> tuple[str, str]:
        executor = hybrid.executor.replace("Executor", "KubernetesExecutor")
        text = f"[core]\nexecutor = {executor}\nparallelism = 48\n"
        if queue is not None:
            text += f"[{hybrid.section}]\nkubernetes_queue = {queue.replace('%', '%%')}\n"
        found = run("migrate", "--config", config(text), "-o", "json").json
        return found["configuration"], found["one_class"]

    return propose


@pytest.fixture
def _cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nothing connects to."""
    (tmp_path / "kubeconfig").write_text(kubeconfig())
    options = {
        "in_cluster": "False",
        "config_file": str(tmp_path / "kubeconfig"),
        "worker_container_repository": "my-company/airflow",
        "worker_container_tag": "1",
    }
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__KUBERNETES_EXECUTOR__{name}".upper(), value)


@HYBRIDS
@pytest.mark.usefixtures("_cluster")
@pytest.mark.parametrize("queue", [None, "kubernetes", "k8s", "a*[b]?", "50%", "Größe 1", ""])
def test_both_proposals_route_alike(
    hybrid: Hybrid, queue: str | None, proposals: Callable[..., tuple[str, str]], run: Run
) -> None:
    """Each is complete: of the old configuration nothing is left."""
    own = "kubernetes" if queue is None else queue
    lines, with_class = (
        _said(text, [own or "k", "kubernetes", "other"], run) for text in proposals(hybrid, queue)
    )
    assert with_class == lines
    goes_to = [row["choice"]["backend"] for row in lines["explain"]]
    assert goes_to == [
        "kubernetes" if own else hybrid.backend,
        "kubernetes" if own == "kubernetes" else hybrid.backend,
        hybrid.backend,
    ]
    assert [row["slots"] for row in lines["backends"]] == [48, 48]


def _said(text: str, queues: list[str], run: Run) -> dict[str, Any]:
    """The commands' answers where these lines are the configuration."""
    parser = ConfigParser()
    parser.read_string(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor_loader, "_executor_names", [])
        for section in parser.sections():
            for name, value in parser[section].items():
                patch.setenv(f"AIRFLOW__{section}__{name}".upper(), value)
        checked = run("validate")
        assert (checked.code, checked.err) == (0, ""), checked.out
        return {
            "explain": [run("explain", "--queue", queue, "-o", "json").json for queue in queues],
            "backends": run("backends", "-o", "json").json,
        }
