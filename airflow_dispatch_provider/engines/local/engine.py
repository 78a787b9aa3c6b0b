# SPDX-License-Identifier: Apache-2.0
"""Jobs on this machine, each supervised in a process of its own, which a template process forks."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.dag_parsing import dag_file
from airflow_dispatch_provider.bridge.patience import overtime
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from airflow_dispatch_provider.bridge.workload import priority_of, task_ref
from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.engines.local._machine import OVER_GRACE, Machine
from airflow_dispatch_provider.engines.local._options import LocalOptions
from airflow_dispatch_provider.engines.local._search import Answer, Search
from airflow_dispatch_provider.engines.local._turnover import Turnover
from airflow_dispatch_provider.engines.local.launch import Mode, obstacle_to_fork
from airflow_dispatch_provider.engines.local.messages import DagFile, Ended, Gone, Kill, Runner, Work
from airflow_dispatch_provider.engines.local.pool import Pool
from airflow_dispatch_provider.engines.outage import Backoff, OutageLog
from airflow_dispatch_provider.lifecycle.events import Adopted, Rejected, Returned, Room, Unknown
from airflow_dispatch_provider.masking import LateTraceback, describe
from airflow_dispatch_provider.routing.model import (
    EXECUTE_CALLBACK,
    EXECUTE_TASK,
    KIND_RANK,
    TEST_CONNECTION,
)

log = logging.getLogger(__name__)

KINDS = frozenset(
    [EXECUTE_TASK]
    + ([EXECUTE_CALLBACK] if AIRFLOW_V_3_2_PLUS else [])
    + ([TEST_CONNECTION] if AIRFLOW_V_3_3_PLUS else [])
)
"""Workload types that ``airflow_api.run_workload`` runs."""

PROGRESS_INTERVAL = 10.0
"""Seconds between two lines of ``stop`` about what it waits for."""

MakePool = Callable[[Work, Mode], Pool]
MakeSearch = Callable[[str], Search]


class LocalEngine:
    """Processes of this machine behind the protocol of ``engine.Engine``.

    What it is given goes to the template process at once, also what is given ahead, and that process says of each
    whether it has started. ``Recovered`` for the Execution API is said only when a task begins: while that server
    answers nobody, nothing is launched that could, and somebody else has to ask it.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        conf: Any,
        options: LocalOptions | None = None,
        *,
        team: str | None = None,
        runner: Runner = airflow_api.run_workload,
        warm_up: Callable[[Any], object] = airflow_api.warm_up,
        clock: Callable[[], float] = time.monotonic,
        make_pool: MakePool = Pool,
        make_search: MakeSearch = Search,
    ) -> None:
        """
        :param slots: how many processes it may have; may be changed at any time
        :param conf: the configuration that its processes see; can be pickled
        :param runner: runs a workload in its process; importable by name, as is ``warm_up``, which the template process
            calls once
        """
        self.slots = slots
        self._name, self._clock, self._make_pool = name, clock, make_pool
        self._options = options or LocalOptions()
        title = f"airflow dispatch local [{team}]" if team else "airflow dispatch local"
        options = self._options
        self._work = Work(runner, conf, options.preload, warm_up, title, options.warm_dags)
        self._pool: Pool | None = None
        self._machine = Machine(name, overtime(OVER_GRACE))
        self._search = make_search(title)
        self._turnover = Turnover()
        self._searched: dict[int, Found] = {}
        self._revoked: dict[int, bool] = {}
        self._events: list[Event] = []
        self._backoff = Backoff()
        self._outage = OutageLog(log, f"Backend {name!r}")
        self._stopped = False

    def __len__(self) -> int:
        """How many dispatches it has, or is looking for."""
        return len(self._machine) + len(self._searched)

    def __repr__(self) -> str:
        template = self._pool.template_pid if self._pool else None
        return (
            f"LocalEngine({self._name!r}, slots {self.slots}, out {len(self._machine)}, template {template})"
        )

    def start(self, scheduler_id: str) -> None:
        """Start the template process: a fork of this one, unless this one has threads by now."""
        self._start(self._mode())

    def _mode(self) -> Mode:
        obstacle = obstacle_to_fork() if self._options.template == "fork" else None
        if obstacle:
            log.info("The template process is a fresh interpreter and not a fork: %s", obstacle)
        return "exec" if obstacle else self._options.template

    def _start(self, mode: Mode) -> None:
        try:
            self._pool = self._make_pool(self._work, mode)
        except Exception as error:
            self._backoff = self._backoff.failed(self._clock())
            reason = f"its template process cannot be started: {describe(error)}"
            self._outage.failed(reason, LateTraceback(error))
        else:
            self._outage.over()

    def room(self) -> Room:
        """A process that is being ended has its slot until it is gone."""
        pool = self._pool
        if pool is None:
            reason = self._outage.reason or "not started"
            return Room(self.slots, 0, unavailable=reason, kinds=KINDS, retry_at=self._backoff.until or None)
        takes = max(0, self.slots - pool.live - self._looked_for) if pool.ready else 0
        ahead = self._ahead(pool) if pool.ready else 0
        trouble = self._outage.reason or pool.trouble
        return Room(self.slots, takes, unavailable=trouble, kinds=KINDS, ahead=ahead)

    def _ahead(self, pool: Pool) -> int:
        """As many as end before the scheduler is back, but for those that free no slot, since more run than may."""
        too_many = max(0, pool.started - self.slots)
        return min(self._options.ahead, max(0, self._turnover.expected(self._clock()) - too_many))

    @property
    def _looked_for(self) -> int:
        """Processes that have a slot until they are found, or are not: most of them are there."""
        return len(self._searched.keys() - self._revoked.keys())

    def _limit(self, pool: Pool) -> None:
        pool.limit(self.slots - self._looked_for)

    # Giving and taking back

    def submit(self, jobs: Sequence[Job]) -> None:
        """One that cannot be pickled keeps none of the others from it."""
        for job in jobs:
            self._submit(job)

    def _submit(self, job: Job) -> None:
        pool = self._pool
        if pool is None or not pool.ready:
            reason = pool.trouble if pool else self._outage.reason
            self._events.append(Returned(job.dispatch, reason or "The template process is not ready."))
            return
        try:
            pickled = pickle.dumps(job.workload)
        except Exception as error:
            reason = f"The workload cannot be pickled: {describe(error)}"
            self._events.append(Rejected(job.dispatch, reason))
            return
        is_task = airflow_api.is_task(job.workload)
        seed = task_ref(job.workload).seed if is_task else ""
        self._machine.enter(job.dispatch, job.key, is_task=is_task, task=seed)
        rank = (KIND_RANK[airflow_api.kind_of(job.workload)], -priority_of(job.workload))
        parsed = dag_file(job.workload) if self._options.warm_dags else None
        file = DagFile(*parsed) if parsed else None
        pool.run(job.dispatch, airflow_api.workload_name(job.workload), pickled, rank, file)

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        """Nothing at once: ``Returned`` comes for what had not started."""
        if self._pool is not None:
            for dispatch in dispatches:
                self._pool.withdraw(dispatch)
        return set()

    def revoke(self, dispatch: int, over: bool = False) -> None:
        """End its process tree, without waiting for that; ``Ended`` comes when it is gone."""
        if dispatch in self._searched:
            self._revoked[dispatch] = over
        elif self._pool is not None:
            self._end(self._pool, dispatch, over)

    def _end(self, pool: Pool, dispatch: int, over: bool) -> None:
        """One that has begun unheard is only said to have: the Execution API may have let it run since its task was
        queued again. It is ended with the next order."""
        unheard = pool.is_watched(dispatch)
        noticed = self._machine.notice_run(dispatch) if unheard and pool.runs_task(dispatch) else []
        self._events += noticed
        if over or not noticed:
            self._kill(pool, self._machine.revoke(dispatch, self._clock(), over=over, unheard=unheard))

    def forget(self, dispatch: int) -> None:
        """Its process is watched until it has ended: that is seen, whatever becomes of the template process."""

    def _kill(self, pool: Pool, kills: Sequence[Kill]) -> None:
        for kill in kills:
            pool.kill(kill)

    # Adoption

    def adopt(self, found: Sequence[Found]) -> None:
        """Look for their processes; on a thread, so that the answers come from later polls. What is out here needs no
        search: it was recalled and began all the same, say."""
        here = [each for each in found if each.dispatch in self._machine]
        self._events += [Adopted(each.dispatch, each.runs) for each in here]
        known = {*self._searched, *(each.dispatch for each in here)}
        new = {each.dispatch: each for each in found if each.dispatch not in known}
        self._searched.update(new)
        self._search.ask([*new.values()])
        if self._pool is not None:
            self._limit(self._pool)

    def _take_answer(self, pool: Pool, answer: Answer) -> None:
        (dispatch, key, _, runs), process = answer
        self._searched.pop(dispatch, None)
        over = self._revoked.pop(dispatch, None)
        if process is None:
            self._events.append(Unknown(dispatch))
            return
        self._events += self._machine.adopt(dispatch, key, process.pid, begun=runs)
        pool.watch(dispatch, process)
        if over is None:
            log.info("Adopted %s, supervised by process %d", key, process.pid)
            self._events.append(Adopted(dispatch, runs))
        else:
            self.revoke(dispatch, over)

    # Working

    def poll(self) -> list[Event]:
        if self._pool is None and not self._stopped and self._backoff.due(self._clock()):
            self._start("exec")
        if self._pool is not None:
            self._work_with(self._pool)
        events, self._events = self._events, []
        return events

    def _work_with(self, pool: Pool) -> None:
        try:
            self._take_news(pool)
        except Exception as error:
            self._outage.failed(f"its processes cannot be watched: {describe(error)}", LateTraceback(error))
        else:
            self._outage.over()

    def _take_news(self, pool: Pool) -> None:
        news = pool.news()
        self._turnover.ended(self._clock(), sum(isinstance(each, Ended | Gone) for each in news))
        self._events += self._machine.handle(*news)
        self._kill(pool, self._machine.due(self._clock()))
        for answer in self._search.answers():
            self._take_answer(pool, answer)
        self._limit(pool)

    def stop(self, deadline: float) -> set[int]:
        """Take back what has not started, and wait until the rest has ended, or until then: what runs on has a template
        process that ends after it, and is found by the next scheduler of this machine. A second signal ends it instead.
        """
        self._stopped = True
        pool = self._pool
        if pool is None:
            return set()
        pool.close()
        self.withdraw([*self._machine])
        try:
            self._await_ends(pool, deadline)
        except (KeyboardInterrupt, SystemExit):
            log.error("Interrupted while waiting: ending %d running workloads", len(self._machine))
            self.terminate()
            raise
        self._search.stop()
        pool.stop()
        self._pool = None
        return set()

    def _await_ends(self, pool: Pool, deadline: float) -> None:
        if pool.started:
            log.info("Waiting for %d running workloads; signal again to end them instead", pool.started)
        report_at = self._clock() + PROGRESS_INTERVAL
        self._work_with(pool)
        while self._machine and (now := self._clock()) < deadline:
            pool.wait(min(0.2, deadline - now))
            self._work_with(pool)
            if now >= report_at:
                report_at += PROGRESS_INTERVAL
                log.info("Still waiting for %d: %s", len(self._machine), self.pids())
        if self._machine:
            log.warning("%d workloads run on without a scheduler: %s", len(self._machine), self.pids())

    def terminate(self) -> None:
        """End every process tree: SIGTERM, and SIGKILL a second later. Reports no events."""
        self._stopped = True
        self._search.stop()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()
        self._machine.clear()

    # For people

    def pids(self) -> Mapping[str, int | None]:
        """The process that supervises each job, by key, and of two of one job the later; None: it has not started."""
        pool, machine = self._pool, self._machine
        return {str(machine.key(dispatch)): pool.pid(dispatch) if pool else None for dispatch in machine}
