# SPDX-License-Identifier: Apache-2.0
"""Names that Dags may give in ``executor=`` beside a router.

Airflow takes every name in ``executor=`` for an executor of its own, to be listed in ``[core] executor``. The classes
here are listed under such a name, and hand everything over to the router of the same process::

    executor = airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor,
               KubernetesExecutor:airflow_dispatch_provider.executors.by_name.KubernetesExecutor
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge.backend_conf import settings_source
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.executors.class_attributes import FromBackends
from airflow_dispatch_provider.executors.configured import configured_executors, make_router, router_classes
from airflow_dispatch_provider.executors.dispatch_executor import STARTED, DispatchExecutor
from airflow_dispatch_provider.settings.model import Settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class FromRouter:
    """A class attribute that is what the configured router has; on the class and on instances alike."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        team = getattr(instance, "team_name", None)
        cls = router_classes().get(team, DispatchExecutor)
        started = STARTED.get(team) if instance is not None else None
        if started is not None:
            return getattr(started, self._name)
        found = getattr_static(cls, self._name, None)
        is_ours = instance is not None and isinstance(found, FromBackends)
        return found.of_team(cls, team) if is_ours else getattr(cls, self._name)


class _HandsOver:
    """An executor that is nothing but a name of the router.

    No subclass of BaseExecutor itself: Airflow 3.4 wraps what an executor class defines, so as to remember in it the
    tasks that here only pass through.
    """

    supports_multi_team = True
    supports_task_instance_uuid = AIRFLOW_V_3_4_PLUS
    is_local = FromRouter()
    serve_logs = FromRouter()
    supports_ad_hoc_ti_run = FromRouter()
    if not AIRFLOW_V_3_2_PLUS:
        supports_sentry = FromRouter()
    pre_assigns_external_executor_id = FromRouter()
    if AIRFLOW_V_3_4_PLUS:
        supported_workload_types = FromRouter()
    else:
        supports_callbacks = FromRouter()
        supports_connection_test = FromRouter()

    team_name: str | None
    conf: Any
    _not_started: DispatchExecutor | None = None

    @property
    def _main(self) -> DispatchExecutor:
        """The router that runs in this process; where logs are read there is none, so one is made."""
        found = STARTED.get(self.team_name) or self._not_started
        if found is None:
            found = self._not_started = make_router(self.team_name)
        if found is None:
            raise DispatchConfigError([_no_router(type(self))])
        return found

    def start(self) -> None:
        """
        :raises DispatchConfigError: where there is no router to hand over to, or no backend of this name in it
        """
        hybrid = self._main.hybrid
        settings = settings_source(self.conf, hybrid).load_or_last_good()
        if problems := list(entry_problems(self.team_name, settings)):
            raise DispatchConfigError(problems)

    def heartbeat(self) -> None:
        """The router has its own."""

    def end(self) -> None:
        """The router has its own."""

    def terminate(self) -> None:
        """The router has its own."""

    @property
    def running(self) -> Any:
        return self._main.running

    @running.setter
    def running(self, value: Any) -> None:
        """The base class's own set is not used."""

    @property
    def slots_available(self) -> int:
        """The scheduler counts down by name, so that it may queue as many for each; what is too much is held."""
        return self._main.slots_available

    @property
    def slots_occupied(self) -> int:
        """The router counts them."""
        return 0

    def queue_workload(self, workload: Any, session: Session) -> None:
        self._main.queue_workload(workload, session, type(self).__name__)

    def has_task(self, task_instance: Any) -> bool:
        return self._main.has_task(task_instance)

    def revoke_task(self, *, ti: Any) -> None:
        self._main.revoke_task(ti=ti)

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        self._main.change_state(key, state, info, remove_running)

    def fail_connection_test(self, key: Any) -> None:
        """The scheduler tells every executor, the router too."""

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        return self._main.try_adopt_task_instances(tis)

    def get_task_log(self, ti: Any, try_number: int) -> Any:
        return self._main.get_task_log(ti, try_number)

    def get_streaming_task_log(self, ti: Any, try_number: int) -> Any:
        return self._main.get_streaming_task_log(ti, try_number)


class CeleryExecutor(_HandsOver, BaseExecutor):
    """Tasks that say ``executor="CeleryExecutor"`` go to the backends whose executor is called so."""


class KubernetesExecutor(_HandsOver, BaseExecutor):
    """Tasks that say ``executor="KubernetesExecutor"`` go to the backends whose executor is called so."""


class LocalExecutor(_HandsOver, BaseExecutor):
    """Tasks that say ``executor="LocalExecutor"`` go to the backends whose executor is called so."""


def entry_problems(team: str | None, settings: Settings | None) -> Iterator[Problem]:
    """Problems with the classes of this module that ``[core] executor`` lists for a team, or for everybody.

    :param settings: None where they cannot be read
    """
    listed = [cls for name, cls in configured_executors() if name.team_name == team]
    routers = [cls for cls in listed if issubclass(cls, DispatchExecutor)]
    for position, cls in enumerate(listed):
        if not issubclass(cls, _HandsOver):
            continue
        if not routers:
            yield _no_router(cls)
        elif routers[0] not in listed[:position]:
            found = f"lists {_path(cls)} before the router."
            yield Problem("[core] executor", found, f"Put {_path(routers[0])} first.")
        elif settings is not None and cls.__name__ not in settings.executors:
            found = f"lists {_path(cls)}, and no backend has an executor of that name."
            yield Problem(
                "[core] executor", found, f"Give a backend the {cls.__name__}, or remove it from the list."
            )


def _no_router(cls: type[Any]) -> Problem:
    found = f"lists {_path(cls)} without a router before it."
    remedy = f"Put {DispatchExecutor.__module__}.{DispatchExecutor.__name__} first."
    return Problem("[core] executor", found, remedy)


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__name__}"
