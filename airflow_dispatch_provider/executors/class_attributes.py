# SPDX-License-Identifier: Apache-2.0
"""Attributes that Airflow reads on the executor class, before there is an instance: computed from the
configured backends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Generic, TypeVar

from airflow.configuration import conf

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
def configured_classes(hybrid: Hybrid | None = None) -> tuple[type[Any], ...]:
    """The executor classes of all backends that can be imported, each once; none where the configuration is
    wrong: it is the scheduler's start and ``airflow dispatch validate`` that say so."""
    try:
        settings = settings_source(conf, hybrid).load_or_last_good()
    except DispatchConfigError:
        return ()
    classes = {}
    for backend in settings.backends.values():
        try:
            classes[backend.class_path] = import_executor_class(backend)
        except BackendUnavailable as error:
            log.debug("%s", error)
    return tuple(classes.values())


class FromBackends(Generic[T]):
    """A class attribute whose value follows from the classes of the configured backends.

    Has no ``__set__``, so that it serves reads on the class and on instances alike.
    """

    def __init__(self, compute: Callable[[Sequence[type[Any]]], T]) -> None:
        self._compute = compute

    def __get__(self, instance: object, owner: Any) -> T:
        return self._compute(configured_classes(owner.hybrid))


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
