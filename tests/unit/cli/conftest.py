# SPDX-License-Identifier: Apache-2.0
"""``run(...)``: one command of ``airflow dispatch`` in this process, from its arguments to its exit code."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.cli.cli_config import DefaultHelpParser
from airflow.executors import executor_loader
from unit.operate.documents import reading

from airflow_dispatch_provider.cli import explaining, looking, operating, ordering
from airflow_dispatch_provider.cli.definition import get_dispatch_cli_commands
from airflow_dispatch_provider.operate.documents import Reading
from airflow_dispatch_provider.operate.forecast import forecast_of
from airflow_dispatch_provider.operate.running import first_of as first_running
from airflow_dispatch_provider.operate.running import running_of
from airflow_dispatch_provider.operate.status import status_of
from airflow_dispatch_provider.operate.waiting import first_of as first_waiting
from airflow_dispatch_provider.operate.waiting import waiting_of

OURS = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
LOCAL = {"executor": "LocalExecutor", "slots": 4}

Configure = Callable[..., None]


@dataclass(frozen=True)
class Outcome:
    """Exit code and output, as a caller of the command sees them."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW__DISPATCH__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", OURS)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "of-a-test")
    # Airflow remembers for the life of a process which executors are configured.
    monkeypatch.setattr(executor_loader, "_executor_names", [])
    # No database, either.
    monkeypatch.setattr(explaining, "read_status", lambda team=None: status_of(reading()))


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Set options of ``[dispatch]``; what is not text is written as JSON."""

    def set_options(**options: Any) -> None:
        for option, value in options.items():
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"AIRFLOW__DISPATCH__{option.upper()}", text)

    return set_options


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run_command(name: str, *arguments: str) -> Outcome:
        code = 0
        capsys.readouterr()
        try:
            args = parser_of(name).parse_args(arguments)
            commands()[name].func(args)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run_command


def commands() -> Mapping[str, Any]:
    (group,) = get_dispatch_cli_commands()
    return {command.name: command for command in group.subcommands}


def parser_of(name: str) -> argparse.ArgumentParser:
    parser = DefaultHelpParser(prog=f"airflow dispatch {name}", description=commands()[name].description)
    for arg in commands()[name].args:
        arg.add_to_parser(parser)
    return parser


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Answer from these documents."""

    def set_answers(*rows: Any, **more: Any) -> None:
        found: Reading = reading(*rows, **more)
        monkeypatch.setattr(operating, "read_status", lambda team=None: status_of(found))
        monkeypatch.setattr(explaining, "read_status", lambda team=None: status_of(found))
        monkeypatch.setattr(
            operating,
            "read_waiting",
            lambda backend, reason, dag_id, limit, team: first_waiting(
                waiting_of(found, backend, reason, dag_id), limit
            ),
        )

        monkeypatch.setattr(
            looking,
            "read_running",
            lambda backend, dag_id, limit, team: first_running(running_of(found, backend, dag_id), limit),
        )
        monkeypatch.setattr(ordering, "read_forecast", lambda name, team: forecast_of(found, name, team))

    monkeypatch.setenv("COLUMNS", "200")
    return set_answers
