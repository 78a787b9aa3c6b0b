# SPDX-License-Identifier: Apache-2.0
"""The questions of the REST API, and who answers them: the tables and the configuration, or a test."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from airflow_dispatch_provider.operate.model import OrderInForce, Status, TaskStory, Waiting
from airflow_dispatch_provider.settings.source import SettingsSource


class Answers(Protocol):
    """Everything that the API asks; as it is, whoever asks."""

    def status(self) -> Status:
        """Of all teams."""
        ...

    def waiting(self, backend: str | None, reason: str | None, dag_id: str | None, limit: int) -> Waiting: ...

    def story(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None
    ) -> TaskStory | None: ...

    def order(
        self, command: str, backend: str, team: str | None, by: str, reason: str, seconds: float | None
    ) -> OrderInForce | None:
        """
        :raises UnknownBackend: nobody has it
        :raises TablesMissing: it can be kept nowhere
        """
        ...

    def settings(self, team: str | None) -> SettingsSource:
        """Of the router of a team, None being everybody's."""
        ...


class LiveAnswers:
    """From this package's tables and Airflow's configuration. Each module is loaded when it is first asked."""

    def status(self) -> Status:
        found: Status = _module("status").read_status()
        return found

    def waiting(self, backend: str | None, reason: str | None, dag_id: str | None, limit: int) -> Waiting:
        found: Waiting = _module("waiting").read_waiting(backend, reason, dag_id, limit)
        return found

    def story(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None
    ) -> TaskStory | None:
        found: TaskStory | None = _module("story").read_story(dag_id, run_id, task_id, map_index, try_number)
        return found

    def order(
        self, command: str, backend: str, team: str | None, by: str, reason: str, seconds: float | None
    ) -> OrderInForce | None:
        found: OrderInForce | None = _module("orders").give_order(command, backend, team, by, reason, seconds)
        return found

    def settings(self, team: str | None) -> SettingsSource:
        from airflow_dispatch_provider.operate.configuration import router_source

        return router_source(team)


def _module(name: str) -> Any:
    return import_module(f"airflow_dispatch_provider.operate.{name}")
