# SPDX-License-Identifier: Apache-2.0
"""The parts of the installed Airflow that the migration relies on are there, and as it expects them."""

from __future__ import annotations

import pytest
from airflow import __version__
from airflow.configuration import conf
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_dispatch_provider.cli.airflow_options import installed_target, missing
from airflow_dispatch_provider.migration.findings import TIMEOUT, Finding, Target, findings
from airflow_dispatch_provider.migration.options import from_environment


@pytest.fixture(scope="module")
def target() -> Target:
    return installed_target()


def variable(section: str, name: str) -> str:
    return f"AIRFLOW__{section}__{name}".upper()


def finding_of(section: str, name: str, target: Target) -> Finding:
    (found,) = findings(from_environment({variable(section, name): "987"}), target, frozenset())
    return found


def test_version_and_sections(target: Target) -> None:
    """The options of Airflow, of its providers for executors and of this package are described."""
    assert target.version == __version__
    assert {"core", "scheduler", "celery", "kubernetes_executor", "dispatch"} <= target.sections


def test_options_kept_for_old_files_do_not_count(target: Target) -> None:
    """Airflow keeps defaults of options that no provider has any more."""
    assert ("celery", "worker_precheck") not in target.options


def test_sensitive_options_may_come_from_a_command(target: Target) -> None:
    """``_cmd`` and ``_secret`` are options of those alone."""
    assert ("celery", "broker_url_cmd") in target.options
    assert ("celery", "worker_concurrency_cmd") not in target.options


def test_moves_and_resets(target: Target) -> None:
    """A renamed, a removed, a reset option, and a value that is out of date."""
    assert target.moves["celery", "default_queue"] == ("operators", "default_queue")
    assert target.moves["core", "check_slas"] is None
    assert target.resets["core", "executor"] == "LocalExecutor"
    assert ("core", "executor") not in target.moves
    assert target.outdated["email", "email_backend"]


@pytest.mark.parametrize("name", ["stalled_task_timeout", "task_adoption_timeout"])
def test_the_timeouts_lead_to_one_option(name: str, target: Target) -> None:
    """It has a default in seconds, without which the largest cannot be told."""
    assert target.destination(("celery", name)) == TIMEOUT
    assert float(target.options[TIMEOUT] or 0) > 0


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("celery", "default_queue"),
        ("kubernetes_executor", "worker_pods_pending_timeout_check_interval"),
        ("kubernetes", "namespace"),
        ("kubernetes", "pod_template_file"),
        ("core", "remote_log_conn_id"),
    ],
)
@providers_configuration_loaded
def test_only_the_new_name_has_an_effect(
    section: str, name: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 reads what is proposed, and not what was there."""
    found = finding_of(section, name, target)
    assert found.do == "rename"
    _, *new = str(found.to).lower().split("__")
    monkeypatch.setenv(variable(section, name), "987")
    assert conf.get(*new, fallback=None) != "987"
    monkeypatch.setenv(str(found.to), "987")
    assert conf.get(*new) == "987"


def test_paths_that_are_gone() -> None:
    """A module, a class and a function that are there, and one of Airflow 2 that is not."""
    gone = "airflow.config_templates.default_celery.DEFAULT_CELERY_CONFIG"
    there = {
        "airflow.utils.net.getfqdn",
        "airflow.config_templates.airflow_local_settings",
        "airflow.assets.manager.AssetManager",
    }
    assert missing({gone, *there}) == {gone}
