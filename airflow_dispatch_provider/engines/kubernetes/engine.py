# SPDX-License-Identifier: Apache-2.0
"""A pod for every task, behind the engine protocol.

One thread makes all API calls; the scheduler's thread only exchanges lists with it. A pod does not tell whether its
task has begun: once the container has started, only the database knows whether the execution API let the task start.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value

from airflow_dispatch_provider.bridge.airflow_api import has_pod_mutation_hook
from airflow_dispatch_provider.engines.engine import Event, Found, Job, Measured
from airflow_dispatch_provider.engines.kubernetes._creating import Factory
from airflow_dispatch_provider.engines.kubernetes._driver import Driver
from airflow_dispatch_provider.engines.kubernetes._options import KubernetesOptions
from airflow_dispatch_provider.engines.kubernetes.labels import namespace_of
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi, Timing
from airflow_dispatch_provider.engines.outage import Backoff, OutageLog
from airflow_dispatch_provider.lifecycle.events import Returned, Room
from airflow_dispatch_provider.masking import LateTraceback, describe

log = logging.getLogger(__name__)


class Pieces(NamedTuple):
    """Everything that the engine needs of Airflow and of the user's configuration."""

    connect: Callable[[], Awaitable[Any]]
    """Gives a client of ``kubernetes_asyncio``; see ``Cluster.connect``."""

    factory: Callable[[str], Factory]
    """Gives a ``PodFactory`` for a scheduler's id."""

    options: KubernetesOptions
    renew: Callable[[Any], Any] = lambda workload: workload
    """Gives a workload a new token where its own is not fresh; called on the thread of the API calls."""


class KubernetesEngine:
    """See ``engine.Engine``. Two dispatches of one task have different pods."""

    has_lanes = True
    """See ``engine.HasLanes``."""

    def __init__(
        self,
        name: str,
        slots: int,
        pieces: Callable[[], Pieces],
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param pieces: called again after each failure to start
        """
        self.slots = slots
        self._name, self._pieces, self._clock = name, pieces, clock
        self._timing = timing or Timing()
        self._driver: Driver | None = None
        self._home: str | None = None
        self._scheduler_id = ""
        self._events: list[Event] = []
        self._backoff = Backoff()
        self._outage = OutageLog(log, f"Backend {name!r}")
        self._stopped = False

    def __repr__(self) -> str:
        return f"KubernetesEngine({self._name!r}, {self._driver or self._outage.reason or 'not started'})"

    def start(self, scheduler_id: str) -> None:
        """An API server that cannot be reached is waited for."""
        self._scheduler_id = scheduler_id
        self._start()

    def _start(self) -> None:
        try:
            connect, factory, options, renew = self._pieces()
            api = PodApi(connect, self._timing, options.request_args)
            label, info = make_safe_label_value(self._scheduler_id), self._scheduler_id
            made = factory(self._scheduler_id)
            driver = Driver(self._name, api, made, options, label, info, renew, self._clock)
        except Exception as error:
            self._backoff = self._backoff.failed(self._clock(), random.random())
            self._outage.failed(f"it cannot be started: {describe(error)}", LateTraceback(error))
            return
        self._home, self._driver = options.namespace, driver
        driver.start()
        self._outage.over()

    def room(self) -> Room:
        driver = self._driver
        if driver is None or self._stopped:
            trouble = self._outage.reason or "not started"
            return Room(self.slots, 0, unavailable=trouble, retry_at=self._backoff.until or None)
        problem = driver.problem
        with driver.machine() as machine:
            return machine.room(self.slots, problem)

    def lane(self, workload: Any) -> str | None:
        """The namespace of its pod, as its task says; not known where a mutation hook may choose another one."""
        return None if has_pod_mutation_hook() else namespace_of(getattr(workload, "ti", None), self._home)

    # Giving and taking back

    def submit(self, jobs: Sequence[Job]) -> None:
        if self._driver is None or self._stopped:
            self._events += [Returned(job.dispatch, self._outage.reason or "not started") for job in jobs]
        else:
            self._driver.submit(jobs)

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        return self._driver.withdraw(dispatches) if self._driver is not None else set()

    def revoke(self, dispatch: int, over: bool = False) -> None:
        """Delete its pod. The pod of a task that is over may first store the task's log, for a while."""
        if self._driver is not None:
            with self._driver.machine(wake=True) as machine:
                machine.revoke(dispatch, self._clock(), over=over)

    def forget(self, dispatch: int) -> None:
        """Its pod is watched until it is gone, and then cleaned up; what is not known to have one gets none."""
        if self._driver is not None:
            with self._driver.machine(wake=True) as machine:
                machine.forget(dispatch)

    def adopt(self, found: Sequence[Found]) -> None:
        """Look for their pods; on the thread of the API calls, until every namespace has answered."""
        if self._driver is not None and not self._stopped:
            self._driver.adopt(found)

    # News

    def poll(self) -> list[Event]:
        if self._driver is None and not self._stopped and self._backoff.due(self._clock()):
            self._start()
        events, self._events = self._events, []
        if self._driver is None:
            return events
        if not self._stopped:
            self._driver.revive()
        return [*events, *self._driver.take_events()]

    def stop(self, deadline: float) -> set[int]:
        """Pods run on; those that have completed are cleaned up until then."""
        if self._driver is None or self._stopped:
            self._stopped = True
            return set()
        self._stopped = True
        return self._driver.stop(deadline)

    def take_measured(self) -> Measured:
        """See ``engine.Measures``: the requests that create, delete and label pods."""
        return self._driver.take_measured() if self._driver is not None else Measured({}, ())

    def tidy(self, living: Collection[str]) -> None:
        """Clean up the pods that succeeded under schedulers that are dead."""
        if self._driver is not None and not self._stopped:
            self._driver.tidy({make_safe_label_value(each) for each in living})
