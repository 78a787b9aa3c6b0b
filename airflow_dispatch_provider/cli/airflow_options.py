# SPDX-License-Identifier: Apache-2.0
"""Options as the installed Airflow knows them, as plain data for the migration: its description of them, and the rules
of ``airflow config lint``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from configparser import RawConfigParser
from pathlib import Path
from pkgutil import resolve_name

import airflow
from airflow import __version__
from airflow.cli.commands.config_command import CONFIGS_CHANGES, ConfigChange
from airflow.configuration import conf, retrieve_configuration_description

from airflow_dispatch_provider.bridge.options.reads import not_used
from airflow_dispatch_provider.migration.findings import Target
from airflow_dispatch_provider.migration.options import Key

_UNDESCRIBED = frozenset(
    (section, name)
    for section, names in {
        "api": "jwt_audience",
        "celery": "broker_connection_retry_on_startup",
        "core": "airflow_home dbapihook_resolve_target_fields mp_forkserver_preload mp_start_method multi_team",
        "logging": "donot_modify_handlers json_logs task_logs_to_stdout",
        "scheduler": "num_stuck_in_queued_retries",
        "traces": "tags",
        "workers": "api_retries api_retry_wait_max api_retry_wait_min",
    }.items()
    for name in names.split()
)
"""Options that Airflow 3.1 to 3.4 and its providers read without describing them."""


def installed_target() -> Target:
    """The Airflow that runs this command. Options are those that it and the installed providers describe; the names
    that ``airflow.configuration`` keeps for old files without a provider are left out."""
    described = retrieve_configuration_description()
    options = {
        (section.lower(), spelling): None if option.get("default") is None else str(option["default"])
        for section, content in described.items()
        for name, option in content["options"].items()
        for spelling in _spellings(name.lower(), option.get("sensitive", False))
    }
    moved = {_key(change): _destination(change) for change in CONFIGS_CHANGES if _moves(change)}
    written = _written_by_airflow()
    undescribed = _UNDESCRIBED | _still_read() | written.keys()
    return Target(__version__, options, moved, _outdated(), undescribed, written, not_used())


def missing(paths: Iterable[str]) -> frozenset[str]:
    """Those that cannot be imported; they begin with ``airflow.``, so that no code of a user's runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return frozenset(path for path in paths if not _importable(path))


def _spellings(name: str, sensitive: bool) -> tuple[str, ...]:
    return (name, f"{name}_cmd", f"{name}_secret") if sensitive else (name,)


def _outdated() -> dict[Key, set[str]]:
    found: dict[Key, set[str]] = {}
    for change in CONFIGS_CHANGES:
        if change.remove_if_equals is not None:
            found.setdefault(_key(change), set()).add(str(change.remove_if_equals))
    return found


def _key(change: ConfigChange) -> Key:
    return change.config.section.lower(), change.config.option.lower()


def _moves(change: ConfigChange) -> bool:
    always = change.was_removed and change.remove_if_equals is None
    return not change.default_change and (change.renamed_to is not None or always)


def _destination(change: ConfigChange) -> Key | None:
    to = change.renamed_to
    return None if to is None else (to.section.lower(), to.option.lower())


def _still_read() -> frozenset[Key]:
    """Old names that Airflow reads with a warning."""
    return frozenset((section, name) for section, name, _ in conf.deprecated_options.values())


def _written_by_airflow() -> dict[Key, str]:
    """See ``Target.written``."""
    parser = RawConfigParser()
    parser.read(Path(airflow.__file__).parent / "config_templates" / "provider_config_fallback_defaults.cfg")
    return {(section, name): value for section in parser.sections() for name, value in parser.items(section)}


def _importable(path: str) -> bool:
    try:
        resolve_name(path)
    except Exception:
        return False
    return True
