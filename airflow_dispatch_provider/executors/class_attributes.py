# SPDX-License-Identifier: Apache-2.0
"""Attributes that Airflow reads on the executor class, before there is an instance: computed from the
configured backends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any, Generic, TypeVar

from airflow.configuration import conf
from airflow.executors.base_executor import ExecutorConf

from airflow_dispatch_provider.bridge.airflow_api import executor_names
from airflow_dispatch_provider.bridge.backend_conf import settings_source
from airflow_dispatch_provider.bridge.executor_classes import workload_kinds
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.dispatch.backend import import_executor_class
from airflow_dispatch_provider.exceptions import BackendUnavailable, DispatchConfigError
from airflow_dispatch_provider.routing.model import EXECUTE_TASK
from airflow_dispatch_provider.settings.presets import Hybrid

T = TypeVar("T")

log = logging.getLogger(__name__)


@cache
def configured_classes(hybrid: Hybrid | None = None, team: str | None = None) -> tuple[type[Any], ...]:
    """The executor classes of all backends of a team that can be imported, each once; none where the configuration is
    wrong: it is the scheduler's start and ``airflow dispatch validate`` that say so."""
    try:
        settings = settings_source(_conf_of(team), hybrid).load_or_last_good()
    except DispatchConfigError:
        return ()
    classes = {}
    for backend in settings.backends.values():
        try:
            classes[backend.class_path] = import_executor_class(backend)
        except BackendUnavailable as error:
            log.debug("%s", error)
    return tuple(classes.values())


def _conf_of(team: str | None) -> Any:
    if team is None:
        return conf
    return ExecutorConf(team)


def _teams_of(router: type[Any]) -> Collection[str | None]:
    """Teams with this router in ``[core] executor``, None being everybody's."""
    with suppress(Exception):
        names = executor_names()
        return {name.team_name for name in names if name.module_path.endswith(f".{router.__name__}")} or {
            None
        }
    return {None}


class FromBackends(Generic[T]):
    """A class attribute whose value follows from the classes of the configured backends: on an instance those that it
    has started, or else those of its team, on the class those of all teams that have this router.

    Has no ``__set__``, so that it serves reads on the class and on instances alike.
    """

    def __init__(self, compute: Callable[[Sequence[type[Any]]], T]) -> None:
        self._compute = compute

    def __get__(self, instance: object, owner: Any) -> T:
        if instance is not None:
            live = getattr(instance, "live_classes", None)
            if live is not None:
                return self._compute(live)
            return self.of_team(owner, getattr(instance, "team_name", None))
        classes = (configured_classes(owner.hybrid, team) for team in _teams_of(owner))
        return self._compute(list(dict.fromkeys(chain.from_iterable(classes))))

    def of_team(self, router: Any, team: str | None) -> T:
        """
        :param router: its class
        """
        return self._compute(configured_classes(router.hybrid, team))


def any_backend(attribute: str) -> FromBackends[bool]:
    """True where at least one backend has it."""
    return FromBackends(lambda classes: any(getattr(cls, attribute, False) for cls in classes))


def workload_types(classes: Sequence[type[Any]]) -> frozenset[Any]:
    """``supported_workload_types`` of Airflow 3.4: what any of the backends can run, and tasks. Empty before."""
    if not AIRFLOW_V_3_4_PLUS:
        return frozenset()
    from airflow.executors import workloads

    kinds = frozenset({EXECUTE_TASK}).union(*map(workload_kinds, classes))
    types: Any = workloads
    return frozenset(types.WorkloadType(kind) for kind in kinds)
