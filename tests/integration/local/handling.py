# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of a LocalExecutor and its processes."""

from __future__ import annotations

import os
import signal

from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.lifecycle.states import State
from tests.integration.local.conftest import pid_of
from tests.support import make_task, wait_until

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED


def queue(executor, *workloads):
    """Queue and return the keys; one key alone if there is one workload."""
    keys = []
    for workload in workloads:
        executor.queue_workload(workload, None)
        keys.append(airflow_api.workload_key(executor, workload))
    return keys[0] if len(keys) == 1 else keys


def running_task(executor, name="begin"):
    """Start a task and wait until it has begun: its key and its process."""
    key = queue(executor, make_task(name))
    executor.heartbeat()
    pid = pid_of(f"pid.{name}")
    wait_until(lambda: (executor.seen(), executor._loop.machine.state(key) is State.RUNNING)[1])
    return key, pid


def kill_template(executor):
    pid = executor.pool.template_pid
    os.kill(pid, signal.SIGKILL)
    return pid


def replace_template(executor):
    """Kill the template process and wait until its successor is ready."""
    old = kill_template(executor)
    wait_until(lambda: (executor.heartbeat(), executor.pool.ready and executor.pool.template_pid != old)[1])
