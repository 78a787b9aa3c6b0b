# SPDX-License-Identifier: Apache-2.0
"""The questions of the REST API, and who answers them: the tables and the configuration, or a test."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from airflow_dispatch_provider.operate.changes import read_changes
from airflow_dispatch_provider.operate.configuration import router_source
from airflow_dispatch_provider.operate.forecast import read_forecast
from airflow_dispatch_provider.operate.model import (
    Forecast,
    GivenOrder,
    RunningOfTeams,
    Status,
    WaitingOfTeams,
    WaitingTask,
)
from airflow_dispatch_provider.operate.orders import give_order
from airflow_dispatch_provider.operate.past import Change, TaskStory
from airflow_dispatch_provider.operate.running import read_running_of_teams
from airflow_dispatch_provider.operate.status import read_status
from airflow_dispatch_provider.operate.story import read_story
from airflow_dispatch_provider.operate.waiting import read_waiting_of_teams, with_usual
from airflow_dispatch_provider.settings.source import SettingsSource


class Answers(Protocol):
    """Everything that the API asks; as it is, whoever asks."""

    def status(self) -> Status:
        """Of all teams."""
        ...

    def waiting(self, backend: str | None, reason: str | None, dag_id: str | None) -> WaitingOfTeams: ...

    def usual(self, tasks: list[WaitingTask]) -> list[WaitingTask]:
        """The same, with how long they usually wait."""
        ...

    def running(self, backend: str | None, dag_id: str | None) -> RunningOfTeams: ...

    def forecast(self, backend: str, team: str | None) -> Forecast:
        """
        :raises UnknownBackend: nobody has it
        """
        ...

    def changes(self, since: datetime, concerns: Callable[[str | None], bool]) -> list[Change]:
        """Those of teams that are concerned, as many as one answer has."""
        ...

    def story(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        try_number: int | None,
        with_audit_log: bool,
    ) -> TaskStory:
        """
        :param with_audit_log: with what only those may see who may read Airflow's audit log
        :raises NoSuchTask: there is none
        """
        ...

    def order(
        self, command: str, backend: str, team: str | None, by: str, reason: str, seconds: float | None
    ) -> GivenOrder | None:
        """
        :returns: the order that is in force now; with ``resume`` the one that was, None: there was none
        :raises UnknownBackend: nobody has it
        :raises WrongOrder: it makes no sense
        :raises TablesMissing: it can be kept nowhere
        :raises ReadOnly: it can be kept nowhere from here
        """
        ...

    def settings(self, team: str | None) -> SettingsSource:
        """Of the router of a team, None being everybody's."""
        ...


class LiveAnswers:
    """From this package's tables and Airflow's configuration."""

    def status(self) -> Status:
        return read_status()

    def waiting(self, backend: str | None, reason: str | None, dag_id: str | None) -> WaitingOfTeams:
        return read_waiting_of_teams(backend, reason, dag_id)

    def usual(self, tasks: list[WaitingTask]) -> list[WaitingTask]:
        return with_usual(tasks)

    def running(self, backend: str | None, dag_id: str | None) -> RunningOfTeams:
        return read_running_of_teams(backend, dag_id)

    def forecast(self, backend: str, team: str | None) -> Forecast:
        return read_forecast(backend, team)

    def changes(self, since: datetime, concerns: Callable[[str | None], bool]) -> list[Change]:
        return read_changes(since, concerns)

    def story(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        try_number: int | None,
        with_audit_log: bool,
    ) -> TaskStory:
        return read_story(dag_id, run_id, task_id, map_index, try_number, with_audit_log)

    def order(
        self, command: str, backend: str, team: str | None, by: str, reason: str, seconds: float | None
    ) -> GivenOrder | None:
        return give_order(command, backend, team, by, reason, seconds)

    def settings(self, team: str | None) -> SettingsSource:
        return router_source(team)
