# SPDX-License-Identifier: Apache-2.0
"""Whom Airflow lets see and do what here. Airflow mounts the apps of plugins without any check of its own, so that
every route has to ask this module, the only one that knows Airflow's security.

Reading needs the view of Airflow's jobs; what names a Dag also needs that Dag and its task instances, and rows of
Airflow's audit log that are not of this package the right to read that. Giving orders needs the right to change pools,
of the backend's team. Airflow's rules about teams apply: what belongs to no team is everybody's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    DagAccessEntity,
    DagDetails,
    PoolDetails,
)
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from fastapi import Depends, HTTPException, status

from airflow_dispatch_provider.bridge.backend_conf import several_teams
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS


class Access:
    """The rights of one user, for one request."""

    def __init__(self, user: Any) -> None:
        """
        :param user: as Airflow's ``get_user`` returned it
        """
        self._user = user
        self._manager: Any = get_auth_manager()

    @property
    def name(self) -> str:
        """As orders record it."""
        return str(self._user.get_name())

    def sees_team(self, team: str | None) -> bool:
        """Whether what belongs to this team may be seen."""
        if team is None or not (AIRFLOW_V_3_2_PLUS and several_teams()):
            return True
        from airflow.api_fastapi.auth.managers.models import resource_details

        details = vars(resource_details)["TeamDetails"](name=team)
        return bool(self._manager.is_authorized_team(method="GET", details=details, user=self._user))

    def acts_for(self, team: str | None) -> bool:
        """Whether orders may be given about backends of this team."""
        details = PoolDetails(team_name=team)
        allowed = self._manager.is_authorized_pool(method="PUT", details=details, user=self._user)
        return bool(allowed) and self.sees_team(team)

    def readable(self, dag_ids: set[str]) -> set[str]:
        """Those of these Dags whose tasks may be named."""
        return {dag_id for dag_id in dag_ids & self._dags if self._reads_tasks(dag_id)}

    @cached_property
    def _dags(self) -> set[str]:
        return set(self._manager.get_authorized_dag_ids(user=self._user, method="GET"))

    def reads_audit_log(self, dag_id: str) -> bool:
        """Of a Dag whose tasks may be named: whether what Airflow's audit log says of it may be told."""
        return self._reads(DagAccessEntity.AUDIT_LOG, dag_id)

    def _reads_tasks(self, dag_id: str) -> bool:
        return self._reads(DagAccessEntity.TASK_INSTANCE, dag_id)

    def _reads(self, entity: DagAccessEntity, dag_id: str) -> bool:
        """Of a Dag that may be read: teams have been asked about."""
        return bool(
            self._manager.is_authorized_dag(
                method="GET",
                access_entity=entity,
                details=DagDetails(id=dag_id),
                user=self._user,
            )
        )


def logged_in(user: GetUserDep) -> Access:
    """Any user: for files that say nothing of this deployment."""
    return Access(user)


def _reader(
    user: GetUserDep, allowed: Annotated[None, Depends(requires_access_view(AccessView.JOBS))]
) -> Access:
    return Access(user)


LoggedIn = Annotated[Access, Depends(logged_in)]
Reader = Annotated[Access, Depends(_reader)]
"""A user who may see how backends are; anybody else gets 401 or 403."""


def forbidden() -> HTTPException:
    """The same answer for what may not be done and for what may not be seen to exist."""
    return HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")
