# SPDX-License-Identifier: Apache-2.0
"""An executor over one engine: no routes, and no row in the event log for each dispatch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from airflow.configuration import conf as airflow_conf

from airflow_dispatch_provider.bridge.executor_classes import workload_kinds
from airflow_dispatch_provider.bridge.patience import limits
from airflow_dispatch_provider.bridge.version_compat import warn_if_untested
from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.engines.engine import Engine
from airflow_dispatch_provider.executors.face import Face, monotonic
from airflow_dispatch_provider.executors.surface import FaceSurface
from airflow_dispatch_provider.lifecycle import events
from airflow_dispatch_provider.lifecycle.events import BackendRules
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.routing.model import Route, Target, TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.settings.model import Limits

log = logging.getLogger(__name__)


class Standalone(Face):
    """
    One engine, with as many slots as ``parallelism`` says. What it cannot take now is held, and can be overtaken and
    revoked until then.

    As a backend of a router only its class attributes, its options and its engine are used: see
    ``protocols.HasEngine``.
    """

    rules: ClassVar[BackendRules] = BackendRules()
    """Facts about the engine that the life cycle goes by."""

    _is_alone = True
    counts_workers: ClassVar[bool] = False
    """Whether its engine can tell how many jobs its workers can run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The provider's classes do the same: ExecutorConf of Airflow 3.1 knows no numbers, and no teams.
        if not hasattr(self.conf, "getint"):
            self.conf: Any = airflow_conf

    def make_engine(self, name: str, slots: int, *, counts_workers: bool) -> Engine:
        """See ``protocols.HasEngine``.

        :raises DispatchConfigError: an option makes no sense
        """
        raise NotImplementedError

    def start(self) -> None:
        """Start the engine. A server that cannot be reached is waited for.

        :raises DispatchConfigError: an option makes no sense; the scheduler does not start
        """
        warn_if_untested()
        if getattr(self, "team_name", None):
            # The base class has read the number of no team.
            self.parallelism = self.conf.getint("core", "parallelism")
        self._kinds = workload_kinds(self)
        name = self._backend
        patience = limits(Limits().max_held)
        engine = self.make_engine(name, self.parallelism, counts_workers=False)
        machine = Machine(events.Settings(_all_to(name), {name: self.rules}, patience), self._seed)
        clerk = self._make_clerk(patience)
        self._run(Loop(machine, {name: engine}, clerk, FaceSurface(self), monotonic), clerk)

    @property
    def _backend(self) -> str:
        """The name of the engine in logs and metrics."""
        return type(self).__name__

    def _executors(self) -> Mapping[str, str]:
        return {self._backend: self._backend}

    def _before_heartbeat(self, loop: Loop, now: float) -> None:
        loop.engines[self._backend].slots = self.parallelism

    def _owners(self, tis: Sequence[Any]) -> Mapping[Any, str]:
        """Airflow offers an executor none but its own tasks."""
        return {ti.id: self._backend for ti in tis}

    def _candidates(self) -> Callable[[TaskRef], Iterable[str]]:
        return lambda ref: [self._backend]


def _all_to(name: str) -> RouteTable:
    return RouteTable((), Route(queue="*", to=(Target(backend=name),)))
