# SPDX-License-Identifier: Apache-2.0
"""The REST API and the page as a plugin of Airflow.

Every component of Airflow loads its plugins; only the API server asks this one for its apps, and what they need is
loaded then. It is found by the entry point ``airflow.plugins``: with the default of ``[core] lazy_discover_providers``,
Airflow does not look at the plugins that a provider's metadata names.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/dispatch"
NAME = "Dispatch"
"""The name in Airflow's menu and on its tabs, and that of the global variable by which its UI finds the page."""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='{color}'"
    " stroke-width='2' stroke-linecap='round' stroke-linejoin='round'%3E%3Cpath d='M3 12h6m0 0 5-7h7M9 12h12M9 12l5"
    " 7h7'/%3E%3C/svg%3E"
)

log = logging.getLogger(__name__)


class DispatchPlugin(AirflowPlugin):
    """Airflow makes one object of it in each process."""

    name = "dispatch"

    # The base class has lists, which every component would have to fill as it loads the plugin.
    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Asked by the API server, and by ``airflow plugins``. An API server without our API is better than none."""
        try:
            from airflow_dispatch_provider.operate.answers import LiveAnswers
            from airflow_dispatch_provider.operate.api import create_app

            return [{"app": create_app(LiveAnswers()), "url_prefix": PREFIX, "name": NAME}]
        except Exception:
            log.exception("The REST API of airflow-dispatch-provider cannot be made.")
            return []

    # As above.
    @cached_property
    def react_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """One bundle in two places: the menu, and the page of a task instance."""
        from airflow_dispatch_provider.operate.bundle import version_of_bundle

        version = version_of_bundle()
        if version is None or not self.fastapi_apps:
            return []
        app = {
            "name": NAME,
            "bundle_url": f"{_base_path()}{PREFIX}/page/dispatch.js?v={version}",
            "icon": _ICON.format(color="%23475569"),
            "icon_dark_mode": _ICON.format(color="%23cbd5e1"),
        }
        return [
            {**app, "destination": "nav", "category": "browse", "url_route": "dispatch"},
            {**app, "destination": "task_instance", "url_route": "dispatch_task"},
        ]


def _base_path() -> str:
    """Airflow's own path on its host, without a slash at the end."""
    from urllib.parse import urlsplit

    from airflow.configuration import conf

    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
