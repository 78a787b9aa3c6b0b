# SPDX-License-Identifier: Apache-2.0
"""Airflow's configuration as one backend sees it: its own options over everybody's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from configparser import InterpolationError
from pathlib import Path
from typing import Any

from airflow.configuration import AIRFLOW_HOME, run_command
from airflow.configuration import conf as airflow_conf
from airflow.exceptions import AirflowConfigException
from airflow.providers_manager import ProvidersManager

from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.options import SECTION
from airflow_dispatch_provider.settings.presets import Hybrid
from airflow_dispatch_provider.settings.source import SettingsSource
from airflow_dispatch_provider.version_compat import AIRFLOW_V_3_2_PLUS

_TRUE, _FALSE = {"true", "t", "1", "yes", "y", "on"}, {"false", "f", "0", "no", "n", "off"}


def settings_source(conf: Any, hybrid: Hybrid | None = None) -> SettingsSource:
    """The settings of ``[dispatch]`` as ``conf`` (global, or a team's ExecutorConf) has them, for a router with or
    without a preset. Reads nothing yet."""
    return SettingsSource(
        conf, _options_given, hybrid, _parallelism, Path(AIRFLOW_HOME, "dispatch-last-good")
    )


def _parallelism() -> int:
    """Of the scheduler, which all teams share."""
    return airflow_conf.getint("core", "parallelism")


def _options_given() -> Mapping[str, Any]:
    """Every option in ``[dispatch]``, by whatever source; none where one of them cannot be read, which the
    reading of that option will report."""
    if not AIRFLOW_V_3_2_PLUS:
        # Until then Airflow 3.1 does not know that ``backends`` may come from a command or a secret.
        manager: Any = ProvidersManager
        manager().initialize_providers_configuration()
    try:
        return airflow_conf.getsection(SECTION) or {}
    except (AirflowConfigException, InterpolationError):
        return {}


def unread_options(settings: Settings) -> Iterator[Problem]:
    """Options under a name that Airflow 2 still took, with a warning, and Airflow 3 does not."""
    set_in_environment = any(name.startswith("AIRFLOW__KUBERNETES__") for name in os.environ)
    there = set_in_environment or airflow_conf.has_section("kubernetes")
    if there and "KubernetesExecutor" in settings.executors:
        remedy = "Call the section [kubernetes_executor], as Airflow does since 2.5."
        yield Problem("[kubernetes]", "Airflow 3 reads nothing of this section.", remedy)


def environment_variable(backend: str, section: str, key: str) -> str:
    """The variable that overrides one option of one backend."""
    parts = (re.sub(r"[^A-Za-z0-9]", "_", part).upper() for part in (backend, section, key))
    return "AIRFLOW_DISPATCH__" + "__".join(parts)


class BackendConf:
    """Stands in for ``executor.conf`` of one backend.

    An option comes from, in this order: the backend's environment variable, its ``config``, the command or
    the secret that its ``config`` names, Airflow's own configuration. Names are case-insensitive, as in
    Airflow. Can be pickled: executors send it to their child processes; a secret that was fetched is not
    part of the pickle. Its repr names options, never values.
    """

    def __init__(self, backend: str, config: Mapping[str, Mapping[str, Any]], base: Any) -> None:
        """
        :param config: options by section
        :param base: what to ask for everything else: ``airflow.configuration.conf`` or an ExecutorConf
        """
        self._backend = backend
        self._config = {
            section.lower(): {key.lower(): str(value) for key, value in options.items()}
            for section, options in config.items()
        }
        self._base = base
        self._fetched: dict[tuple[str, str], str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fetched": {}}

    def __repr__(self) -> str:
        names = ", ".join(f"{section}.{key}" for section, keys in self._config.items() for key in keys)
        return f"BackendConf({self._backend!r}, overlaid: {names or 'nothing'})"

    @property
    def team_name(self) -> str | None:
        return getattr(self._base, "team_name", None)

    def get(self, section: str, key: str, *args: Any, **kwargs: Any) -> Any:
        own = self._own(section, key)
        return self._base.get(section, key, *args, **kwargs) if own is None else own

    def get_mandatory_value(self, section: str, key: str, **kwargs: Any) -> str:
        return str(self._typed("get_mandatory_value", section, key, str, kwargs))

    def getint(self, section: str, key: str, **kwargs: Any) -> int:
        return int(self._typed("getint", section, key, int, kwargs))

    def getfloat(self, section: str, key: str, **kwargs: Any) -> float:
        return float(self._typed("getfloat", section, key, float, kwargs))

    def getboolean(self, section: str, key: str, **kwargs: Any) -> bool:
        return bool(self._typed("getboolean", section, key, _boolean, kwargs))

    def getjson(self, section: str, key: str, **kwargs: Any) -> Any:
        return self._typed("getjson", section, key, json.loads, kwargs)

    def getlist(self, section: str, key: str, delimiter: str = ",", **kwargs: Any) -> Any:
        def split(text: str) -> list[str]:
            return [item.strip() for item in text.split(delimiter)] if text.strip() else []

        return self._typed("getlist", section, key, split, {"delimiter": delimiter, **kwargs})

    def has_option(self, section: str, option: str, **kwargs: Any) -> bool:
        if self._own(section, option) is not None:
            return True
        return bool(self._delegate("has_option")(section, option, **kwargs))

    def getsection(self, section: str, **kwargs: Any) -> dict[str, Any] | None:
        base: dict[str, Any] | None = self._delegate("getsection")(section, **kwargs)
        own = {key: self._own(section, key) for key in self._own_keys(section)}
        return {**(base or {}), **own} if own else base

    def _typed(self, getter: str, section: str, key: str, convert: Any, kwargs: dict[str, Any]) -> Any:
        own = self._own(section, key)
        if own is None:
            return self._delegate(getter)(section, key, **kwargs)
        try:
            return convert(own)
        except ValueError:
            message = (
                f"The option [{section}] {key} of the backend {self._backend!r} has a value that {getter} "
            )
            raise AirflowConfigException(message + "cannot read. Correct it in its 'config'.") from None

    def _delegate(self, getter: str) -> Any:
        """ExecutorConf of Airflow 3.1 knows only ``get`` and ``getboolean``."""
        return getattr(self._base, getter, None) or getattr(airflow_conf, getter)

    def _own_keys(self, section: str) -> set[str]:
        """Names of the options overlaid in a section."""
        options = self._config.get(section.lower(), {})
        return {
            key.removesuffix("_cmd").removesuffix("_secret") if key.endswith(("_cmd", "_secret")) else key
            for key in options
        }

    def _own(self, section: str, key: str) -> str | None:
        section, key = section.lower(), key.lower()
        from_environment = os.environ.get(environment_variable(self._backend, section, key))
        if from_environment is not None:
            return from_environment
        options = self._config.get(section)
        if options is None:
            return None
        if key in options:
            return options[key]
        if f"{key}_cmd" in options or f"{key}_secret" in options:
            return self._fetch(section, key, options)
        return None

    def _fetch(self, section: str, key: str, options: Mapping[str, str]) -> str | None:
        if (section, key) not in self._fetched:
            command = options.get(f"{key}_cmd")
            value = run_command(command) if command else _from_secrets_backend(options[f"{key}_secret"])
            if value is None:
                return None
            self._fetched[section, key] = value
        return self._fetched[section, key]


def _boolean(text: str) -> bool:
    word = text.split("#")[0].strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError


def _from_secrets_backend(path: str) -> str | None:
    from airflow.configuration import get_custom_secret_backend

    backend = get_custom_secret_backend()
    return None if backend is None else backend.get_config(path)
