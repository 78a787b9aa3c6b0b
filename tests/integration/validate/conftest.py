# SPDX-License-Identifier: Apache-2.0
"""``validate`` in this process, for hundreds of cases, and ``airflow dispatch validate`` as a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_config import DefaultHelpParser
from airflow.configuration import conf
from airflow.executors import executor_loader

from airflow_dispatch_provider.cli.definition import get_dispatch_cli_commands

from .harness import Answer, Configuration, Validate, answer, at_home

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> str:
    """Where the files of a configuration are."""
    return str(tmp_path)


@pytest.fixture
def run(home: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command of ``airflow dispatch`` with a configuration: its exit code, stdout and stderr."""

    def run_command(configuration: Configuration, name: str, *arguments: str) -> tuple[int, str, str]:
        configuration = at_home(configuration, home)
        _write_files(configuration, Path(home))
        monkeypatch.chdir(home)
        capsys.readouterr()
        code = 0
        with _in_use(configuration), monkeypatch.context() as patch:
            # Airflow remembers for the life of a process which executors are configured.
            patch.setattr(executor_loader, "_executor_names", [])
            for environ in [
                name for name in os.environ if name.startswith(("AIRFLOW__", "AIRFLOW_DISPATCH__"))
            ]:
                patch.delenv(environ)
            for variable, value in configuration.env.items():
                patch.setenv(variable, value)
            try:
                _call(name, arguments)
            except SystemExit as stop:
                code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run_command


@pytest.fixture
def validate(run: Run) -> Validate:
    """``airflow dispatch validate`` in this process."""

    def in_this_process(configuration: Configuration) -> Answer:
        code, out, err = run(configuration, "validate", "--output", "json")
        assert not err
        return answer(code, out)

    return in_this_process


@pytest.fixture
def airflow(home: str) -> Run:
    """A command of ``airflow dispatch`` as a process of its own, with a configuration of its own."""

    def run_process(
        configuration: Configuration, *arguments: str, timeout: float = 300.0
    ) -> tuple[int, str, str]:
        configuration = at_home(configuration, home)
        _write_files(configuration, Path(home))
        Path(home, "airflow.cfg").write_text(configuration.cfg)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "dispatch", *arguments],
            env={**inherited, "AIRFLOW_HOME": home, "COLUMNS": "80", **configuration.env},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        return done.returncode, done.stdout, done.stderr

    return run_process


def _write_files(configuration: Configuration, folder: Path) -> None:
    for name, text in configuration.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


@contextmanager
def _in_use(configuration: Configuration) -> Iterator[None]:
    """An airflow.cfg in place of the one that this process was started with."""
    parser: Any = conf
    before = deepcopy(parser._sections), dict(parser._proxies)
    secret = parser._default_values.get("api_auth", "jwt_secret")
    try:
        parser._sections.clear()
        parser._proxies.clear()
        # A process without an airflow.cfg writes one, and has the secret in it as a default from then on.
        parser._default_values.set("api_auth", "jwt_secret", "")
        parser.read_string(configuration.cfg)
        yield
    finally:
        parser._default_values.set("api_auth", "jwt_secret", secret)
        parser._sections, parser._proxies = before


def _call(name: str, arguments: tuple[str, ...]) -> None:
    (group,) = get_dispatch_cli_commands()
    command: Any = next(each for each in group.subcommands if each.name == name)
    parser: argparse.ArgumentParser = DefaultHelpParser(prog=f"airflow dispatch {name}")
    for arg in command.args:
        arg.add_to_parser(parser)
    command.func(parser.parse_args(arguments))
