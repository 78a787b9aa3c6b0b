# SPDX-License-Identifier: Apache-2.0
"""Whoever does what the command says ends with a configuration that Airflow's own commands accept."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any

import pytest
from airflow import configuration
from airflow.cli.commands import config_command
from kubernetes_files import kubeconfig

from airflow_dispatch_provider.cli.airflow_options import installed_target
from airflow_dispatch_provider.migration.findings import Target
from tests.unit.cli.conftest import Outcome
from tests.unit.cli.migrate.cases import arguments, variables

Run = Callable[..., Outcome]
Lint = Callable[[str], list[str]]

pytestmark = pytest.mark.recent

NO_ARGUMENTS = {"section": None, "option": None, "ignore_section": None, "verbose": False}


@pytest.fixture(scope="module")
def target() -> Target:
    return installed_target()


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a text the airflow.cfg that Airflow's commands read; returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "airflow.cfg"
        path.write_text(text)
        monkeypatch.setattr(configuration, "AIRFLOW_CONFIG", str(path))
        monkeypatch.setattr(config_command, "AIRFLOW_CONFIG", str(path))
        monkeypatch.setattr(config_command, "conf", configuration.initialize_config())
        return path

    return write


@pytest.fixture
def lint(use: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> Lint:
    """Output of ``airflow config lint`` for an airflow.cfg and the environment, but for two things that are meant: an
    option differs from the default of Airflow 3, and what belongs to a provider that is not installed."""

    def run_lint(text: str) -> list[str]:
        use(text)
        capsys.readouterr()
        config_command.lint_config(Namespace(**NO_ARGUMENTS, ignore_option=None))
        lines = " ".join(capsys.readouterr().out.split()).split(" - ")[1:]
        return [line for line in lines if not re.search("Changed default value|`(fab|policy)`", line)]

    return run_lint


def change(parser: ConfigParser, finding: dict[str, Any]) -> None:
    """Do in the file what is said of one of its options."""
    section, name = key_of(finding["option"])
    if not name:
        parser.remove_section(section)
    elif finding["do"] == "change":
        parser[section][name] = finding["to"] or "of-todays-image"
    else:
        value = parser[section].pop(name)
        if finding["do"] == "rename":
            put_in(parser, "[{}]\n{} = {}".format(*key_of(finding["to"]), value.replace("\n", "\n  ")))


def key_of(label: str) -> tuple[str, str]:
    section, _, name = label.partition("]")
    return section.removeprefix("["), name.strip()


def drop_empty(parser: ConfigParser) -> None:
    """An empty value is none, but not for the linter."""
    for section in parser.sections():
        for name, value in [*parser[section].items()]:
            if not value.strip():
                parser.remove_option(section, name)


def put_in(parser: ConfigParser, lines: str | None) -> None:
    new = ConfigParser(interpolation=None)
    new.read_string(lines or "")
    for section in new.sections():
        if not parser.has_section(section):
            parser.add_section(section)
        parser[section].update(new[section])


def text_of(parser: ConfigParser, tmp_path: Path) -> str:
    path = tmp_path / "written.cfg"
    with path.open("w") as file:
        parser.write(file)
    return path.read_text()


def follow_in_environment(found: dict[str, Any], case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = variables(case)
    for finding in found["options"]:
        if finding["option"].startswith("AIRFLOW__"):
            monkeypatch.delenv(finding["option"])
            if finding["do"] == "rename":
                monkeypatch.setenv(finding["to"], values[finding["option"]])


def test_nothing_is_left_for_the_linter(
    case: Path,
    run: Run,
    lint: Lint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the changes that are listed, and the new lines."""
    found = run("migrate", *arguments(case), "--output", "json").json
    parser = ConfigParser(interpolation=None)
    if (case / "airflow.cfg").exists():
        parser.read_string((case / "airflow.cfg").read_text(encoding="utf-8-sig"))
        drop_empty(parser)
    order = ("rename", "change", "remove")
    for finding in sorted(found["options"], key=lambda finding: order.index(finding["do"])):
        if finding["option"].startswith("["):
            change(parser, finding)
    put_in(parser, found["configuration"])
    follow_in_environment(found, case, monkeypatch)
    assert lint(text_of(parser, tmp_path)) == []


def test_nothing_is_proposed_that_does_not_exist(case: Path, run: Run, target: Target) -> None:
    """Every new name of an option is one that Airflow or a provider describes."""
    found = run("migrate", *arguments(case), "--output", "json").json
    new = [row["to"] for row in found["options"] if row["do"] == "rename"]
    keys = [key_of(label) if label.startswith("[") else tuple(label.lower().split("__")[1:]) for label in new]
    assert [key for key in keys if key not in target.options] == []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig, so that a Kubernetes backend knows where its cluster is. Nothing connects to it."""
    (tmp_path / "kubeconfig").write_text(kubeconfig())
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER", "False")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE", str(tmp_path / "kubeconfig"))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("form", ["configuration", "one_class", "by_name"])
def test_validate_accepts_what_is_printed(
    form: str, case: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each form of the lines, given to ``airflow dispatch validate``."""
    lines = lines_of(run("migrate", *arguments(case), "--output", "json").json, form)
    if lines is None:
        pytest.skip("nothing that it looks at is printed, or a class or a team that is not here")
    for name in variables(case):
        monkeypatch.delenv(name)
    for section in lines.sections():
        for name, value in lines[section].items():
            monkeypatch.setenv(f"AIRFLOW__{section}__{name}".upper(), value)
    done = run("validate")
    assert (done.code, done.err) == (0, ""), done.out


def lines_of(found: dict[str, Any], form: str) -> ConfigParser | None:
    """None: not printed, or no router, or something in it is not here."""
    text = found["one_class" if form == "one_class" else "configuration"] or ""
    if found[form] is None or re.search("=dispatch|AwsEcs|example", text) or found["ready"]:
        return None
    if form == "one_class" and not re.search("(Celery|Local)KubernetesExecutor", text):
        return None
    lines = ConfigParser(interpolation=None)
    lines.read_string(text)
    if form == "by_name":
        lines["core"]["executor"] = found["by_name"]
    return lines


@pytest.mark.parametrize(
    ("text", "ignored", "harm"),
    [
        ("[core]\nexecutor = CeleryExecutor\n", [], "no executor"),
        ("[celery]\ntask_adoption_timeout = 600\nstalled_task_timeout = 0\n", [], "DuplicateOptionError"),
        ("[core]\nexecutor = a,\n    b\n", ["executor", "core.executor"], "ParsingError"),
    ],
)
def test_why_the_update_is_not_left_alone(
    text: str, ignored: list[str], harm: str, use: Callable[[str], Path]
) -> None:
    """Airflow's command loses the executor, writes an option twice, and breaks values of several lines. What is printed
    about that can go when this fails."""
    path = use(text)
    config_command.update_config(
        Namespace(**NO_ARGUMENTS, ignore_option=ignored, fix=True, all_recommendations=True)
    )
    assert state_of(path) == harm


def state_of(path: Path) -> str:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text())
    except Error as error:
        return type(error).__name__
    return "right" if parser.has_option("core", "executor") else "no executor"
