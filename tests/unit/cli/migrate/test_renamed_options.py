# SPDX-License-Identifier: Apache-2.0
"""What is said of renamed options holds for the Airflow that is installed."""

from __future__ import annotations

import pytest
from airflow.cli.commands.config_command import CONFIGS_CHANGES
from airflow.configuration import conf
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_dispatch_provider.migration.options import from_environment
from airflow_dispatch_provider.migration.renames import Rename, renames

OLD = (
    "celery.stalled_task_timeout",
    "celery.task_adoption_timeout",
    "celery.default_queue",
    "core.worker_precheck",
    "kubernetes_executor.worker_pods_pending_timeout",
    "kubernetes_executor.worker_pods_pending_timeout_check_interval",
    "kubernetes_executor.worker_pods_queued_check_interval",
    "kubernetes_executor.worker_pods_pending_timeout_batch_size",
    "kubernetes.namespace",
    "kubernetes.pod_template_file",
    "kubernetes.worker_pods_pending_timeout",
)


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest) -> tuple[str, str]:
    section, _, name = request.param.partition(".")
    return section, name


def variable(section: str, name: str) -> str:
    return f"AIRFLOW__{section}__{name}".upper()


def rename_of(section: str, name: str) -> Rename:
    (found,) = renames(from_environment({variable(section, name): "987"}))
    return found


def test_what_the_linter_reports(old: tuple[str, str]) -> None:
    """Only an option that ``airflow config lint`` does not report has the mark that says so."""
    reported = any((change.config.section, change.config.option) == old for change in CONFIGS_CHANGES)
    assert rename_of(*old).linted == reported


@providers_configuration_loaded
def test_the_old_name_has_no_effect(old: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3 reads the new name, and that alone."""
    new = rename_of(*old).new
    if new is None:
        pytest.skip("nothing took its place")
    _, section, name = new.lower().split("__")
    monkeypatch.setenv(variable(*old), "987")
    assert conf.get(section, name, fallback=None) != "987"
    monkeypatch.setenv(new, "987")
    assert conf.get(section, name) == "987"
