# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Airflow's configuration."""

from __future__ import annotations

from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.settings.source import SettingsSource


class FakeConf:
    """Options of ``[dispatch]``, and of other sections as ``section.option``; an exception as a value is raised."""

    def __init__(self, options):
        self.options = options

    def get(self, section, key, *, fallback=None):
        value = self.options.get(key if section == "dispatch" else f"{section}.{key}", fallback)
        if isinstance(value, Exception):
            raise value
        return value


def load(options):
    return SettingsSource(FakeConf(options), options=lambda: options).load()


def problems(action):
    """The mistakes that an action is refused with, a line each; it fails if it is not refused."""
    try:
        found = action()
    except DispatchConfigError as error:
        return [str(problem) for problem in error.problems]
    raise AssertionError(f"accepted: {found}")
