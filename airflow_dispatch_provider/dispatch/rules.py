# SPDX-License-Identifier: Apache-2.0
"""The users' settings as the life cycle takes them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from airflow_dispatch_provider.bridge.executor_classes import can_revoke
from airflow_dispatch_provider.dispatch.backend import import_executor_class
from airflow_dispatch_provider.exceptions import BackendUnavailable
from airflow_dispatch_provider.lifecycle import events
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.settings.model import BackendSettings, Limits, Settings


def route_table(settings: Settings) -> RouteTable:
    return RouteTable(settings.routes, settings.default, settings.executors)


def machine_settings(
    settings: Settings, limits: events.Limits, in_use: Collection[str] | None = None
) -> events.Settings:
    """
    :param limits: times, as Airflow's options say
    :param in_use: backends that there are already; None: all that are configured
    """
    there = settings.backends if in_use is None else in_use
    rules = {
        name: _rules(backend, settings.limits) for name, backend in settings.backends.items() if name in there
    }
    return events.Settings(route_table(settings), rules, limits)


def _rules(backend: BackendSettings, limits: Limits) -> events.BackendRules:
    return replace(
        _rules_of_class(backend),
        cordoned=backend.cordoned,
        min_delay=limits.retry_min_delay,
        max_delay=limits.retry_max_delay,
    )


def _rules_of_class(backend: BackendSettings) -> events.BackendRules:
    """Those of an executor that has an engine of ours; of others as far as their class tells."""
    try:
        cls = import_executor_class(backend)
    except BackendUnavailable:
        return events.BackendRules()
    own = getattr(cls, "rules", None)
    return own if isinstance(own, events.BackendRules) else events.BackendRules(revokes=can_revoke(cls))
