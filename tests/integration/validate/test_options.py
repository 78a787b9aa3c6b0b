# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a backend's own options: each is named once, and its remedy works."""

from __future__ import annotations

import itertools
from pathlib import Path

import psutil
import pytest

from airflow_dispatch_provider.bridge import backend_conf

from . import cases_celery, cases_kubernetes, cases_options
from .cases_options import BROKER, CELERY, FILES, KUBERNETES, of
from .harness import Case, Configuration, Validate, airflow_cfg, check, parameters


@pytest.mark.parametrize(
    "case", **parameters([*cases_options.CASES, *cases_celery.CASES, *cases_kubernetes.CASES])
)
def test_mistake_is_named_once_and_its_remedy_works(case: Case, validate: Validate, home: str) -> None:
    check(case, validate, home)


@pytest.mark.parametrize("what", cases_options.RIGHT)
def test_what_is_no_mistake_is_no_finding(what: str, validate: Validate) -> None:
    assert validate(Configuration(cases_options.RIGHT[what], files=FILES)).findings == []


@pytest.mark.parametrize("what", cases_options.RIGHT_VARIABLES)
def test_variables_that_are_no_mistake_are_no_finding(what: str, validate: Validate) -> None:
    backend, name = cases_options.RIGHT_VARIABLES[what]
    assert validate(Configuration(of(backend, "{}"), {name: "x"}, FILES)).findings == []


@pytest.mark.parametrize("result", [":", "echo redis://h"])
def test_a_command_of_a_backend_is_run_once(result: str, validate: Validate, home: str) -> None:
    """Whatever comes of it: it may take long."""
    command = f"sh -c 'echo run >> {home}/runs; {result}'"
    validate(Configuration(of(CELERY, f'{{"celery": {{"broker_url_cmd": "{command}"}}}}'), files=FILES))
    assert Path(home, "runs").read_text() == "run\n"


NUMBERS = itertools.count()
GLOBAL = of(CELERY, "{}", "[celery]\nresult_backend = db+sqlite:////tmp/r.db\nbroker_url_cmd = <>\n").replace(
    BROKER, ""
)


def test_a_command_for_all_backends_is_run_once(validate: Validate, home: str) -> None:
    """However many of them read the option."""
    two = GLOBAL.replace('"l": ', f'"d": {CELERY % "{}"}, "l": ').replace('"to": ["l"]', '"to": ["l", "d"]')
    command = f"sh -c 'echo run >> {home}/runs; echo redis://h:6379/0'"
    found = validate(Configuration(two.replace("<>", command), files=FILES)).findings
    assert Path(home, "runs").read_text() == "run\n"
    assert found == []


@pytest.mark.parametrize("where", ["all backends", "one backend", "[dispatch]", "tokens"])
def test_a_command_that_hangs_is_ended(
    where: str, validate: Validate, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one finding, and nothing of it is left running."""
    monkeypatch.setattr(backend_conf, "COMMAND_TIMEOUT", 0.3)
    command = f"sh -c 'echo $$ >> {home}/pids; exec sleep 1000'"
    cfg, env, place = {
        "all backends": (GLOBAL.replace("<>", command), {}, "[celery] broker_url"),
        "one backend": (
            of(CELERY, f'{{"celery": {{"broker_url_cmd": "{command}"}}}}'),
            {},
            "[dispatch] backends.c.config.celery.broker_url_cmd",
        ),
        "[dispatch]": (
            airflow_cfg(backends=""),
            {"AIRFLOW__DISPATCH__BACKENDS_CMD": command},
            "[dispatch] backends",
        ),
        "tokens": (
            airflow_cfg().replace("jwt_secret = of-a-test", f"jwt_secret_cmd = {command}"),
            {},
            "[api_auth] jwt_secret",
        ),
    }[where]
    (found,) = validate(Configuration(cfg, env, FILES)).findings
    assert found["where"] == place
    (pid,) = Path(home, "pids").read_text().split()
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


SECRETS = """
import threading

class Secrets:
    def get_config(self, key):
        with open({runs!r}, "a") as file:
            file.write("asked\\n")
        {then}
"""


@pytest.mark.parametrize(
    "then", ["threading.Event().wait()", "raise SystemExit(0)", "raise ValueError('hunter2')"]
)
@pytest.mark.parametrize("where", ["all backends", "one backend"])
def test_a_secrets_backend_that_fails_is_asked_once(
    where: str, then: str, validate: Validate, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it does, there is one finding, which quotes nothing."""
    monkeypatch.setattr(backend_conf, "COMMAND_TIMEOUT", 0.3)
    monkeypatch.syspath_prepend(home)
    module, runs = f"secrets_{next(NUMBERS)}", f"{home}/runs"
    cfg = of(CELERY, '{"celery": {"broker_url_secret": "a/b"}}')
    if where == "all backends":
        cfg = GLOBAL.replace("broker_url_cmd = <>", "broker_url_secret = a/b")
    env = {"AIRFLOW__SECRETS__BACKEND": f"{module}.Secrets"}
    files = {**FILES, f"{module}.py": SECRETS.format(runs=runs, then=then)}
    (found,) = validate(Configuration(cfg, env, files)).findings
    assert "broker_url" in found["where"]
    assert "hunter2" not in str(found)
    assert Path(runs).read_text() == "asked\n"


TELLING = """
import sys
from airflow.executors.base_executor import BaseExecutor
from airflow_dispatch_provider.testing.in_memory import InMemoryExecutor

class Mine(InMemoryExecutor):
    @staticmethod
    def conf_problems(conf):
        {conf_problems}

    def config_problems(self):
        {config_problems}

    def config_doubts(self):
        {config_doubts}
"""
CHECKS = dict.fromkeys(["conf_problems", "config_problems", "config_doubts"], "return None")


def own_executor(checks: dict[str, str]) -> Configuration:
    """With an executor of a user's that checks its options so; each time a module of its own."""
    module = f"mine_{next(NUMBERS)}"
    mine = f'{{"executor": "{module}.Mine", "slots": 4, "config": %s}}'
    return Configuration(of(mine, "{}"), files={f"{module}.py": TELLING.format(**checks)})


def test_an_executor_that_answers_nothing_has_nothing_to_say(
    validate: Validate, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(home)
    assert validate(own_executor(CHECKS)).findings == []


@pytest.mark.parametrize("statement", ["raise ValueError('hunter2')", "sys.exit('hunter2')", "sys.exit(0)"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_fails_is_named_and_not_quoted(
    check: str, statement: str, validate: Validate, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(home)
    answer = validate(own_executor({**CHECKS, check: statement}))
    (finding,) = answer.findings
    assert (answer.code, finding["where"]) == (1, "[dispatch] backends.c.executor")
    assert finding["found"].startswith("cannot be made (")
    assert "hunter2" not in str(finding)


@pytest.mark.parametrize(
    ("backend", "config"),
    [
        *((CELERY, config) for config in ["{}", *cases_celery.RIGHT]),
        *((KUBERNETES, config) for config in ["{}", *cases_kubernetes.RIGHT]),
    ],
)
def test_backends_without_a_mistake(backend: str, config: str, validate: Validate) -> None:
    assert validate(Configuration(of(backend, config), files=FILES)).findings == []
