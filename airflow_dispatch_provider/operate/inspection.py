# SPDX-License-Identifier: Apache-2.0
"""Backends as configured, and what their executor classes say of themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from airflow_dispatch_provider.bridge.executor_classes import workload_kinds
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from airflow_dispatch_provider.dispatch.backend import import_executor_class
from airflow_dispatch_provider.exceptions import BackendUnavailable
from airflow_dispatch_provider.routing.model import (
    EXECUTE_CALLBACK,
    EXECUTE_TASK,
    TEST_CONNECTION,
    BackendView,
)
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.settings.model import BackendSettings, Settings

OPTIONAL_KINDS: Mapping[str, str] = {
    **({EXECUTE_CALLBACK: "callbacks (Dag and deadline callbacks)"} if AIRFLOW_V_3_2_PLUS else {}),
    **({TEST_CONNECTION: "connection tests"} if AIRFLOW_V_3_3_PLUS else {}),
}
"""Workload types besides tasks that this Airflow knows, in words."""


@dataclass(frozen=True)
class ConfiguredBackend:
    """A backend as configured, and what its executor class says of itself."""

    name: str
    settings: BackendSettings
    kinds: frozenset[str]
    """Workload types that it can run; empty where it cannot be imported."""

    missing: str | None = None
    """Why it cannot be imported; None: it can."""

    remedy: str = ""
    """The remedy."""

    key: str = "executor"
    """The key of the backend that is wrong then."""

    misread: bool = False
    """See ``BackendUnavailable``."""

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the Airflow options that it overlays, never their values."""
        return tuple(
            f"{section}.{option}" for section, opts in self.settings.config.items() for option in opts
        )

    @property
    def view(self) -> BackendView:
        """As the routing core sees it with all slots free; without its executor it stays on an open circuit."""
        if self.missing is not None:
            return BackendView(self.settings.configured_slots, Reason.CIRCUIT_OPEN)
        blocked = Reason.CORDONED if self.settings.cordoned else None
        return BackendView(self.settings.configured_slots, blocked, self.kinds)


def inspect(settings: Settings, names: Collection[str] | None = None) -> tuple[ConfiguredBackend, ...]:
    """Import the executor of every backend.

    :param names: of these alone; None: of all
    """
    return tuple(
        _inspect(name, backend)
        for name, backend in settings.backends.items()
        if names is None or name in names
    )


def _inspect(name: str, backend: BackendSettings) -> ConfiguredBackend:
    try:
        executor = import_executor_class(backend)
    except BackendUnavailable as error:
        return ConfiguredBackend(
            name, backend, frozenset(), error.found, error.remedy, error.key, error.misread
        )
    return ConfiguredBackend(name, backend, workload_kinds(executor) & {EXECUTE_TASK, *OPTIONAL_KINDS})
