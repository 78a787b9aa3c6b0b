# SPDX-License-Identifier: Apache-2.0
"""The LocalExecutor with real processes."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap

import psutil
import pytest
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
)
from airflow_dispatch_provider.engines.local import pool as pool_module
from airflow_dispatch_provider.lifecycle.states import GONE, RowState
from tests.integration.local import local_runners
from tests.integration.local.conftest import alive, pid_of
from tests.support import make_callback, make_connection_test, make_task, wait_until

from .handling import kill_template, queue, replace_template, running_task

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
needs_callbacks = pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
needs_connection_tests = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="new in Airflow 3.3")


class TestRunning:
    def test_a_task_runs_and_succeeds(self, either):
        """A runner that returns is a success event without information, and frees the slot."""
        key = queue(either, make_task("begin_and_end"))
        assert either.wait_for_event(key) == (SUCCESS, None)
        assert (either.running, either.slots_occupied) == (set(), 0)

    def test_a_task_is_never_reported_as_running(self, executor):
        """A RUNNING event without information would erase the external_executor_id."""
        key, _ = running_task(executor)
        assert (executor.seen(), key in executor.running) == ({}, True)

    def test_one_that_fails_before_it_began_is_launched_again(self, either):
        """The row still says queued: no user code has run."""
        key = queue(either, make_task("fail"))
        either.say(key, RowState.QUEUED)
        first = wait_until(lambda: (either.heartbeat(), local_runners.heard("pid.fail"))[1])
        wait_until(lambda: (either.heartbeat(), local_runners.heard("pid.fail") != first)[1])
        assert (either.seen(), key in either.running) == ({}, True)

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

    def test_an_execution_api_that_cannot_be_reached_fails_no_task(self, make_executor, monkeypatch, caplog):
        """Airflow's own supervisor runs in the process, and finds no server. The task waits for it."""
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:1/execution/")
        monkeypatch.setenv("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "1")
        executor = make_executor(runner=airflow_api.run_workload).wait_ready()
        key = queue(executor, make_task("real"))
        executor.say(key, RowState.QUEUED)
        wait_until(lambda: (executor.seen(), "execution API answers nobody" in caplog.text)[1], timeout=90)
        assert (executor.events, key in executor.running) == ({}, True)

    def test_titles_name_template_and_workload(self, executor):
        """Who looks at the process list sees what each process is for."""
        task = make_task("hold")
        queue(executor, task)
        executor.heartbeat()
        pid = pid_of("pid.hold")
        assert psutil.Process(pid).cmdline()[0] == f"airflow dispatch local: {task.ti.id}"
        template = psutil.Process(executor.pool.template_pid)
        assert template.cmdline()[0] == "airflow dispatch local: template"


@pytest.mark.recent
class TestSlots:
    def test_never_more_than_its_slots_run(self, make_executor):
        """Twelve callbacks or tasks, three slots: none sees more than three, and all end."""
        executor = make_executor(slots=3).wait_ready()
        keys = queue(executor, *(make_task(f"count-{n}") for n in range(12)))
        executor.clerk.rows.update(dict.fromkeys(keys, GONE))
        wait_until(lambda: (executor.heartbeat(), not executor.running)[1])
        assert max(int(local_runners.heard(f"seen.count-{n}")) for n in range(12)) <= 3

    def test_the_highest_priority_goes_first_and_the_rest_is_held(self, make_executor):
        """A workload that is not handed over can still be overtaken."""
        executor = make_executor(slots=1).wait_ready()
        low, high = queue(executor, make_task("begin-low", priority=1), make_task("begin-high", priority=9))
        executor.heartbeat()
        pid_of("pid.begin-high")
        assert (executor.running, executor.slots_occupied) == ({low, high}, 1)
        assert local_runners.heard("pid.begin-low") is None

    def test_nothing_is_handed_over_before_the_template_is_ready(self, make_executor):
        """A template process that has not said that it is ready gets nothing: the tasks stay revocable."""
        executor = make_executor("exec")
        key = queue(executor, make_task("begin_and_end"))
        executor.heartbeat()
        assert executor.slots_occupied == 0
        assert executor.wait_for_event(key) == (SUCCESS, None)


@pytest.mark.recent
class TestFailures:
    def test_a_killed_supervisor_leaves_nobody(self, either):
        """Others in its session are killed, too."""
        key = queue(either, make_task("kill_supervisor"))
        either.clerk.rows[key] = GONE
        wait_until(lambda: (either.heartbeat(), not either.running)[1])
        child = pid_of("child.kill_supervisor")
        wait_until(lambda: not alive(child))

    def test_a_dead_template_leaves_running_tasks_alone(self, executor):
        """Their end is seen from outside, and reported as the success that the scheduler checks."""
        key, pid = running_task(executor)
        replace_template(executor)
        assert (alive(pid), key in executor.running, executor.seen()) == (True, True, {})
        local_runners.say("go", "")
        assert executor.wait_for_event(key)[0] == SUCCESS
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
    def test_what_a_dead_template_had_not_started_runs_later(self, executor):
        """Task and callback are held again, and the next template process starts each once."""
        os.kill(executor.pool.template_pid, signal.SIGSTOP)
        task, callback = queue(executor, make_task("begin_and_end"), make_callback("nothing-callback"))
        executor.heartbeat()
        kill_template(executor)
        ends = {task: (SUCCESS, None), callback: ("success", None)}
        wait_until(lambda: executor.seen().items() >= ends.items())

    def test_a_template_at_the_limit_of_open_files_lives_on(self, make_executor):
        """Workloads that cannot be started wait, and run once others have ended."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        executor = make_executor("exec", slots=30).wait_ready()
        template = executor.pool.template_pid
        resource.prlimit(template, resource.RLIMIT_NOFILE, (24, hard))
        keys = queue(executor, *(make_task(f"begin-{n}") for n in range(30)))
        wait_until(lambda: (executor.heartbeat(), executor.pool.trouble)[1])
        assert "open files" in executor.pool.trouble
        (local_runners.folder() / "go").write_text("")
        wait_until(lambda: {executor.seen().get(key) for key in keys} == {(SUCCESS, None)})
        assert executor.pool.template_pid == template

    def test_a_stopped_template_does_not_stop_the_scheduler(self, make_executor):
        """More is sent than a socket holds, and no heartbeat waits for it; all of it runs afterwards."""
        executor = make_executor(slots=40).wait_ready()
        os.kill(executor.pool.template_pid, signal.SIGSTOP)
        blob = {"blob": "x" * 100_000}
        keys = queue(executor, *(make_task(f"begin_and_end-{n}", executor_config=blob) for n in range(40)))
        executor.heartbeat()
        executor.heartbeat()
        assert executor.pool._link.channel.pending > 0
        os.kill(executor.pool.template_pid, signal.SIGCONT)
        wait_until(lambda: set(keys) <= executor.seen().keys())


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
    local_runners.say("templates", " ".join(str(e.pool.template_pid) for e in executors))
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
