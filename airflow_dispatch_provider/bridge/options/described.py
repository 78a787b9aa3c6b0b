# SPDX-License-Identifier: Apache-2.0
"""Every option that the installed Airflow and its providers describe, and where those went that are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.configuration import conf as airflow_conf
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

_TYPES = {"integer": "whole", "float": "number", "boolean": "flag"}
"""From the types of Airflow's description to ours; anything else is text."""


@dataclass(frozen=True)
class Described:
    """Names in lower case."""

    options: Mapping[str, Mapping[str, str]]
    """Kinds (see ``reads.Kind``) by section and option."""

    moved: Mapping[tuple[str, str], tuple[str, str] | None]
    """By section and option as they were called once: as they are called now; None: they are gone."""


@providers_configuration_loaded
def describe_options() -> Described:
    """As the installed versions have it. Costs the loading of the providers' metadata, once a process."""
    found: dict[str, dict[str, str]] = {}
    for section, content in airflow_conf.configuration_description.items():
        options = content.get("options") or {}
        found[section.lower()] = {name.lower(): _kind(option) for name, option in options.items()}
    return Described(found, _moved(found))


def _kind(option: Any) -> str:
    return _TYPES.get(str((option or {}).get("type")), "text")


def _moved(found: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], tuple[str, str] | None]:
    """From the rules of ``airflow config lint``, and from the names that Airflow itself still takes."""
    from airflow.cli.commands.config_command import CONFIGS_CHANGES

    moved: dict[tuple[str, str], tuple[str, str] | None] = {}
    for change in CONFIGS_CHANGES:
        new = change.renamed_to
        if new is not None or change.was_removed:
            moved[change.config.section, change.config.option] = (
                None if new is None else (new.section, new.option)
            )
    for (section, option), (old_section, old_option, _) in airflow_conf.deprecated_options.items():
        moved[old_section, old_option] = (section, option)
    return {
        old: new
        for old, new in moved.items()
        if old[1] not in found.get(old[0], {}) and (new is None or new[1] in found.get(new[0], {}))
    }
