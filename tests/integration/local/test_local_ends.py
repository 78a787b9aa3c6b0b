# SPDX-License-Identifier: Apache-2.0
"""How tasks of a LocalExecutor are taken back, and what is left when it ends."""

from __future__ import annotations

import logging
import os
import signal
import threading

import psutil
import pytest
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_3_PLUS,
)
from airflow_dispatch_provider.engines.local import engine as engine_module
from tests.integration.local import local_runners
from tests.integration.local.conftest import alive, pid_of
from tests.support import make_connection_test, make_task, wait_until

from .handling import kill_template, queue, running_task

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
needs_connection_tests = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="new in Airflow 3.3")


class TestTakingBack:
    def test_a_revoked_task_is_ended_and_not_reported(self, executor):
        """Its tree is gone, its slot is free, and its end is no event."""
        task = make_task("hold")
        queue(executor, task)
        executor.heartbeat()
        pid = pid_of("pid.hold")
        executor.revoke_task(ti=task.ti)
        assert executor.running == set()
        wait_until(lambda: not alive(pid))
        wait_until(lambda: (executor.heartbeat(), executor.slots_occupied == 0)[1])
        assert executor.get_event_buffer() == {}

    @pytest.mark.parametrize("name", ["parent", "detached_parent"])
    def test_a_tree_that_ignores_sigterm_is_killed(self, executor, monkeypatch, name):
        """After the grace, whoever ignores SIGTERM, the children and those in sessions of their own."""
        monkeypatch.setattr("airflow_dispatch_provider.engines.local._machine.KILL_GRACE", 0.2)
        task = make_task(name)
        queue(executor, task)
        executor.heartbeat()
        pid, child = pid_of(f"pid.{name}"), pid_of(f"child.{name}")
        executor.change_state(airflow_api.workload_key(executor, task), FAILED, remove_running=True)
        wait_until(lambda: not alive(pid) and not alive(child))

    def test_a_held_task_is_dropped(self, make_executor):
        """A workload that was not handed over is just forgotten."""
        executor = make_executor(slots=1).wait_ready()
        first, second = make_task("hold", priority=9), make_task("nothing")
        queue(executor, first, second)
        executor.heartbeat()
        executor.revoke_task(ti=second.ti)
        assert executor.has_task(first.ti)
        assert not executor.has_task(second.ti)
        assert local_runners.heard("done.nothing") is None

    def test_revoking_an_orphan_kills_it(self, executor):
        """Without a template process the executor ends the tree itself."""
        task = make_task("hold")
        queue(executor, task)
        executor.heartbeat()
        pid = pid_of("pid.hold")
        executor.heartbeat()
        kill_template(executor)
        wait_until(lambda: (executor.heartbeat(), executor.pool.template_pid)[1] is None)
        executor.revoke_task(ti=task.ti)
        wait_until(lambda: (executor.heartbeat(), not alive(pid))[1])

    def test_a_template_that_dies_after_the_order_does_not_save_the_task(self, executor):
        """The order to kill was sent, and nobody was there to carry it out."""
        task = make_task("hold")
        queue(executor, task)
        executor.heartbeat()
        pid = pid_of("pid.hold")
        executor.heartbeat()
        os.kill(executor.pool.template_pid, signal.SIGSTOP)
        executor.revoke_task(ti=task.ti)
        assert alive(pid)
        kill_template(executor)
        wait_until(lambda: (executor.heartbeat(), not alive(pid))[1])

    def test_a_state_from_outside_ends_the_zombie_and_is_reported_once(self, executor):
        """As the scheduler does for a task without heartbeats."""
        key, pid = running_task(executor)
        executor.change_state(key, FAILED, remove_running=True)
        assert executor.get_event_buffer() == {key: (FAILED, None)}
        wait_until(lambda: not alive(pid))
        wait_until(lambda: (executor.heartbeat(), executor.slots_occupied == 0)[1])
        assert executor.get_event_buffer() == {}

    @needs_connection_tests
    def test_a_connection_test_given_up_by_the_scheduler_is_ended(self, executor):
        """The reaper has recorded the failure itself, so that there is no event."""
        key = queue(executor, make_connection_test("hold-test"))
        executor.heartbeat()
        pid = pid_of("pid.hold-test")
        executor.heartbeat()
        executor.get_event_buffer()
        executor.fail_connection_test(key)
        wait_until(lambda: not alive(pid))
        executor.heartbeat()
        assert (executor.running, executor.get_event_buffer()) == (set(), {})


class TestEnd:
    def test_it_waits_for_what_runs_and_leaves_what_is_queued(self, make_executor):
        """The running task is reported, the queued one stays, and the template process is gone."""
        executor = make_executor(slots=1).wait_ready()
        key, _ = running_task(executor)
        queue(executor, make_task("nothing"))
        executor.heartbeat()
        template = executor.pool.template_pid
        threading.Timer(0.3, local_runners.say, ("go", "")).start()
        executor.end()
        assert executor.get_event_buffer() == {key: (SUCCESS, None)}
        assert local_runners.heard("done.nothing") is None
        assert not alive(template)

    def test_it_says_what_it_waits_for(self, executor, monkeypatch, caplog):
        """A line at the start, and one from time to time with the processes."""
        monkeypatch.setattr("airflow_dispatch_provider.engines.local.engine.PROGRESS_INTERVAL", 0.1)
        _, pid = running_task(executor)
        caplog.set_level(logging.INFO, logger=engine_module.__name__)
        threading.Timer(1, local_runners.say, ("go", "")).start()
        executor.end()
        lines = [record.getMessage() for record in caplog.records if record.name == engine_module.__name__]
        assert lines[0].startswith("Waiting for 1 ")
        assert str(pid) in lines[1]

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_a_second_signal_ends_the_tasks(self, executor, monkeypatch, interrupt):
        """The exception goes on its way, after every tree was ended."""
        _, pid = running_task(executor)

        def signalled(timeout):
            raise interrupt

        monkeypatch.setattr(executor.pool, "wait", signalled)
        with pytest.raises(interrupt):
            executor.end()
        assert not alive(pid)

    def test_an_executor_that_never_started_ends(self, make_executor):
        """The scheduler ends all executors when one of them could not start."""
        make_executor(start=False).end()

    def test_it_does_not_wait_for_a_template_that_died(self, executor):
        """Orphans are waited for, and no new template process is started."""
        key, _ = running_task(executor)
        kill_template(executor)
        threading.Timer(0.3, local_runners.say, ("go", "")).start()
        executor.end()
        ((ended, (state, _)),) = executor.get_event_buffer().items()
        assert (ended, state) == (key, SUCCESS)

    def test_terminate_ends_every_tree(self, executor):
        """Handed over, with children, or orphaned: nobody is left, and nothing is reported."""
        queue(executor, make_task("hold-1"), make_task("parent"))
        executor.heartbeat()
        pids = [pid_of(name) for name in ("pid.hold-1", "pid.parent", "child.parent")]
        template = executor.pool.template_pid
        executor.terminate()
        executor.heartbeat()
        wait_until(lambda: not any(map(alive, [*pids, template])))
        assert executor.event_buffer == {}


class TestSeveral:
    def test_a_later_template_does_not_hide_the_end_of_an_earlier_one(self, make_executor):
        """Two executors, and the death of the first template process is seen while the second lives."""
        first, second = make_executor().wait_ready(), make_executor().wait_ready()
        running_task(first)
        pid = kill_template(first)
        wait_until(lambda: (first.heartbeat(), first.pool.template_pid)[1] != pid)
        assert queue(second, make_task("nothing"))

    def test_threads_force_a_fresh_interpreter(self, make_executor):
        """A fork beside a thread may inherit a lock that nobody opens."""
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            executor = make_executor("fork")
            assert executor.pool._link.popen is not None
        finally:
            stop.set()
            thread.join()
        key = queue(executor, make_task("begin_and_end"))
        assert executor.wait_for_event(key) == (SUCCESS, None)

    def test_idle_executors_have_one_process_each(self, executor):
        """No worker waits for work: the template process is alone."""
        template = psutil.Process(executor.pool.template_pid)
        assert template.children(recursive=True) == []
