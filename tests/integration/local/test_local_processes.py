# SPDX-License-Identifier: Apache-2.0
"""The LocalExecutor with real processes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import psutil
import pytest
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.executors import airflow_api
from airflow_dispatch_provider.executors.local import pool as pool_module
from airflow_dispatch_provider.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
)
from tests.integration.local import local_runners
from tests.integration.local.conftest import alive, pid_of
from tests.support import make_callback, make_connection_test, make_task, wait_until

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
needs_callbacks = pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
needs_connection_tests = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="new in Airflow 3.3")


def queue(executor, *workloads):
    """Queue and return the keys; one key alone if there is one workload."""
    keys = []
    for workload in workloads:
        executor.queue_workload(workload, None)
        keys.append(airflow_api.workload_key(executor, workload))
    return keys[0] if len(keys) == 1 else keys


def running_task(executor, name="hold"):
    """Start a task and wait until it runs: its key and its process."""
    key = queue(executor, make_task(name))
    executor.heartbeat()
    pid = pid_of(f"pid.{name}")
    executor.heartbeat()
    return key, pid


def kill_template(executor):
    pid = executor._pool.template_pid
    os.kill(pid, signal.SIGKILL)
    return pid


def replace_template(executor):
    """Kill the template process and wait until its successor is ready."""
    old = kill_template(executor)
    wait_until(lambda: (executor.heartbeat(), executor._pool.ready and executor._pool.template_pid != old)[1])


class TestRunning:
    def test_a_task_runs_and_succeeds(self, either):
        """A runner that returns is a success event without information, and frees the slot."""
        key = queue(either, make_task("nothing"))
        assert either.wait_for_event(key) == (SUCCESS, None)
        assert either.running == set()

    def test_a_task_is_never_reported_as_running(self, executor):
        """A RUNNING event without information would erase the external_executor_id."""
        key, _ = running_task(executor)
        executor.sync()
        assert executor.event_buffer == {}
        assert key in executor.running

    def test_an_exception_is_a_failure_with_its_text(self, either):
        """What the runner raised is the information of the failure event."""
        key = queue(either, make_task("fail"))
        assert either.wait_for_event(key) == (FAILED, "RuntimeError: no luck")

    def test_a_long_error_is_cut(self, executor):
        """An error text is at most 4 KB, and a long one delays nothing."""
        key = queue(executor, make_task("fail_at_length"))
        state, info = executor.wait_for_event(key)
        assert (state, len(info)) == (FAILED, 4096)

    @pytest.mark.parametrize("bad", [local_runners.Unpicklable, local_runners.Undecodable])
    def test_a_workload_that_cannot_travel_fails_alone(self, executor, bad):
        """One that cannot be pickled or decoded fails with the reason; the next one runs."""
        broken, good = make_task("broken", executor_config={"x": bad()}), make_task("nothing")
        broken_key, good_key = queue(executor, broken, good)
        state, info = executor.wait_for_event(broken_key)
        assert state == FAILED
        assert "this one cannot" in info
        assert executor.wait_for_event(good_key) == (SUCCESS, None)

    @needs_callbacks
    def test_a_callback_is_reported_running_then_final(self, executor):
        """A callback has an event of its own for running, and one for its end."""
        key = queue(executor, make_callback("hold-callback"))
        wait_until(lambda: executor.seen().get(key) == ("running", None))
        local_runners.say("go", "")
        wait_until(lambda: executor.seen().get(key) == ("success", None))

    @needs_callbacks
    def test_a_failed_callback_says_why(self, executor):
        """The reason is what the scheduler stores as the callback's output."""
        key = queue(executor, make_callback("fail-callback"))
        wait_until(lambda: executor.seen().get(key) == ("failed", "RuntimeError: no luck"))

    @needs_connection_tests
    def test_a_connection_test_runs(self, make_executor):
        """Connection tests pass through the same processes, with a single slot as well."""
        executor = make_executor(slots=1).wait_ready()
        key = queue(executor, make_connection_test("nothing-test"))
        wait_until(lambda: executor.seen().get(key) == ("success", None))

    def test_the_real_runner_reports_an_unreachable_server(self, make_executor, monkeypatch):
        """Airflow's own supervisor runs in the process; that it reaches no server fails the task with a reason."""
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:1/execution/")
        monkeypatch.setenv("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "1")
        executor = make_executor(runner=airflow_api.run_workload).wait_ready()
        key = queue(executor, make_task("real"))
        state, info = wait_until(lambda: executor.seen().get(key), timeout=90)
        assert state == FAILED
        assert "ConnectError" in info

    def test_titles_name_template_and_workload(self, executor):
        """Who looks at the process list sees what each process is for."""
        task = make_task("hold")
        queue(executor, task)
        executor.heartbeat()
        pid = pid_of("pid.hold")
        assert psutil.Process(pid).cmdline()[0] == f"airflow dispatch local: {task.ti.id}"
        template = psutil.Process(executor._pool.template_pid)
        assert template.cmdline()[0] == "airflow dispatch local: template"


class TestSlots:
    def test_never_more_than_its_slots_run(self, make_executor):
        """Twelve tasks, three slots: no task sees more than three, and all end well."""
        executor = make_executor(slots=3).wait_ready()
        keys = queue(executor, *(make_task(f"count-{n}") for n in range(12)))
        wait_until(lambda: set(keys) <= executor.seen().keys())
        assert {executor.events[key][0] for key in keys} == {SUCCESS}
        assert max(int(local_runners.heard(f"seen.count-{n}")) for n in range(12)) <= 3

    def test_the_highest_priority_goes_first_and_the_rest_stays_queued(self, make_executor):
        """What is not handed over can still be overtaken."""
        executor = make_executor(slots=1).wait_ready()
        low, high = queue(executor, make_task("hold-low", priority=1), make_task("hold-high", priority=9))
        executor.heartbeat()
        assert executor.running == {high}
        assert any(low in waiting for waiting in airflow_api.queues(executor))

    def test_nothing_is_handed_over_before_the_template_is_ready(self, make_executor):
        """A template process that has not said that it is ready gets nothing: the tasks stay revocable."""
        executor = make_executor("exec")
        key = queue(executor, make_task("nothing"))
        executor.heartbeat()
        assert executor.running == set()
        assert executor.wait_for_event(key) == (SUCCESS, None)

    def test_a_key_that_comes_twice_stays_until_its_last_process_ends(self, executor):
        """A resumed attempt has the key of the one that deferred, whose process may not have ended."""
        first, second = make_task("hold"), make_task("hold")
        second.ti.id = first.ti.id
        key = queue(executor, first)
        executor.heartbeat()
        pid_of("pid.hold")
        first_pid = pid_of("pid.hold")
        queue(executor, second)
        executor.heartbeat()
        wait_until(lambda: pid_of("pid.hold") != first_pid)
        executor.sync()
        os.kill(first_pid, signal.SIGKILL)
        assert executor.wait_for_event(key)[0] == FAILED
        assert executor.running == {key}
        executor.events.clear()
        local_runners.say("go", "")
        assert executor.wait_for_event(key) == (SUCCESS, None)
        assert executor.running == set()


class TestFailures:
    def test_a_killed_supervisor_fails_the_task_and_leaves_nobody(self, either):
        """The signal is named, and what else was in its session is killed."""
        key = queue(either, make_task("kill_supervisor"))
        assert either.wait_for_event(key) == (FAILED, "The supervising process was ended by SIGKILL.")
        child = pid_of("child.kill_supervisor")
        wait_until(lambda: not alive(child))

    def test_a_dead_template_leaves_running_tasks_alone(self, executor, caplog):
        """Their end is seen from outside, and reported as the success that the scheduler checks."""
        key, pid = running_task(executor)
        replace_template(executor)
        assert alive(pid)
        assert key in executor.running
        assert executor.get_event_buffer() == {}
        local_runners.say("go", "")
        assert executor.wait_for_event(key) == (SUCCESS, None)
        assert executor.running == set()

    def test_a_dead_template_is_logged_once_and_so_is_its_successor(self, executor, caplog):
        """One line when it is lost, one when there is a new one."""
        caplog.set_level(logging.INFO, logger=pool_module.__name__)
        replace_template(executor)
        for _ in range(3):
            executor.heartbeat()
        lines = [r.getMessage() for r in caplog.records if r.name == pool_module.__name__]
        assert ["has ended" in lines[0], "is ready" in lines[1], len(lines)] == [True, True, 2]

    @needs_callbacks
    def test_a_dead_template_fails_the_callback_whose_end_nobody_saw(self, executor):
        """Nothing else knows how a callback ended, so that it cannot be called a success."""
        key = queue(executor, make_callback("hold-callback"))
        executor.heartbeat()
        pid_of("pid.hold-callback")
        executor.heartbeat()
        kill_template(executor)
        local_runners.say("go", "")
        wait_until(lambda: executor.seen().get(key, (None,))[0] == "failed")
        assert "not seen" in executor.events[key][1]

    def test_a_task_that_a_dead_template_had_not_started_runs_later(self, executor):
        """It goes back to the queue, and the next template process starts it once."""
        os.kill(executor._pool.template_pid, signal.SIGSTOP)
        key = queue(executor, make_task("nothing"))
        executor.heartbeat()
        assert key in executor.running
        kill_template(executor)
        wait_until(lambda: (executor.sync(), executor.running == set())[1])
        assert any(key in waiting for waiting in airflow_api.queues(executor))
        assert executor.wait_for_event(key) == (SUCCESS, None)

    @needs_callbacks
    def test_a_callback_that_a_dead_template_had_not_started_fails(self, executor):
        """Callbacks have no server that would refuse a second run."""
        os.kill(executor._pool.template_pid, signal.SIGSTOP)
        key = queue(executor, make_callback("nothing-callback"))
        executor.heartbeat()
        kill_template(executor)
        wait_until(lambda: key in executor.seen())
        assert executor.events[key][0] == "failed"
        assert "before the workload was started" in executor.events[key][1]

    def test_a_stopped_template_does_not_stop_the_scheduler(self, make_executor):
        """More is sent than a socket holds, and no heartbeat waits for it; all of it runs afterwards."""
        executor = make_executor(slots=40).wait_ready()
        os.kill(executor._pool.template_pid, signal.SIGSTOP)
        blob = {"blob": "x" * 100_000}
        keys = queue(executor, *(make_task(f"nothing-{n}", executor_config=blob) for n in range(40)))
        executor.heartbeat()
        executor.heartbeat()
        assert executor._pool._link.channel.pending > 0
        os.kill(executor._pool.template_pid, signal.SIGCONT)
        wait_until(lambda: set(keys) <= executor.seen().keys())

    def test_an_orphan_that_dies_leaves_nobody(self, executor):
        """A supervisor killed after its template: its children are killed too."""
        key = queue(executor, make_task("parent"))
        executor.heartbeat()
        pid, child = pid_of("pid.parent"), pid_of("child.parent")
        executor.heartbeat()
        replace_template(executor)
        os.kill(pid, signal.SIGKILL)
        assert executor.wait_for_event(key) == (SUCCESS, None)
        wait_until(lambda: not alive(child))


SCHEDULER = """
    import os, sys, time
    from tests.integration.local import local_runners
    from tests.integration.local.conftest import TrialExecutor
    from tests.support import make_task

    executors = [TrialExecutor(parallelism=2) for _ in range(2)]
    for executor in executors:
        executor.start()
    executor = executors[0].wait_ready()
    executors[1].wait_ready()
    if os.fork() == 0:
        time.sleep(600)  # as a process that another executor has forked: it holds copies of our sockets
    executor.queue_workload(make_task("hold"), None)
    while local_runners.heard("pid.hold") is None:
        executor.heartbeat()
    local_runners.say("templates", " ".join(str(e._pool.template_pid) for e in executors))
    time.sleep(600)
"""


class TestSchedulerDies:
    @pytest.mark.parametrize("mode", ["fork", "exec"])
    def test_its_templates_let_running_tasks_finish_and_then_end(self, test_dir, monkeypatch, mode):
        """The idle template ends at once, the other after its last task: with two of them, and a sibling."""
        monkeypatch.setenv("AIRFLOW__DISPATCH__LOCAL_TEMPLATE", mode)
        code = textwrap.dedent(SCHEDULER)
        scheduler = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        busy, idle = map(int, wait_until(lambda: local_runners.heard("templates"), 60).split())
        try:
            scheduler.kill()
            scheduler.wait()
            wait_until(lambda: not alive(idle))
            assert alive(busy)
            local_runners.say("go", "")
            wait_until(lambda: local_runners.heard("done.hold") is not None)
            wait_until(lambda: not alive(busy))
        finally:
            os.killpg(scheduler.pid, signal.SIGKILL)

    def test_no_template_keeps_the_connections_of_the_scheduler(self, make_executor):
        """A database sees that the scheduler is gone although a template process lives on."""
        ours, theirs = socket.socketpair()
        make_executor().wait_ready()
        ours.close()
        theirs.settimeout(10)
        assert theirs.recv(1) == b""
        theirs.close()


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
        wait_until(lambda: (executor.heartbeat(), executor._pool.live == 0)[1])
        assert executor.get_event_buffer() == {}

    @pytest.mark.parametrize("name", ["parent", "detached_parent"])
    def test_a_tree_that_ignores_sigterm_is_killed(self, executor, monkeypatch, name):
        """After the grace, whoever ignores SIGTERM, the children and those in sessions of their own."""
        monkeypatch.setattr("airflow_dispatch_provider.executors.local_executor.KILL_GRACE", 0.2)
        task = make_task(name)
        queue(executor, task)
        executor.heartbeat()
        pid, child = pid_of(f"pid.{name}"), pid_of(f"child.{name}")
        executor.change_state(airflow_api.workload_key(executor, task), FAILED, remove_running=True)
        wait_until(lambda: not alive(pid) and not alive(child))

    def test_a_queued_task_is_dropped(self, make_executor):
        """What was not handed over just leaves the queue."""
        executor = make_executor(slots=1).wait_ready()
        first, second = make_task("hold", priority=9), make_task("nothing")
        queue(executor, first, second)
        executor.heartbeat()
        executor.revoke_task(ti=second.ti)
        assert [len(waiting) for waiting in airflow_api.queues(executor) if waiting] == []
        assert local_runners.heard("done.nothing") is None

    def test_revoking_an_orphan_kills_it(self, executor):
        """Without a template process the executor ends the tree itself."""
        task = make_task("hold")
        queue(executor, task)
        executor.heartbeat()
        pid = pid_of("pid.hold")
        executor.heartbeat()
        kill_template(executor)
        wait_until(lambda: (executor.sync(), executor._pool.template_pid)[1] is None)
        executor.revoke_task(ti=task.ti)
        wait_until(lambda: (executor.sync(), not alive(pid))[1])

    def test_a_template_that_dies_after_the_order_does_not_save_the_task(self, executor):
        """The order to kill was sent, and nobody was there to carry it out."""
        task = make_task("hold")
        queue(executor, task)
        executor.heartbeat()
        pid = pid_of("pid.hold")
        executor.heartbeat()
        os.kill(executor._pool.template_pid, signal.SIGSTOP)
        executor.revoke_task(ti=task.ti)
        assert alive(pid)
        kill_template(executor)
        wait_until(lambda: (executor.sync(), not alive(pid))[1])

    def test_a_state_from_outside_ends_the_zombie_and_is_reported_once(self, executor):
        """As the scheduler does for a task without heartbeats."""
        key, pid = running_task(executor)
        executor.change_state(key, FAILED, remove_running=True)
        assert executor.get_event_buffer() == {key: (FAILED, None)}
        wait_until(lambda: not alive(pid))
        wait_until(lambda: (executor.heartbeat(), executor._pool.live == 0)[1])
        assert executor.get_event_buffer() == {}

    @needs_connection_tests
    def test_a_connection_test_given_up_by_the_scheduler_is_ended(self, executor):
        """The reaper has recorded the failure itself, so that there is no event."""
        key = queue(executor, make_connection_test("hold-test"))
        executor.heartbeat()
        pid = pid_of("pid.hold-test")
        executor.sync()
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
        template = executor._pool.template_pid
        threading.Timer(0.3, local_runners.say, ("go", "")).start()
        executor.end()
        assert executor.get_event_buffer() == {key: (SUCCESS, None)}
        assert local_runners.heard("done.nothing") is None
        assert not alive(template)

    def test_it_says_what_it_waits_for(self, executor, monkeypatch):
        """A line at the start, and one from time to time with the processes."""
        monkeypatch.setattr("airflow_dispatch_provider.executors.local_executor.PROGRESS_INTERVAL", 0.1)
        _, pid = running_task(executor)
        lines = []
        monkeypatch.setattr(type(executor), "log", property(lambda self: _Lines(lines)))
        threading.Timer(1, local_runners.say, ("go", "")).start()
        executor.end()
        assert lines[0].startswith("Waiting for 1 ")
        assert str(pid) in lines[1]

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_a_second_signal_ends_the_tasks(self, executor, monkeypatch, interrupt):
        """The exception goes on its way, after every tree was ended."""
        _, pid = running_task(executor)

        def signalled(timeout):
            raise interrupt

        monkeypatch.setattr(executor._pool, "wait", signalled)
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
        assert executor.get_event_buffer() == {key: (SUCCESS, None)}

    def test_terminate_ends_every_tree(self, executor):
        """Handed over, with children, or orphaned: nobody is left, and nothing is reported."""
        queue(executor, make_task("hold-1"), make_task("parent"))
        executor.heartbeat()
        pids = [pid_of(name) for name in ("pid.hold-1", "pid.parent", "child.parent")]
        template = executor._pool.template_pid
        executor.terminate()
        executor.sync()
        wait_until(lambda: not any(map(alive, [*pids, template])))
        assert executor.event_buffer == {}


class TestSeveral:
    def test_a_later_template_does_not_hide_the_end_of_an_earlier_one(self, make_executor):
        """Two executors, and the death of the first template process is seen while the second lives."""
        first, second = make_executor().wait_ready(), make_executor().wait_ready()
        running_task(first)
        pid = kill_template(first)
        wait_until(lambda: (first.sync(), first._pool.template_pid)[1] != pid)
        assert queue(second, make_task("nothing"))

    def test_threads_force_a_fresh_interpreter(self, make_executor):
        """A fork beside a thread may inherit a lock that nobody opens."""
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            executor = make_executor("fork")
            assert executor._pool._link.popen is not None
        finally:
            stop.set()
            thread.join()
        key = queue(executor, make_task("nothing"))
        assert executor.wait_for_event(key) == (SUCCESS, None)

    def test_idle_executors_have_one_process_each(self, executor):
        """No worker waits for work: the template process is alone."""
        template = psutil.Process(executor._pool.template_pid)
        assert template.children(recursive=True) == []


class _Lines:
    def __init__(self, lines):
        self._lines = lines

    def info(self, message, *args):
        self._lines.append(message % args)

    def __getattr__(self, name):
        return lambda *args: None
