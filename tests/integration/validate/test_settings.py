# SPDX-License-Identifier: Apache-2.0
"""Mistakes in ``[dispatch]`` and in the routing file: each is named once, and its remedy works."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from kubernetes_files import kubeconfig

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS

from . import cases_executors, cases_file, cases_patterns, cases_settings
from .conftest import Run
from .harness import Case, Configuration, Validate, airflow_cfg, answer, check, parameters


@pytest.mark.parametrize(
    "case",
    **parameters([*cases_patterns.CASES, *cases_settings.CASES, *cases_executors.CASES, *cases_file.CASES]),
)
def test_mistake_is_named_once_and_its_remedy_works(case: Case, validate: Validate, home: str) -> None:
    check(case, validate, home)


def test_configuration_without_a_mistake(validate: Validate) -> None:
    assert validate(Configuration(airflow_cfg())).findings == []


def many(patterns: Iterable[str]) -> str:
    routes = ", ".join(f'{{"queue": "{pattern}", "to": ["b"]}}' for pattern in patterns)
    return airflow_cfg(routes=f"[{routes}]")


def test_no_more_warnings_than_somebody_reads(validate: Validate) -> None:
    """As of mistakes."""
    findings = validate(Configuration(many(f"q{n}-.*" for n in range(300)))).findings
    assert len(findings) == 101
    assert findings[-1]["found"] == "has 200 more warnings."
    assert {each["severity"] for each in findings} == {"warning"}


def test_no_more_mistakes_than_somebody_reads(validate: Validate) -> None:
    findings = validate(Configuration(many(f"q{n}-[a" for n in range(300)))).findings
    assert len(findings) == 101
    assert findings[-1]["found"] == "may have more mistakes."


def test_one_mistake_for_each_backend_that_is_like_another(validate: Validate, home: str) -> None:
    """And not for each two of them; and of these no more than somebody reads."""
    backends = ", ".join(f'"b{n}": {{"executor": "KubernetesExecutor", "slots": 1}}' for n in range(130))
    cfg = airflow_cfg(
        backends=f"{{{backends}}}", routes=None, default="b0", more=ONE_KIND["KubernetesExecutor"]
    )
    findings = validate(Configuration(cfg, files={"kubeconfig": kubeconfig()})).findings
    mistakes = [each for each in findings if each["severity"] == "mistake"]
    assert len(mistakes) == 101
    assert mistakes[-1]["found"] == "has 29 more mistakes."


def test_patterns_that_would_take_minutes_to_compare(validate: Validate) -> None:
    """After a bounded number of steps, no more routes are looked for that are never used."""
    never_used = ["z*", "za*"]
    slow = [f"*{'*'.join(f'{n:060b}').replace('0', 'a').replace('1', 'b')}*" for n in range(300)]
    (finding,) = validate(Configuration(many([*never_used, *slow]))).findings
    assert "is never used" in finding["found"]
    assert validate(Configuration(many([*slow, *never_used]))).findings == []


PROCESSES = [
    airflow_cfg(default="aa"),
    airflow_cfg().replace("= 64", "= 0"),
    airflow_cfg().replace("jwt_secret = of-a-test", ""),
    airflow_cfg(routes='[{"queue": "gpu%", "to": ["b"]}]'),
    *([airflow_cfg(executor="DispatchExecuter")] if AIRFLOW_V_3_2_PLUS else []),
]


@pytest.mark.recent
@pytest.mark.parametrize("cfg", PROCESSES)
def test_process_of_its_own_finds_the_same(cfg: str, airflow: Run, validate: Validate) -> None:
    """Airflow itself gets as far as the command. On 3.1 the command is the configured executor's."""
    wrong = Configuration(cfg)
    code, out, _ = airflow(wrong, "validate", "--output", "json")
    found = answer(code, out)
    assert len(found.findings) == 1
    assert found == validate(wrong)


ONE_KIND = {
    "CeleryExecutor": "[celery]\nbroker_url = redis://h:6379/0\nresult_backend = redis://h:6379/1\n",
    "KubernetesExecutor": "[kubernetes_executor]\nin_cluster = False\nconfig_file = {home}/kubeconfig\n"
    "worker_container_repository = company/airflow\nworker_container_tag = 1\n",
}


@pytest.mark.parametrize("name", ONE_KIND)
def test_strict_passes_with_backends_of_one_kind(name: str, run: Run) -> None:
    """A command that they cannot run is one that no user can ask for."""
    backends = f'{{"a": {{"executor": "{name}", "slots": 4}}}}'
    cfg = airflow_cfg(backends=backends, routes=None, more=ONE_KIND[name])
    code, out, _ = run(Configuration(cfg, files={"kubeconfig": kubeconfig()}), "validate", "--strict")
    assert (code, out) == (0, "The [dispatch] configuration is right: 1 backend, 0 routes and a default.\n")


@pytest.mark.parametrize("name", ONE_KIND)
def test_a_missing_secret_for_tokens_is_seen_beside_any_executor(name: str, validate: Validate) -> None:
    """Airflow's base class sets one that it makes up, as soon as an executor is made."""
    backends = f'{{"a": {{"executor": "{name}", "slots": 4}}}}'
    cfg = airflow_cfg(backends=backends, routes=None, more=ONE_KIND[name]).replace("of-a-test", "")
    (found,) = validate(Configuration(cfg, files={"kubeconfig": kubeconfig()})).findings
    assert (found["severity"], found["where"]) == ("warning", "[api_auth] jwt_secret")
