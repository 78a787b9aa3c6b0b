# SPDX-License-Identifier: Apache-2.0
"""The users' settings as the life cycle takes them."""

from __future__ import annotations

from airflow_dispatch_provider.bridge.executor_classes import can_revoke
from airflow_dispatch_provider.dispatch.backend import import_executor_class
from airflow_dispatch_provider.exceptions import BackendUnavailable
from airflow_dispatch_provider.lifecycle import events
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.settings.model import BackendSettings, Limits, Settings


def route_table(settings: Settings) -> RouteTable:
    return RouteTable(settings.routes, settings.default, settings.executors)


def machine_settings(settings: Settings, limits: events.Limits) -> events.Settings:
    """
    :param limits: times, as Airflow's options say
    """
    rules = {name: _rules(backend, settings.limits) for name, backend in settings.backends.items()}
    return events.Settings(route_table(settings), rules, limits)


def _rules(backend: BackendSettings, limits: Limits) -> events.BackendRules:
    return events.BackendRules(
        cordoned=backend.cordoned,
        revokes=_revokes(backend),
        min_delay=limits.retry_min_delay,
        max_delay=limits.retry_max_delay,
    )


def _revokes(backend: BackendSettings) -> bool:
    """As far as the class tells."""
    try:
        return can_revoke(import_executor_class(backend))
    except BackendUnavailable:
        return True
