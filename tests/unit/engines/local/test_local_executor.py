# SPDX-License-Identifier: Apache-2.0
"""The Airflow-facing side of local processes, with a pool that the test plays itself."""

from __future__ import annotations

import functools
import logging
import pickle
import types
import warnings

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_dispatch_provider.engines.local._machine import KILL_GRACE
from airflow_dispatch_provider.engines.local.engine import LocalEngine
from airflow_dispatch_provider.engines.local.messages import Began, Ended, Gone, NotStarted, Started
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.executors import face, local_executor
from airflow_dispatch_provider.executors.local_executor import LocalExecutor
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk
from tests.support import make_callback, make_connection_test, make_task

from .test_local_engine import FakePool

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
QUEUED = Row(RowState.QUEUED)


class Trial(LocalExecutor):
    """With answers of the database that the test gives."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.clerk = InMemoryClerk()

    def _make_clerk(self, limits):
        return self.clerk

    jwt_generator = types.SimpleNamespace(generate=lambda *args, **kwargs: "a new one")


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start of the test."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(face, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def pools(monkeypatch, clock):
    """The pools that were made, the last one last."""
    made = []

    def make_pool(work, mode):
        made.append(FakePool(work, mode))
        return made[-1]

    engine = functools.partial(LocalEngine, clock=lambda: clock.now, make_pool=make_pool)
    monkeypatch.setattr(local_executor, "LocalEngine", engine)
    return made


@pytest.fixture
def make_executor(pools):
    def make(slots=2, cls=Trial):
        executor = cls(parallelism=slots)
        executor.start()
        return executor

    return make


@pytest.fixture
def executor(make_executor):
    return make_executor()


@pytest.fixture
def pool(executor, pools):
    return pools[-1]


def queue(executor, *workloads):
    for workload in workloads:
        executor.queue_workload(workload, None)
    return [airflow_api.workload_key(executor, workload) for workload in workloads]


def beat(executor, times=1):
    for _ in range(times):
        executor.heartbeat()
    return executor.get_event_buffer()


def ran(pool):
    return [workload.ti.task_id for workload in pool.ran.values()]


class TestHandingOver:
    def test_highest_priority_first_on_every_version(self, make_executor, pools):
        """Airflow 3.2 alone would start with the lowest."""
        executor = make_executor(slots=3)
        queue(executor, *(make_task(f"p{n}", priority=n) for n in (1, 5, 3, 4, 2)))
        executor.heartbeat()
        assert ran(pools[0]) == ["p5", "p4", "p3"]

    def test_no_more_than_the_slots(self, executor, pool):
        """The rest is held until a process has ended."""
        keys = queue(executor, *(make_task(f"t{n}") for n in range(5)))
        beat(executor, 2)
        assert (len(pool.ran), executor.slots_occupied, executor.running) == (2, 2, set(keys))
        pool.happen(Ended(1, 0, began=True))
        beat(executor, 2)
        assert (len(pool.ran), executor.slots_occupied, pool.slots) == (3, 2, 2)

    def test_parallelism_may_change(self, executor, pool):
        """As it does where somebody sets it after the start."""
        queue(executor, *(make_task(f"t{n}") for n in range(5)))
        executor.parallelism = 4
        executor.heartbeat()
        assert len(pool.ran) == 4

    def test_what_waits_for_a_template_fails_nowhere(self, executor, pool):
        """And can still be revoked."""
        pool.ready, pool.trouble = False, "The template process has ended (status -11)."
        task = make_task("t")
        queue(executor, task)
        assert (beat(executor), executor.slots_available, executor.has_task(task.ti)) == ({}, 0, True)
        executor.revoke_task(ti=task.ti)
        pool.ready, pool.trouble = True, None
        assert (beat(executor, 2), pool.ran, executor.running) == ({}, {}, set())

    def test_what_the_runner_needs_is_not_lost(self, executor, pool):
        """The executor_config is excluded from JSON, and travels all the same."""
        queue(executor, make_task(executor_config={"a": 1}))
        executor.heartbeat()
        assert pool.ran[1].ti.executor_config == {"a": 1}

    @pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="new in Airflow 3.3")
    def test_a_connection_test_starts_with_one_slot(self, make_executor, pools):
        """Airflow 3.3 counts the waiting test against the slot that it waits for."""
        executor = make_executor(slots=1)
        queue(executor, make_connection_test())
        executor.heartbeat()
        assert len(pools[0].ran) == 1

    def test_no_row_is_written_for_a_dispatch(self, executor):
        """There is nowhere else where it could be."""
        queue(executor, make_task())
        executor.heartbeat()
        assert list(executor._task_event_logs) == []


class TestEvents:
    def test_states_of_a_task(self, executor, pool):
        """Nothing while it runs, then its end with the reason; of a success once its row says so, too."""
        good, bad = queue(executor, make_task("good"), make_task("bad"))
        executor.heartbeat()
        pool.happen(*(event for n in (1, 2) for event in (Started(n, 10 + n, 0.0), Began(n))))
        assert beat(executor) == {}
        pool.happen(Ended(1, 0, began=True), Ended(2, 1, "why", began=True))
        assert beat(executor) == {bad: (FAILED, "why")}
        assert beat(executor) == {good: (SUCCESS, None)}

    @pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
    @pytest.mark.parametrize(
        "make",
        [
            make_callback,
            pytest.param(
                make_connection_test,
                marks=pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="new in Airflow 3.3"),
            ),
        ],
    )
    def test_states_of_the_others(self, executor, pool, make):
        """Callbacks and connection tests are reported running, and fail if nobody saw their end."""
        (key,) = queue(executor, make())
        executor.heartbeat()
        pool.happen(Started(1, 10, 0.0), Began(1))
        assert beat(executor) == {key: ("running", None)}
        pool.happen(Gone(1))
        ((state, info),) = beat(executor).values()
        assert (state, "not seen" in info, executor.running) == ("failed", True, set())

    def test_what_was_not_started_is_started_later(self, executor, pool):
        """No event, and it runs with the next heartbeat: nothing has run."""
        makes = [make_task, make_callback] if AIRFLOW_V_3_2_PLUS else [make_task]
        keys = queue(executor, *(make() for make in makes))
        executor.heartbeat()
        first = len(pool.ran)
        pool.happen(*(NotStarted(number) for number in list(pool.ran)))
        assert (beat(executor, 2), executor.running) == ({}, set(keys))
        assert len(pool.ran) == 2 * first

    def test_a_resumed_attempt_outlives_the_process_that_deferred(self, executor, pool):
        """One key, two processes: the end of the first is none of the second."""
        first, second = make_task(), make_task()
        second.ti.id = first.ti.id
        (key,) = queue(executor, first)
        executor.heartbeat()
        pool.happen(Started(1, 10, 0.0), Began(1))
        executor.heartbeat()
        queue(executor, second)
        executor.heartbeat()
        pool.happen(Ended(1, 0, began=True))
        assert (beat(executor, 2), executor.running) == ({}, {key})
        number = max(pool.ran)
        pool.happen(Started(number, 10, 0.0), Began(number), Ended(number, 0, began=True))
        assert (beat(executor, 2), executor.running) == ({key: (SUCCESS, None)}, set())


class TestEndedBeforeItBegan:
    def end(self, executor, pool, **fields):
        """The last process that was started ends without having run its task, and the database is asked."""
        pool.happen(Ended(max(pool.ran), 1, "why", began=False, **fields))
        beat(executor)
        executor.heartbeat()

    def test_it_is_launched_again_after_growing_delays_and_then_fails(
        self, make_executor, pools, clock, monkeypatch
    ):
        """The row still says queued: no user code has run. At last the task fails with the reason."""
        monkeypatch.setenv("AIRFLOW__DISPATCH__LAUNCH_RETRIES", "5")
        executor = make_executor()
        (key,) = queue(executor, make_task())
        executor.clerk.rows[key] = QUEUED
        executor.heartbeat()
        for delay in (1, 2, 4, 8, 16):
            started = len(pools[0].ran)
            self.end(executor, pools[0])
            clock.now += delay - 0.1
            assert (beat(executor), len(pools[0].ran), executor.running) == ({}, started, {key})
            clock.now += 0.1
            assert (beat(executor, 2), len(pools[0].ran)) == ({}, started + 1)
            assert pools[0].ran[max(pools[0].ran)].token == "a new one"
        self.end(executor, pools[0])
        assert (executor.event_buffer, executor.running) == ({key: (FAILED, "why")}, set())

    def test_an_execution_api_that_is_away_costs_no_launch(self, executor, pool, clock):
        """One task at a time is launched to see whether it is back; however long that takes, no task fails."""
        keys = queue(executor, *(make_task(f"t{n}") for n in range(3)))
        executor.clerk.rows.update(dict.fromkeys(keys, QUEUED))
        executor.heartbeat()
        pool.happen(Ended(1, 1, "ConnectError", unanswered=True, began=False))
        for delay in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            started = len(pool.ran)
            self.end(executor, pool, unanswered=True)
            clock.now += delay - 0.1
            assert (beat(executor), len(pool.ran)) == ({}, started)
            clock.now += 0.2
            assert (beat(executor, 2), len(pool.ran)) == ({}, started + 1)
        number = max(pool.ran)
        pool.happen(Started(number, 10, 0.0), Began(number))
        beat(executor, 2)
        assert executor.slots_occupied == 2

    def test_a_revoked_one_is_not_launched_again(self, executor, pool, clock):
        """It may run elsewhere by then."""
        task = make_task()
        (key,) = queue(executor, task)
        executor.clerk.rows[key] = QUEUED
        executor.heartbeat()
        self.end(executor, pool)
        executor.revoke_task(ti=task.ti)
        clock.now += 60
        assert (beat(executor, 2), len(pool.ran), executor.running) == ({}, 1, set())


class TestTakingBack:
    def test_revoking_kills_at_once_and_reports_nothing(self, executor, pool):
        """The task is queued again: its first process must not start it in a grace. Its later end is no event."""
        task = make_task()
        queue(executor, task)
        executor.heartbeat()
        executor.revoke_task(ti=task.ti)
        pool.happen(Ended(1, -15))
        assert (beat(executor), pool.killed, executor.running) == ({}, [(1, 0.0)], set())

    def test_a_revoked_tree_keeps_its_slot_until_it_has_ended(self, make_executor, pools):
        """While a killed process still ends, nothing takes its slot."""
        executor = make_executor(slots=1)
        first, second = make_task("first", priority=9), make_task("second")
        queue(executor, first, second)
        executor.heartbeat()
        executor.revoke_task(ti=first.ti)
        executor.heartbeat()
        assert ran(pools[0]) == ["first"]
        pools[0].happen(Ended(1, -15))
        beat(executor, 2)
        assert ran(pools[0]) == ["first", "second"]

    def test_a_state_from_outside_kills_the_zombie(self, executor, pool):
        """One event, the one from outside."""
        (key,) = queue(executor, make_task())
        executor.heartbeat()
        pool.happen(Started(1, 10, 0.0), Began(1))
        executor.heartbeat()
        executor.change_state(key, FAILED, remove_running=True)
        pool.happen(Ended(1, 0, began=True))
        assert beat(executor) == {key: (FAILED, None)}
        assert pool.killed == [(1, KILL_GRACE)]


class TestAsAirflowSeesIt:
    def test_class_attributes(self):
        """Read by the scheduler and the command line without an instance."""
        assert LocalExecutor.is_local is LocalExecutor.serve_logs is LocalExecutor.supports_multi_team is True
        assert LocalExecutor.supports_ad_hoc_ti_run is False

    def test_workload_types(self):
        """All that the Airflow version has."""
        if AIRFLOW_V_3_4_PLUS:
            names = {kind.name for kind in LocalExecutor.supported_workload_types}
            assert names == {"EXECUTE_TASK", "EXECUTE_CALLBACK", "TEST_CONNECTION"}
        else:
            assert LocalExecutor.supports_callbacks is AIRFLOW_V_3_2_PLUS
            assert LocalExecutor.supports_connection_test is AIRFLOW_V_3_3_PLUS

    def test_no_deprecated_name_is_used(self, make_executor):
        """Airflow 3.4 warns about what 4 removes: once per class, so on a fresh one."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            executor = make_executor(slots=1, cls=type("Fresh", (Trial,), {}))
            queue(executor, make_task("a"), make_task("b"))
            executor.heartbeat()
            executor.debug_dump()
            executor.revoke_task(ti=make_task().ti)

    def test_repr_shows_the_state(self, executor):
        """Slots in use and slots there are, and how many wait."""
        queue(executor, *(make_task(f"t{n}") for n in range(3)))
        executor.heartbeat()
        assert repr(executor) == "Trial(Trial 2/2, held 1)"
        assert repr(LocalExecutor(parallelism=8)) == "LocalExecutor(not started)"

    def test_debug_dump_shows_pids(self, executor, caplog, capsys):
        """Also before start, as a signal may come at any time."""
        queue(executor, make_task())
        executor.heartbeat()
        caplog.set_level(logging.INFO)
        executor.debug_dump()
        LocalExecutor(parallelism=1).debug_dump()
        assert "9001" in caplog.text + capsys.readouterr().out

    def test_it_has_no_logs_of_its_own(self, executor):
        """Anything else would hide the log server."""
        assert executor.get_task_log(None, 1) == ([], [])

    def test_hooks_before_start(self):
        """The API server has instances that never start."""
        executor = LocalExecutor(parallelism=1)
        tis = [object()]
        executor.heartbeat()
        executor.end()
        executor.terminate()
        executor.revoke_task(ti=make_task().ti)
        if not AIRFLOW_V_3_4_PLUS:  # the base class wraps adoption since then, and reads their ids
            assert executor.try_adopt_task_instances(tis) is tis
        assert (executor.running, executor.get_event_buffer(), executor.slots_available) == (set(), {}, 0)

    def test_the_base_class_is_airflows(self):
        """So that ExecutorLoader takes it."""
        assert issubclass(LocalExecutor, BaseExecutor)


class Overlay:
    def __init__(self, conf, options):
        self._conf, self._options = conf, options

    def __getattr__(self, name):
        return getattr(self._conf, name)

    def __reduce__(self):
        return dict, (self._options,)

    def get(self, section, key, **kwargs):
        return self._options.get(f"{section}_{key}") or self._conf.get(section, key, **kwargs)


class TestConfiguration:
    def overlaid(self, **options):
        executor = Trial(parallelism=1)
        executor.conf = Overlay(executor.conf, options)
        return executor

    def test_it_is_read_from_the_executor_and_shipped(self, pools):
        """The subclass of a router sees its own options, and so does the process that runs the workload."""
        executor = self.overlaid(dispatch_local_template="exec", dispatch_local_preload="json, zlib,")
        executor.start()
        (pool,) = pools
        assert (pool.mode, pool.work.preload) == ("exec", (*LocalExecutor.preload, "json", "zlib"))
        shipped = pickle.loads(pickle.dumps(pool.work))
        assert shipped.conf["dispatch_local_template"] == "exec"
        assert shipped.runner is airflow_api.run_workload

    def test_a_mistake_is_named_at_start(self, pools):
        """Option, value and remedy."""
        with pytest.raises(DispatchConfigError, match=r"\[dispatch\] local_template: 'thread' is unknown"):
            self.overlaid(dispatch_local_template="thread").start()

    def test_the_team_is_in_the_titles(self, pools):
        """Several teams have an executor of this class each."""
        executor = Trial(parallelism=1)
        executor.team_name = "red"
        executor.start()
        assert pools[0].work.title == "airflow dispatch local [red]"
