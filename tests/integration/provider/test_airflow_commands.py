# SPDX-License-Identifier: Apache-2.0
"""The provider metadata as Airflow shows it: its own commands, each in a process of its own, a fork of a common one.

Needs the package installed (editable will do), so that its entry point is there.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from airflow.executors.executor_loader import CORE_EXECUTOR_NAMES

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.get_provider_info import EXECUTORS
from airflow_dispatch_provider.settings.options import OPTIONS
from devkit.deployments.airflow_forks import AirflowForks

OURS = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
BACKENDS = (
    '{"local": {"executor": "LocalExecutor", "slots": 4,'
    ' "config": {"core": {"execution_api_server_url": "hunter2"}}}}'
)

Airflow = Callable[..., subprocess.CompletedProcess[str]]
Python = Callable[[str], str]

needs_celery = pytest.mark.skipif(
    find_spec("airflow.providers") is None or find_spec("airflow.providers.celery") is None,
    reason="the celery provider is not installed",
)


@pytest.fixture(scope="session")
def _airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow-home")


@pytest.fixture
def environ(_airflow_home: Path) -> dict[str, str]:
    """A fresh Airflow with the router over one backend; tests add to it."""
    return _environ(_airflow_home)


def _environ(airflow_home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {
        **inherited,
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__EXECUTOR": OURS,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DISPATCH__BACKENDS": BACKENDS,
        # Airflow 3.1 writes none where the executor is one of a provider.
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-a-test",
        "COLUMNS": "250",
    }


@pytest.fixture(scope="session")
def forks(_airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowForks]:
    with AirflowForks(tmp_path_factory.mktemp("forks"), _environ(_airflow_home)) as forks:
        yield forks


@pytest.fixture
def airflow(environ: dict[str, str], forks: AirflowForks) -> Airflow:
    return partial(forks.run, env=environ)


@pytest.fixture
def python(environ: dict[str, str]) -> Python:
    """Run code in a process of its own; returns its stdout."""

    def run(code: str) -> str:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_executors_are_listed(airflow: Airflow) -> None:
    done = airflow("providers", "executors", "-o", "json")
    listed = [row["executor_class_names"] for row in json.loads(done.stdout)]
    assert [name for name in EXECUTORS if name not in listed] == []


def test_config_list_shows_every_option(airflow: Airflow) -> None:
    done = airflow("config", "list", "--section", "dispatch", "--defaults", "--include-descriptions")
    assert done.returncode == 0
    assert [option for option in OPTIONS if f"{option} = " not in done.stdout] == []


SHOW = """
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
ProvidersManager().initialize_providers_configuration()
print(conf.as_dict(display_sensitive=False)["dispatch"]["backends"])
"""


def test_backends_are_masked(python: Python) -> None:
    assert python(SHOW).splitlines()[-1] == "< hidden >"


@pytest.mark.once
def test_backends_can_come_from_a_command(airflow: Airflow, environ: dict[str, str]) -> None:
    del environ["AIRFLOW__DISPATCH__BACKENDS"]
    environ["AIRFLOW__DISPATCH__BACKENDS_CMD"] = f"echo {shlex.quote(BACKENDS)}"
    assert airflow("dispatch", "validate").stdout.startswith("The [dispatch] configuration is right")


def news(done: subprocess.CompletedProcess[str], baseline: set[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if _without_time(line) not in baseline]


def _without_time(line: str) -> str:
    return line.partition(" ")[2] if line[:2] == "20" else line


@pytest.fixture(scope="session")
def baseline(_airflow_home: Path, forks: AirflowForks) -> set[str]:
    """Lines that Airflow itself prints on stderr with its own LocalExecutor (3.1.8 has some)."""
    environ = {**_environ(_airflow_home), "AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}
    done = forks.run("version", env=environ)
    assert done.returncode == 0
    return set(map(_without_time, done.stderr.splitlines()))


@pytest.mark.parametrize(
    "arguments",
    [
        ("version",),
        ("dispatch", "validate"),
        ("dispatch", "explain", "--queue", "q", "--output", "json"),
    ],
    ids=" ".join,
)
def test_commands_print_no_warning(arguments: tuple[str, ...], airflow: Airflow, baseline: set[str]) -> None:
    done = airflow(*arguments)
    assert (done.returncode, news(done, baseline)) == (0, [])
    assert "warning" not in done.stdout.lower()


def test_stdout_is_nothing_but_json(airflow: Airflow, environ: dict[str, str]) -> None:
    many = {f"backend-{number}": {"executor": "LocalExecutor", "slots": 1} for number in range(30)}
    environ["AIRFLOW__DISPATCH__BACKENDS"] = json.dumps(many)
    environ["AIRFLOW__DISPATCH__DEFAULT"] = "backend-0"
    done = airflow("dispatch", "backends", "--output", "json")
    assert len(json.loads(done.stdout)) == 30


@pytest.mark.once
def test_a_broken_configuration_breaks_no_command(airflow: Airflow, environ: dict[str, str]) -> None:
    environ["AIRFLOW__DISPATCH__BACKENDS"] = '{"local": '
    assert airflow("version").returncode == 0
    done = airflow("dispatch", "validate")
    assert done.returncode == 1
    assert "is not JSON" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@needs_celery
def test_celery_commands_are_there_once(airflow: Airflow, environ: dict[str, str]) -> None:
    environ["AIRFLOW__DISPATCH__BACKENDS"] = json.dumps(
        {
            "one": {"executor": "CeleryExecutor", "slots": 4},
            "two": {"executor": "CeleryExecutor", "slots": 4},
        }
    )
    environ["AIRFLOW__DISPATCH__DEFAULT"] = "one"
    done = airflow("celery", "--help")
    assert done.returncode == 0
    assert "worker" in done.stdout
    groups = [line.split()[0] for line in airflow("--help").stdout.splitlines() if line.split()]
    assert (groups.count("celery"), groups.count("dispatch")) == (1, 1)


@needs_celery
@pytest.mark.parametrize("name", ["celery", "local"])
def test_a_hybrid_has_the_commands_of_its_backends_once(
    name: str, airflow: Airflow, environ: dict[str, str]
) -> None:
    """With nothing under [dispatch]."""
    del environ["AIRFLOW__DISPATCH__BACKENDS"]
    environ["AIRFLOW__CORE__EXECUTOR"] = next(path for path in EXECUTORS if f".{name}_kubernetes_" in path)
    groups = [line.split()[0] for line in airflow("--help").stdout.splitlines() if line.split()]
    assert (groups.count("kubernetes"), groups.count("dispatch")) == (1, 1)
    # The providers of the installed packages add theirs since Airflow 3.2, whatever the executor.
    assert groups.count("celery") == (AIRFLOW_V_3_2_PLUS or name == "celery")


@pytest.mark.skipif(
    not AIRFLOW_V_3_2_PLUS, reason="on Airflow 3.1 only the configured executor adds commands"
)
def test_commands_are_there_whatever_the_executor(
    airflow: Airflow, environ: dict[str, str], baseline: set[str]
) -> None:
    environ["AIRFLOW__CORE__EXECUTOR"] = "LocalExecutor"
    done = airflow("dispatch", "validate")
    assert (done.returncode, news(done, baseline)) == (0, [])
    assert "nothing of [dispatch] is in use" in done.stdout


LOAD = """
from airflow.executors.executor_loader import ExecutorLoader
for name in {names!r}:
    executor = ExecutorLoader.load_executor(name)
    print(f"loaded {{type(executor).__module__}}.{{type(executor).__name__}}")
"""


@pytest.mark.parametrize("aliases", [False, True], ids=["without aliases", "with aliases"])
def test_executor_loader_loads_them_by_every_name(
    aliases: bool, environ: dict[str, str], python: Python
) -> None:
    """All configured at once, by import path, alias and class name."""
    alias_of = {path: f"mine-{number}" if aliases else "" for number, path in enumerate(EXECUTORS)}
    entries = [f"{alias}:{path}" if alias else path for path, alias in alias_of.items()]
    environ["AIRFLOW__CORE__EXECUTOR"] = ",".join(entries)
    names = {
        name: path
        for path, alias in alias_of.items()
        for name in (path, alias, path.rpartition(".")[2])
        if name and name not in CORE_EXECUTOR_NAMES
    }
    printed = python(LOAD.format(names=list(names))).splitlines()
    assert [line for line in printed if line.startswith("loaded ")] == [
        f"loaded {path}" for path in names.values()
    ]
