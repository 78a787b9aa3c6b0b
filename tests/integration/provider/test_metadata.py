# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest

from airflow_dispatch_provider import __version__
from airflow_dispatch_provider.get_provider_info import EXECUTORS, get_provider_info
from airflow_dispatch_provider.settings.model import Limits
from airflow_dispatch_provider.settings.options import OPTIONS
from airflow_dispatch_provider.settings.parse import ROUTING_KEYS


def schema(name: str) -> Any:
    return json.loads((Path(airflow.__file__).parent / name).read_text())


def test_fits_the_schema_that_airflow_checks_at_run_time() -> None:
    jsonschema.validate(get_provider_info(), schema("provider_info.schema.json"))


def test_entry_point_leads_to_it() -> None:
    (entry,) = [
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.value.startswith("airflow_dispatch_provider")
    ]
    assert entry.load() is get_provider_info
    assert entry.dist is not None
    assert (entry.dist.name, entry.dist.version) == (get_provider_info()["package-name"], __version__)


@pytest.mark.parametrize("path", EXECUTORS)
def test_executors_can_be_imported(path: str) -> None:
    from airflow.executors.base_executor import BaseExecutor

    module, _, name = path.rpartition(".")
    assert issubclass(getattr(__import__(module, fromlist=[name]), name), BaseExecutor)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_described_in_full(option: str) -> None:
    described = OPTIONS[option]
    assert {"description", "version_added", "type", "example", "default"} <= described.keys()
    assert described["description"].endswith(".\n")
    assert described["type"] in ("string", "integer", "float", "boolean")


def test_defaults_are_those_that_the_code_uses() -> None:
    defaults = Limits()
    for option in Limits.__dataclass_fields__:
        default = getattr(defaults, option)
        assert type(default)(OPTIONS[option]["default"]) == default


def test_every_part_of_the_settings_is_an_option() -> None:
    assert {*ROUTING_KEYS, *Limits.__dataclass_fields__} <= OPTIONS.keys()


def test_backends_are_sensitive() -> None:
    """Their ``config`` may hold a broker's password; nothing else of the section can."""
    assert [option for option, described in OPTIONS.items() if described.get("sensitive")] == ["backends"]
