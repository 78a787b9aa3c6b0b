# SPDX-License-Identifier: Apache-2.0
"""Tasks on the scheduler's machine: one process tree per running task, none while idle."""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow.executors.base_executor import BaseExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from sqlalchemy.orm import object_session

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import stored
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_CONNECTION_TESTS_BLOCK_THEMSELVES,
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
    warn_if_untested,
)
from airflow_dispatch_provider.bridge.workload import with_new_token
from airflow_dispatch_provider.engines.beginnings import ApiOutage, Relaunches
from airflow_dispatch_provider.engines.holding_back import HoldsBack
from airflow_dispatch_provider.engines.local import adoption
from airflow_dispatch_provider.engines.local._options import PRELOAD, local_options
from airflow_dispatch_provider.engines.local.launch import Mode, obstacle_to_fork
from airflow_dispatch_provider.engines.local.messages import Ended, Runner, Started, Work
from airflow_dispatch_provider.engines.local.outcome import outcome_of
from airflow_dispatch_provider.engines.local.pool import Event, Gone, NotStarted, Pool
from airflow_dispatch_provider.masking import describe

KILL_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for a task that is timed out."""

WAITED = "waiting for template process"
"""``log.event`` of a task that is held back because nothing can be started."""

PROGRESS_INTERVAL = 10.0
"""Seconds between two lines of ``end`` about what it waits for."""


@dataclass(frozen=True)
class _HandOver:
    key: WorkloadKey
    workload: Workload | None
    """None for an adopted task."""


@dataclass(frozen=True)
class _Failure:
    """A task's process that could not run it to its end, until the database has said whether the task had begun."""

    key: WorkloadKey
    workload: Workload
    was_last: bool
    info: str | None
    unanswered: bool


class LocalExecutor(HoldsBack, BaseExecutor):
    """
    Runs workloads on this machine, each supervised in a process of its own, forked from a template process.

    At most ``parallelism`` are handed to the template process; the others wait in the base class's queues,
    where they can still be overtaken and revoked. While no template process can be had, or the Execution API lets no
    task begin, they are kept alive there, or returned to the router.
    """

    is_local = True
    serve_logs = True
    supports_multi_team = True
    judges_failures = True
    supports_task_instance_uuid = True
    if AIRFLOW_V_3_4_PLUS:
        supported_workload_types = airflow_api.WORKLOAD_TYPES
    else:
        supports_callbacks = AIRFLOW_V_3_2_PLUS
        supports_connection_test = AIRFLOW_V_3_3_PLUS

    runner: ClassVar[Runner] = staticmethod(airflow_api.run_workload)
    """The function that runs a workload in its process; importable by name."""

    warm_up: ClassVar[Callable[[Any], object]] = staticmethod(airflow_api.warm_up)
    """The function that the template process calls once, so that no workload has to; importable by name."""

    preload: ClassVar[tuple[str, ...]] = PRELOAD
    """Modules that the template process imports, besides those of ``[dispatch] local_preload``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool: Pool | None = None
        self._numbers = itertools.count(1)
        self._live: dict[int, _HandOver] = {}
        self._numbers_of: dict[WorkloadKey, list[int]] = {}
        self._failures: list[_Failure] = []
        self._relaunches = Relaunches()
        self._api = ApiOutage()

    def __repr__(self) -> str:
        template = self._pool.template_pid if self._pool else None
        return f"{type(self).__name__}(slots={self.parallelism}, running={len(self.running)}, template={template})"

    # Life of the executor

    def start(self) -> None:
        """Start the template process; raises ``DispatchConfigError`` for an option that makes no sense."""
        warn_if_untested()
        team = f" [{self.team_name}]" if self.team_name else ""
        cls = type(self)
        title = f"airflow dispatch local{team}"
        self._relaunches.retries = int(str(self.conf.get("dispatch", "launch_retries", fallback=10)))
        options = local_options(self.conf, self.preload)
        work = Work(cls.runner, self.conf, options.preload, cls.warm_up, title)
        self._pool = Pool(work, self._mode(options.template))

    def _mode(self, wanted: Mode) -> Mode:
        obstacle = obstacle_to_fork() if wanted == "fork" else None
        if obstacle:
            self.log.info("The template process is a fresh interpreter and not a fork: %s", obstacle)
        return "exec" if obstacle else wanted

    def sync(self) -> None:
        """Take note of what has started and ended; called by every heartbeat."""
        if self._pool:
            for event in self._pool.poll():
                self._note(event)
            self._judge_failures(time.monotonic())
            for key, workload in self._relaunches.due(time.monotonic()):
                self._queue_again(key, with_new_token(workload, self.jwt_generator))
            self._sync_held_back()

    def end(self) -> None:
        """Wait until everything that was handed over has ended. A second signal ends it instead."""
        if self._pool is None:
            return
        self._pool.close()
        try:
            self._await_running(self._pool)
        except (KeyboardInterrupt, SystemExit):
            self.log.error("Interrupted while waiting: ending %d running workloads", len(self._live))
            self.terminate()
            raise
        finally:
            self.sync()
            self._pool.stop()
            self._pool = None

    def _await_running(self, pool: Pool) -> None:
        self.log.info("Waiting for %d running workloads; signal again to end them instead", len(self._live))
        report_at = time.monotonic() + PROGRESS_INTERVAL
        while self._live:
            pool.wait(0.2)
            self.sync()
            if time.monotonic() >= report_at:
                report_at += PROGRESS_INTERVAL
                self.log.info("Still waiting for %d: %s", len(self._live), self._pids())

    def terminate(self) -> None:
        """End every process tree: SIGTERM, and SIGKILL a second later. Reports no events."""
        if self._pool:
            self._pool.terminate()
        self._live.clear()
        self._numbers_of.clear()

    # Handing over

    def health(self) -> str | None:
        """See ``protocols.ReportsHealth``: why no process can be started, or why no task can begin in one."""
        trouble = self._pool.trouble if self._pool else None
        return trouble or self._api.problem(time.monotonic())

    def _may_send(self) -> int:
        pool = self._pool
        if pool is None or not pool.ready or self._api.problem(time.monotonic()):
            return 0
        return self.parallelism - pool.live

    def _withdraw_unsent(self) -> Iterable[Workload]:
        """Nothing: the pool reports by itself which workloads were not started."""
        return ()

    def _waits_for(self) -> tuple[str, str]:
        return WAITED, self.health() or ""

    def _process_workloads(self, workload_list: Sequence[Workload]) -> None:
        pool = self._pool
        if pool is None or not pool.ready:
            return
        for workload in workload_list:
            if pool.live >= self.parallelism:
                break
            self._hand_over(pool, workload)

    def _hand_over(self, pool: Pool, workload: Workload) -> None:
        key = airflow_api.workload_key(self, workload)
        workload = self._take_for_sending(key, workload)
        try:
            pickled = pickle.dumps(workload)
        except Exception as error:
            _, _, failure = airflow_api.workload_states(workload)
            reason = f"The workload cannot be pickled: {type(error).__name__}: {error}"
            super().change_state(key, failure, reason, remove_running=False)
            return
        number = self._enter(key, workload)
        pool.run(number, airflow_api.workload_name(workload), pickled)

    def _enter(self, key: WorkloadKey, workload: Workload | None) -> int:
        number = next(self._numbers)
        self._live[number] = _HandOver(key, workload)
        self._numbers_of.setdefault(key, []).append(number)
        self.running.add(key)
        return number

    def _leave(self, number: int) -> bool:
        """Forget a hand-over; whether it was the last of its key: a resumed attempt comes under the same one."""
        key = self._live.pop(number).key
        numbers = self._numbers_of[key]
        numbers.remove(number)
        if not numbers:
            del self._numbers_of[key]
        return not numbers

    # Taking note of what happened

    def _note(self, event: Event) -> None:
        hand_over = self._live.get(event.number)
        if hand_over is None:  # revoked, or reported from outside: its end is no news
            return
        if isinstance(event, Started):
            self._report_running(hand_over)
        else:
            self._finish(event.number, hand_over, event)

    def _report_running(self, hand_over: _HandOver) -> None:
        running, _, _ = airflow_api.workload_states(hand_over.workload)
        if running is not None:
            super().change_state(hand_over.key, running, remove_running=False)

    def _finish(self, number: int, hand_over: _HandOver, event: Ended | NotStarted | Gone) -> None:
        was_last = self._leave(number)
        is_task = hand_over.workload is None or airflow_api.is_task(hand_over.workload)
        outcome = outcome_of(event, is_task=is_task)
        if outcome.verdict == "queue again":
            self._queue_again(hand_over.key, hand_over.workload)
        elif outcome.verdict == "failure" and is_task and hand_over.workload is not None:
            unanswered = isinstance(event, Ended) and event.unanswered
            failure = _Failure(hand_over.key, hand_over.workload, was_last, outcome.info, unanswered)
            self._failures.append(failure)
        else:
            success, failed = self._final_states(hand_over.workload)
            state = success if outcome.verdict == "success" else failed
            self._report(hand_over.key, state, outcome.info, was_last)

    def _report(self, key: WorkloadKey, state: Any, info: str | None, was_last: bool) -> None:
        self._relaunches.forget(key)
        self._api.answered()
        super().change_state(key, state, info, remove_running=was_last)

    def _judge_failures(self, now: float) -> None:
        """A task that is still queued in the database has not begun: it is launched again. A database that cannot be
        asked is asked again at the next heartbeat."""
        if not self._failures:
            return
        try:
            rows = stored([failure.workload.ti.id for failure in self._failures])
        except Exception as error:
            self.log.warning(
                "%d ends of processes wait for the database: %s", len(self._failures), describe(error)
            )
            return
        failures, self._failures = self._failures, []
        for failure in failures:
            row = rows.get(failure.workload.ti.id)
            begun = row is None or row.state != TaskInstanceState.QUEUED
            if begun or not failure.was_last or not self._launch_again(failure, now):
                failed = self._final_states(failure.workload)[1]
                self._report(failure.key, failed, failure.info, failure.was_last)

    def _launch_again(self, failure: _Failure, now: float) -> bool:
        if failure.unanswered:
            self._api.note(failure.info or "", now)
            self._queue_again(failure.key, failure.workload)
            return True
        delay = self._relaunches.add(failure.key, failure.workload, now)
        if delay is not None:
            message = "%s had not begun, and is launched again in %.0f s: %s"
            self.log.warning(message, failure.key, delay, failure.info)
        return delay is not None

    def _final_states(self, workload: Workload | None) -> tuple[Any, Any]:
        if workload is None:
            return TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
        return airflow_api.workload_states(workload)[1:]

    def _queue_again(self, key: WorkloadKey, workload: Workload) -> None:
        if key not in self._numbers_of:
            self.running.discard(key)
        if not any(key in queue for queue in airflow_api.queues(self)):
            self.queue_workload(workload, session=None)  # type: ignore[arg-type]

    # Taking back

    def change_state(
        self, key: WorkloadKey, state: Any, info: Any = None, remove_running: bool = True
    ) -> None:
        """From outside, a final state means that nothing may run under the key any more."""
        if remove_running:
            self._abandon(key)
        super().change_state(key, state, info, remove_running)

    def revoke_task(self, *, ti: Any) -> None:
        """Drop the task, or kill its process tree. Raises nothing and reports nothing.

        Without grace: the task is about to be queued again, and a process that asked for leave to start then, only
        to be killed, would leave a task that runs nowhere.
        """
        try:
            key = airflow_api.task_key(self, ti)
            airflow_api.forget_queued_key(self, key)
            self._abandon(key, grace=0.0)
            self.running.discard(key)
        except Exception:
            self.log.exception("Could not revoke %s", ti)

    def fail_connection_test(self, key: WorkloadKey) -> None:
        """The scheduler has given this connection test up."""
        airflow_api.forget_queued_key(self, key)
        self._abandon(key)
        self.running.discard(key)

    def _abandon(self, key: WorkloadKey, grace: float | None = None) -> None:
        """
        :param grace: seconds between SIGTERM and SIGKILL; 0: SIGKILL at once; None: ``KILL_GRACE``
        """
        self._relaunches.forget(key)
        self._failures = [failure for failure in self._failures if failure.key != key]
        for number in list(self._numbers_of.get(key, ())):
            self._leave(number)
            if self._pool:
                self._pool.kill(number, KILL_GRACE if grace is None else grace)

    # Adoption

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Take over the tasks of a dead scheduler that still run here; the others are returned. This executor's own
        stay as they are: a scheduler that was only slow is offered its own tasks."""
        session = object_session(tis[0]) if tis and self._pool else None
        if self._pool is None or session is None:
            return tis
        rows = adoption.fetch(session, tis)
        here = airflow_api.hostname()
        return [ti for ti in tis if not self._adopt(self._pool, rows.get(ti.id), here)]

    def _adopt(self, pool: Pool, row: Any, hostname: str) -> bool:
        if not row:
            return False
        key = (
            airflow_api.task_key(self, row)
            if AIRFLOW_V_3_4_PLUS
            else TaskInstanceKey(row.dag_id, row.task_id, row.run_id, row.try_number, row.map_index)
        )
        if airflow_api.has_key(self, key):
            return True
        process = adoption.process_of(row, hostname)
        if process is None:
            return False
        pool.watch(self._enter(key, None), process)
        self.log.info("Adopted %s, supervised by process %d", key, process.pid)
        return True

    # For people

    def _pids(self) -> dict[str, int | None]:
        assert self._pool is not None
        return {str(hand_over.key): self._pool.pid(number) for number, hand_over in self._live.items()}

    def debug_dump(self) -> None:
        """Log queues, running workloads and their processes; called from a signal handler."""
        super().debug_dump()  # type: ignore[no-untyped-call, unused-ignore]
        self.log.info("%r\n\tprocesses: %s", self, self._pids() if self._pool else {})

    # What a single version of the base class gets wrong

    if AIRFLOW_CONNECTION_TESTS_BLOCK_THEMSELVES:

        def trigger_connection_tests(self) -> None:
            """Start waiting connection tests while there are slots."""
            waiting: dict[Any, Workload] = vars(self)["queued_connection_tests"]
            self._process_workloads(list(waiting.values()))
