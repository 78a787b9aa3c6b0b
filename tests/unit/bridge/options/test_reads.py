# SPDX-License-Identifier: Apache-2.0
"""The table of options that executors read, against what their code asks for in this Airflow version."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import conf
from kubernetes_files import POD_TEMPLATE, kubeconfig
from packaging.version import Version

import airflow_dispatch_provider
from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.bridge.options.described import describe_options
from airflow_dispatch_provider.bridge.options.reads import ENGINES
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES, BackendSettings

FOLDER = Path(inspect.getfile(airflow_dispatch_provider)).parent
SOURCES = {
    "LocalExecutor": ["executors/local_executor.py", "bridge/airflow_api.py", "engines/local"],
    "CeleryExecutor": ["executors/celery_executor.py", "engines/celery"],
    "KubernetesExecutor": ["executors/kubernetes_executor.py", "engines/kubernetes"],
}
EVERYBODYS = {
    ("core", "parallelism"),  # the router's
    ("scheduler", "orphaned_tasks_check_interval"),  # asked of Airflow's own configuration
}
ASKED_OTHERWISE = {
    # By way of a constant for the section.
    ("kubernetes_executor", "async_client_factory"),
    ("kubernetes_executor", "client_factory"),
    ("kubernetes_executor", "cluster_context"),
    ("kubernetes_executor", "config_file"),
    ("kubernetes_executor", "running_pod_log_lines"),
    ("kubernetes_executor", "ssl_ca_cert"),
    ("kubernetes_executor", "verify_ssl"),
    # By the base class of some versions only.
    ("celery", "broker_connection_retry_on_startup"),
    ("celery", "sync_parallelism"),
    ("celery", "task_publish_max_retries"),
}
UNDESCRIBED = {
    ("celery", "broker_connection_retry_on_startup"),
    # Up to Airflow 3.1, in the defaults alone.
    ("celery", "worker_precheck"),
    ("kubernetes_executor", "worker_pods_queued_check_interval"),
}
KNOWN = {
    "CeleryExecutor": ("apache-airflow-providers-celery", "3.26.0"),
    "KubernetesExecutor": ("apache-airflow-providers-cncf-kubernetes", "10.25.0"),
}
"""The provider versions that the table was made with."""

OPTIONS = {
    "CeleryExecutor": {
        "celery": {"broker_url": "redis://nowhere/0", "ssl_active": "True", "ssl_mutual_tls": "False"}
    },
    "KubernetesExecutor": {
        "kubernetes_executor": {"in_cluster": "False", "worker_container_repository": "r"}
    },
}


def written(executor: str) -> set[tuple[str, str]]:
    """Sections and options that our own code names in a call of a getter."""
    asked = set()
    for name in SOURCES[executor]:
        path = FOLDER / name
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "").startswith("get"):
                    values = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
                    if len(values) == 2 and all(isinstance(value, str) for value in values):
                        asked.add((values[0].lower(), values[1].lower()))
    return asked


def asked_for(executor: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> set[tuple[str, str]]:
    """Those that an executor asks for as it is made and checked."""
    asked = set()
    own = BackendConf._own

    def note(self: BackendConf, section: str, key: str) -> Any:
        asked.add((section.lower(), key.lower()))
        return own(self, section, key)

    monkeypatch.setattr(BackendConf, "_own", note)
    (folder / "kubeconfig").write_text(kubeconfig())
    (folder / "pod.yaml").write_text(POD_TEMPLATE)
    options = {section: dict(given) for section, given in OPTIONS.get(executor, {}).items()}
    if executor == "KubernetesExecutor":
        options["kubernetes_executor"]["config_file"] = str(folder / "kubeconfig")
        options["kubernetes_executor"]["pod_template_file"] = str(folder / "pod.yaml")
    backend = Backend("x", BackendSettings(executor, 1, config=options), conf, None)
    made: Any = backend.executor
    assert [*backend.conf_problems()] == []
    if hasattr(made, "config_problems"):
        assert made.config_problems() == []
        made.config_doubts()
    if hasattr(made, "make_engine"):
        made.make_engine("x", 1, counts_workers=False)
    return asked


@pytest.mark.parametrize("executor", SOURCES)
def test_what_is_asked_for_is_in_the_table_and_nothing_else(executor, monkeypatch, tmp_path):
    """Whoever reads another option, or one less, has to say so."""
    engine = ENGINES[EXECUTOR_ALIASES[executor]]
    asked = written(executor) | asked_for(executor, monkeypatch, tmp_path)
    unknown = {each for each in asked - EVERYBODYS if engine.kind(*each) is None}
    assert unknown == set()
    table = {
        (section, option) for section, kinds in engine.reads.items() for option in kinds if option != "*"
    }
    assert table - asked - ASKED_OTHERWISE == set()


@pytest.mark.parametrize("executor", SOURCES)
def test_everything_in_the_table_exists_in_this_version(executor):
    """An option that Airflow no longer describes has moved, or is gone."""
    provider, known = KNOWN.get(executor, ("apache-airflow", "0"))
    if Version(version(provider)) < Version(known):
        pytest.skip("older providers need not describe newer options")
    engine, described = ENGINES[EXECUTOR_ALIASES[executor]], describe_options()
    table = [(section, option) for section, kinds in engine.reads.items() for option in kinds]
    names = {*table, *engine.without_effect} - UNDESCRIBED
    missing = {each for each in names if each[1] != "*" and each[1] not in described.options[each[0]]}
    assert missing == set()
