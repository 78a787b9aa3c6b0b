# SPDX-License-Identifier: Apache-2.0
"""``case``: one configuration after another; no options from the environment but those that a test sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from airflow_dispatch_provider.cli import airflow_options, migrate
from tests.unit.cli.migrate.cases import CASES, variables

described = cache(airflow_options.retrieve_configuration_description)
"""Airflow reads its own description anew each time, which takes longer than all else that the command does."""


@pytest.fixture(autouse=True)
def _no_options(_no_configuration: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(airflow_options, "retrieve_configuration_description", described)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a case, which is the current one; its variables are set."""
    folder: Path = request.param
    monkeypatch.chdir(folder)
    monkeypatch.setattr(migrate, "AIRFLOW_CONFIG", str(folder / "none.cfg"))
    for name, value in variables(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Write an airflow.cfg; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "airflow.cfg"
        path.write_text(text)
        return str(path)

    return write
