# SPDX-License-Identifier: Apache-2.0
"""The Airflow-facing side, with a pool that the test plays itself."""

from __future__ import annotations

import logging
import pickle
import types
import warnings

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_dispatch_provider.engines.local.messages import Ended, Started
from airflow_dispatch_provider.engines.local.pool import Gone, NotStarted
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.executors import local_executor
from airflow_dispatch_provider.executors.local_executor import KILL_GRACE, LocalExecutor
from tests.support import make_callback, make_connection_test, make_task

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


class FakePool:
    template_pid = 4242

    def __init__(self, work=None, mode=None):
        self.work, self.mode = work, mode
        self.ready, self.trouble = True, None
        self.ran, self.killed, self.events, self.gone = {}, [], [], set()

    @property
    def live(self):
        return len(self.ran) - len(self.gone)

    def run(self, number, name, workload):
        self.ran[number] = pickle.loads(workload)

    def kill(self, number, grace):
        self.killed.append((number, grace))

    def pid(self, number):
        return 9000 + number

    def happen(self, event):
        self.events.append(event)
        if not isinstance(event, Started):
            self.gone.add(event.number)

    def poll(self):
        events, self.events = self.events, []
        return events

    def names(self):
        return [workload.ti.task_id for workload in self.ran.values()]


class FakeRows(dict):
    """The database: the state of each task instance whose state is not ``running``."""

    error = None

    def look_up(self, ids):
        if self.error:
            raise self.error
        return {ti_id: Stored(self.get(ti_id, "running"), 1) for ti_id in ids}


@pytest.fixture
def rows(monkeypatch):
    rows = FakeRows()
    monkeypatch.setattr(local_executor, "stored", rows.look_up)
    return rows


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start of the test."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(local_executor.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def make_executor(monkeypatch, rows):
    monkeypatch.setattr(local_executor, "Pool", FakePool)

    def make(slots=2, **kwargs):
        executor = LocalExecutor(parallelism=slots, **kwargs)
        executor.start()
        return executor

    return make


@pytest.fixture
def executor(make_executor):
    return make_executor()


def queue(executor, *workloads):
    for workload in workloads:
        executor.queue_workload(workload, None)
    return [airflow_api.workload_key(executor, workload) for workload in workloads]


def waiting(executor):
    return [key for queue in airflow_api.queues(executor) for key in queue]


class TestHandingOver:
    def test_highest_priority_first_on_every_version(self, make_executor):
        """Airflow 3.2 alone would start with the lowest."""
        executor = make_executor(slots=3)
        queue(executor, *(make_task(f"p{n}", priority=n) for n in (1, 5, 3, 4, 2)))
        executor.heartbeat()
        assert executor._pool.names() == ["p5", "p4", "p3"]

    def test_no_more_than_the_slots(self, executor):
        """The rest stays in the queue until a process has ended."""
        keys = queue(executor, *(make_task(f"t{n}") for n in range(4)))
        executor.heartbeat()
        executor.heartbeat()
        assert (len(executor._pool.ran), executor.running, len(waiting(executor))) == (2, set(keys[:2]), 2)
        executor._pool.happen(Ended(1, 0))
        executor.heartbeat()
        executor.heartbeat()
        assert (len(executor._pool.ran), len(waiting(executor))) == (3, 1)

    def test_what_waits_for_a_template_is_returned_and_fails_nowhere(self, executor):
        """To a router, for the next target of its route; until then the event log says what it waits for."""
        executor._pool.ready, executor._pool.trouble = False, "The template process has ended (status -11)."
        task = make_task("t")
        queue(executor, task)
        executor.heartbeat()
        assert executor.health() == "The template process has ended (status -11)."
        assert executor.take_returned() == [task]
        assert (waiting(executor), executor.running, executor.event_buffer) == ([], set(), {})
        assert [(entry.event, entry.extra) for entry in executor._task_event_logs] == [
            ("waiting for template process", "The template process has ended (status -11).")
        ]

    def test_a_callback_that_was_not_started_is_started_later(self, executor):
        """As a task is: nothing has run."""
        if not AIRFLOW_V_3_2_PLUS:
            pytest.skip("no callbacks before Airflow 3.2")
        (key,) = queue(executor, make_callback())
        executor.heartbeat()
        executor._pool.happen(NotStarted(1))
        executor.heartbeat()
        executor.heartbeat()
        assert (len(executor._pool.ran), executor.running, executor.event_buffer) == (2, {key}, {})

    def test_a_revoked_tree_keeps_its_place_until_it_has_ended(self, make_executor):
        """While a killed process still ends, nothing takes its slot."""
        executor = make_executor(slots=1)
        first, second = make_task("first", priority=9), make_task("second")
        queue(executor, first, second)
        executor.heartbeat()
        executor.revoke_task(ti=first.ti)
        executor.heartbeat()
        assert executor._pool.names() == ["first"]
        executor._pool.happen(Ended(1, -15))
        executor.heartbeat()
        executor.heartbeat()
        assert executor._pool.names() == ["first", "second"]

    def test_nothing_without_a_ready_template(self, executor):
        """A workload that waits can still be revoked."""
        executor._pool.ready = False
        keys = queue(executor, make_task())
        executor.heartbeat()
        assert (executor._pool.ran, waiting(executor)) == ({}, keys)

    def test_what_the_runner_needs_is_not_lost(self, executor):
        """The executor_config is excluded from JSON, and travels all the same."""
        queue(executor, make_task(executor_config={"a": 1}))
        executor.heartbeat()
        assert executor._pool.ran[1].ti.executor_config == {"a": 1}

    @pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="new in Airflow 3.3")
    def test_a_connection_test_starts_with_one_slot(self, make_executor):
        """Airflow 3.3 counts the waiting test against the slot that it waits for."""
        executor = make_executor(slots=1)
        queue(executor, make_connection_test())
        executor.heartbeat()
        assert len(executor._pool.ran) == 1

    def test_an_idle_heartbeat_touches_no_running_task(self, make_executor):
        """Its cost does not grow with what runs."""
        executor = make_executor(slots=50)
        queue(executor, *(make_task(f"t{n}") for n in range(50)))
        executor.heartbeat()
        executor._live = Untouchable(executor._live)
        executor._numbers_of = Untouchable(executor._numbers_of)
        executor.heartbeat()


class TestEvents:
    def test_states_of_a_task(self, executor):
        """Nothing while it runs, then its end with the reason."""
        good, bad = queue(executor, make_task("good"), make_task("bad"))
        executor.heartbeat()
        executor._pool.happen(Started(1, 10, 0.0))
        executor._pool.happen(Started(2, 11, 0.0))
        executor.sync()
        assert executor.get_event_buffer() == {}
        executor._pool.happen(Ended(1, 0))
        executor._pool.happen(Ended(2, 1, "why"))
        executor.sync()
        assert executor.get_event_buffer() == {good: (SUCCESS, None), bad: (FAILED, "why")}

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
    def test_states_of_the_others(self, executor, make):
        """Callbacks and connection tests are reported running, and fail if nobody saw their end."""
        (key,) = queue(executor, make())
        executor.heartbeat()
        executor._pool.happen(Started(1, 10, 0.0))
        executor.sync()
        assert executor.get_event_buffer() == {key: ("running", None)}
        executor._pool.happen(Gone(1))
        executor.sync()
        ((state, info),) = executor.get_event_buffer().values()
        assert (state, "not seen" in info, executor.running) == ("failed", True, set())

    def test_a_task_that_was_not_started_is_queued_again(self, executor):
        """No event, no slot, and it runs with the next heartbeat."""
        (key,) = queue(executor, make_task())
        executor.heartbeat()
        executor._pool.happen(NotStarted(1))
        executor.sync()
        assert (executor.get_event_buffer(), executor.running, waiting(executor)) == ({}, set(), [key])
        executor.heartbeat()
        assert len(executor._pool.ran) == 2

    def test_a_newer_workload_in_the_queue_is_not_replaced(self, executor):
        """Queued again meanwhile: the newer one has the younger token."""
        old, new = make_task(priority=1), make_task(priority=2)
        new.ti.id = old.ti.id
        queue(executor, old)
        executor.heartbeat()
        queue(executor, new)
        executor._pool.happen(NotStarted(1))
        executor.sync()
        executor.heartbeat()
        assert executor._pool.ran[2].ti.priority_weight == 2

    def test_a_resumed_attempt_outlives_the_process_that_deferred(self, executor):
        """One key, two processes: the first end is reported, and the key still runs."""
        first, second = make_task(), make_task()
        second.ti.id = first.ti.id
        (key,) = queue(executor, first)
        executor.heartbeat()
        queue(executor, second)
        executor.heartbeat()
        executor._pool.happen(Ended(1, 0))
        executor.sync()
        assert (executor.get_event_buffer(), executor.running) == ({key: (SUCCESS, None)}, {key})
        executor._pool.happen(Ended(2, 0))
        executor.sync()
        assert (executor.get_event_buffer(), executor.running) == ({key: (SUCCESS, None)}, set())


class TestEndedBeforeItBegan:
    @pytest.fixture(autouse=True)
    def tokens(self, monkeypatch):
        generator = types.SimpleNamespace(generate=lambda *args, **kwargs: "a new one")
        monkeypatch.setattr(LocalExecutor, "jwt_generator", generator, raising=False)

    def end(self, executor, *, unanswered=False):
        """The last process that was started ends without having run its task."""
        executor._pool.happen(Ended(max(executor._pool.ran), 1, "why", unanswered))
        executor.heartbeat()

    def test_it_is_launched_again_after_growing_delays_and_then_fails(
        self, make_executor, rows, clock, monkeypatch
    ):
        """The row still says queued: no user code has run. At last the task fails with the reason."""
        monkeypatch.setenv("AIRFLOW__DISPATCH__LAUNCH_RETRIES", "5")
        executor = make_executor()
        task = make_task()
        rows[task.ti.id] = "queued"
        (key,) = queue(executor, task)
        executor.heartbeat()
        for delay in (1, 2, 4, 8, 16):
            started = len(executor._pool.ran)
            self.end(executor)
            clock.now += delay - 0.1
            executor.heartbeat()
            assert (len(executor._pool.ran), executor.running) == (started, {key})
            clock.now += 0.1
            executor.heartbeat()
            executor.heartbeat()
            assert (len(executor._pool.ran), executor.event_buffer) == (started + 1, {})
            assert executor._pool.ran[started + 1].token == "a new one"
        self.end(executor)
        assert (executor.event_buffer, executor.running) == ({key: (FAILED, "why")}, set())

    def test_one_that_had_begun_fails(self, executor, rows):
        """The scheduler then looks for what is left of its tries."""
        (key,) = queue(executor, make_task())
        executor.heartbeat()
        self.end(executor)
        assert executor.event_buffer == {key: (FAILED, "why")}

    def test_an_execution_api_that_is_away_costs_no_launch(self, executor, rows, clock):
        """Nothing is launched until it may be back; however long that takes, no task fails."""
        tasks = [make_task(f"t{n}") for n in range(3)]
        rows.update({task.ti.id: "queued" for task in tasks})
        queue(executor, *tasks)
        executor.heartbeat()
        for delay in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            started = len(executor._pool.ran)
            executor._pool.happen(Ended(started - 1, 1, "ConnectError", unanswered=True))
            self.end(executor, unanswered=True)
            assert executor.health() == "The Execution API does not answer: why"
            assert len(executor.take_returned()) == 3
            queue(executor, *tasks)
            clock.now += delay - 0.1
            executor.heartbeat()
            assert (len(executor._pool.ran), executor.event_buffer) == (started, {})
            clock.now += 0.1
            assert executor.health() is None
            executor.heartbeat()
            assert len(executor._pool.ran) == started + 2

    def test_a_database_that_cannot_be_asked_is_asked_again(self, executor, rows):
        """The end of a task is not guessed at."""
        (key,) = queue(executor, make_task())
        executor.heartbeat()
        rows.error = RuntimeError("away")
        self.end(executor)
        assert (executor.event_buffer, executor.running) == ({}, {key})
        rows.error = None
        executor.heartbeat()
        assert executor.event_buffer == {key: (FAILED, "why")}

    def test_a_revoked_one_is_not_launched_again(self, executor, rows, clock):
        """It may run elsewhere by then."""
        task = make_task()
        rows[task.ti.id] = "queued"
        queue(executor, task)
        executor.heartbeat()
        self.end(executor)
        executor.revoke_task(ti=task.ti)
        clock.now += 60
        executor.heartbeat()
        executor.heartbeat()
        assert (len(executor._pool.ran), executor.running, executor.event_buffer) == (1, set(), {})


class TestTakingBack:
    def test_revoking_kills_at_once_and_reports_nothing(self, executor):
        """The task is queued again: its first process must not start it in a grace. Its later end is no event."""
        task = make_task()
        queue(executor, task)
        executor.heartbeat()
        executor.revoke_task(ti=task.ti)
        executor._pool.happen(Ended(1, -15))
        executor.sync()
        assert (executor._pool.killed, executor.running, executor.event_buffer) == (
            [(1, 0.0)],
            set(),
            {},
        )

    def test_revoking_never_raises(self, executor, monkeypatch):
        """The scheduler would end."""
        task = make_task()
        queue(executor, task)
        executor.heartbeat()
        monkeypatch.setattr(executor._pool, "kill", None)
        executor.revoke_task(ti=task.ti)
        executor.revoke_task(ti=None)

    def test_a_state_from_outside_kills_the_zombie(self, executor):
        """One event, the one from outside."""
        (key,) = queue(executor, make_task())
        executor.heartbeat()
        executor.change_state(key, FAILED, remove_running=True)
        executor._pool.happen(Ended(1, 0))
        executor.sync()
        assert executor._pool.killed == [(1, KILL_GRACE)]
        assert executor.get_event_buffer() == {key: (FAILED, None)}

    def test_a_state_that_keeps_it_running_kills_nothing(self, executor):
        """As for a QUEUED or RUNNING event."""
        (key,) = queue(executor, make_task())
        executor.heartbeat()
        executor.change_state(key, TaskInstanceState.RUNNING, "id", remove_running=False)
        assert (executor._pool.killed, executor.running) == ([], {key})


class TestAsAirflowSeesIt:
    def test_class_attributes(self):
        """Read by the scheduler and the command line without an instance."""
        assert (LocalExecutor.is_local, LocalExecutor.serve_logs, LocalExecutor.supports_multi_team) == (
            True,
            True,
            True,
        )
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
            fresh = type("Fresh", (LocalExecutor,), {})
            executor = fresh(parallelism=1)
            executor.start()
            queue(executor, make_task("a"), make_task("b"))
            executor.heartbeat()
            executor.debug_dump()
            executor.revoke_task(ti=make_task().ti)

    def test_repr_shows_the_state(self, executor):
        """Slots, running workloads and the template process."""
        queue(executor, make_task())
        executor.heartbeat()
        assert repr(executor) == "LocalExecutor(slots=2, running=1, template=4242)"
        assert repr(LocalExecutor(parallelism=8)) == "LocalExecutor(slots=8, running=0, template=None)"

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
        executor.sync()
        executor.terminate()
        executor.revoke_task(ti=make_task().ti)
        if not AIRFLOW_V_3_4_PLUS:
            assert executor.try_adopt_task_instances(tis) is tis


class Overlay:
    """A configuration as a router gives it to each of its backends."""

    def __init__(self, **options):
        self.options = options

    def get(self, section, key, fallback=None, **kwargs):
        return self.options.get(f"{section}_{key}", fallback)


class TestConfiguration:
    def overlaid(self, **options):
        conf = property(lambda self: Overlay(**options), lambda self, value: None)
        return type("Overlaid", (LocalExecutor,), {"conf": conf})(parallelism=3, team_name=None)

    def test_it_is_read_from_the_executor_and_shipped(self, make_executor):
        """The subclass of a router sees its own options, and so does the process that runs the workload."""
        executor = self.overlaid(dispatch_local_template="exec", dispatch_local_preload="json, zlib,")
        executor.start()
        assert executor._pool.mode == "exec"
        assert executor._pool.work.preload == (*LocalExecutor.preload, "json", "zlib")
        shipped = pickle.loads(pickle.dumps(executor._pool.work))
        assert shipped.conf.get("dispatch", "local_template") == "exec"
        assert shipped.runner is airflow_api.run_workload

    def test_a_mistake_is_named_at_start(self, make_executor):
        """Option, value and remedy."""
        with pytest.raises(DispatchConfigError, match=r"\[dispatch\] local_template: 'thread' is unknown"):
            self.overlaid(dispatch_local_template="thread").start()

    def test_what_prevents_a_fork_leads_to_a_fresh_interpreter(self, make_executor, monkeypatch):
        """Without being an error."""
        monkeypatch.setattr(local_executor, "obstacle_to_fork", lambda: "a reason")
        executor = make_executor()
        assert executor._pool.mode == "exec"

    def test_the_team_is_in_the_titles(self, make_executor, monkeypatch):
        """Several teams have an executor of this class each."""
        executor = LocalExecutor(parallelism=1)
        executor.team_name = "red"
        executor.start()
        assert executor._pool.work.title == "airflow dispatch local [red]"


class Untouchable(dict):
    def _refuse(self, *args):
        raise AssertionError("a heartbeat with nothing changed looks at every running task")

    __iter__ = keys = values = items = _refuse


def test_the_base_class_is_airflows():
    """So that ExecutorLoader takes it."""
    assert issubclass(LocalExecutor, BaseExecutor)
