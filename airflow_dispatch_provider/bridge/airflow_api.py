# SPDX-License-Identifier: Apache-2.0
"""Differences between the supported Airflow versions, behind functions that are the same on all of them."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any
from uuid import UUID

from airflow import settings
from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.executor_loader import ExecutorLoader
from airflow.utils import net

from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, TEST_CONNECTION

log = logging.getLogger(__name__)

# Workloads, keys, states and configurations have other classes in each Airflow version.
Workload = Any
WorkloadKey = Any
WorkloadState = Any
Conf = Any


_workloads: Any = workloads
_net: Any = net
_settings: Any = settings
_TaskInstanceUuid: Any = None
if AIRFLOW_V_3_4_PLUS:
    from airflow.executors.workloads import types as _types

    _TaskInstanceUuid = vars(_types)["TaskInstanceUuid"]

WORKLOAD_TYPES: frozenset[Any] = (
    frozenset(
        {
            _workloads.WorkloadType.EXECUTE_TASK,
            _workloads.WorkloadType.EXECUTE_CALLBACK,
            _workloads.WorkloadType.TEST_CONNECTION,
        }
    )
    if AIRFLOW_V_3_4_PLUS
    else frozenset()
)
"""Every workload type that ``run_workload`` runs; empty before Airflow 3.4, which has no such names."""


def executor_names() -> list[Any]:
    """The ``ExecutorName`` of each entry of ``[core] executor``, found without asking the database for teams."""
    loader: Any = ExecutorLoader
    if AIRFLOW_V_3_2_PLUS:
        return list(loader.get_executor_names(validate_teams=False))
    return list(loader.get_executor_names())


def hostname() -> str:
    """This machine, as the Execution API records it for the tasks that run here."""
    return str(_net.get_hostname())


def task_key(executor: Any, ti: Any) -> WorkloadKey:
    """The key under which ``executor`` (class or instance) knows a task instance, ORM object or not."""
    return executor.get_task_key(ti) if AIRFLOW_V_3_4_PLUS else ti.key


def task_instance_uuid(ti_id: UUID) -> WorkloadKey:
    """The key of a task for an executor that knows tasks by their instance id: Airflow 3.4 and later."""
    return _TaskInstanceUuid(ti_id)


def is_task_instance_uuid(key: WorkloadKey) -> bool:
    """Whether the key is a task's instance id; never before Airflow 3.4."""
    return AIRFLOW_V_3_4_PLUS and isinstance(key, _TaskInstanceUuid)


def has_pod_mutation_hook() -> bool:
    """Whether ``airflow.settings.pod_mutation_hook`` does anything: a plugin, ``airflow_local_settings``, or
    somebody who has replaced it."""
    hook = _settings.pod_mutation_hook
    if getattr(hook, "__globals__", None) is not vars(_settings):
        return True
    manager = _settings.get_policy_plugin_manager() if AIRFLOW_V_3_2_PLUS else _settings.POLICY_PLUGIN_MANAGER
    return manager is not None and bool(manager.hook.pod_mutation_hook.get_hookimpls())


def workload_key(executor: Any, workload: Workload) -> WorkloadKey:
    """The key under which ``executor`` (class or instance) queues, runs and reports ``workload``."""
    if AIRFLOW_V_3_4_PLUS:
        return executor.get_workload_key(workload)
    if AIRFLOW_V_3_3_PLUS:
        return workload.key
    return workload.ti.key if is_task(workload) else workload.callback.id


def key_elsewhere(executor: Any, key: WorkloadKey, workload: Workload) -> WorkloadKey:
    """``workload_key`` where another executor's key is known: up to Airflow 3.3 it is the same, and need not be made
    again."""
    return executor.get_workload_key(workload) if AIRFLOW_V_3_4_PLUS else key


def is_task(workload: Workload) -> bool:
    """Whether the workload is a task instance, and not a callback or a connection test."""
    return getattr(workload, "ti", None) is not None


def workload_name(workload: Workload) -> str:
    """A short name for process titles and logs."""
    if AIRFLOW_V_3_3_PLUS:
        return str(workload.display_name)
    return str(workload.ti.id if is_task(workload) else workload.callback.id)


def kind_of(workload: Workload) -> str:
    """``ExecuteTask``, ``ExecuteCallback`` or ``TestConnection``: a string up to Airflow 3.3, an enum later."""
    kind = workload.type
    return kind if type(kind) is str else str(getattr(kind, "value", kind))


def workload_states(workload: Workload) -> tuple[WorkloadState | None, WorkloadState, WorkloadState]:
    """
    ``(running, success, failure)``, each as the scheduler expects it in an event.

    ``running`` is None where no such event may be sent: one without information erases a task's
    ``external_executor_id``.
    """
    kind = kind_of(workload)
    running = None if is_task(workload) else event_state(kind, "running")
    return running, event_state(kind, "success"), event_state(kind, "failed")


@cache
def event_state(kind: str, name: str) -> WorkloadState:
    """The state that an event about a workload of this type carries.

    :param name: ``queued``, ``running``, ``success`` or ``failed``
    """
    if kind == TEST_CONNECTION and AIRFLOW_V_3_3_PLUS:
        from airflow.models import connection_test

        return vars(connection_test)["ConnectionTestState"](name)
    if kind == EXECUTE_CALLBACK and AIRFLOW_V_3_2_PLUS:
        from airflow.utils.state import CallbackState

        return CallbackState(name)
    from airflow.utils.state import TaskInstanceState

    return TaskInstanceState(name)


def queues(executor: Any) -> list[dict[WorkloadKey, Workload]]:
    """The base class's own queues, one per workload type: the objects themselves, not copies."""
    if AIRFLOW_V_3_4_PLUS:
        return list(executor.executor_queues.values())
    names = ["queued_tasks"]
    if AIRFLOW_V_3_2_PLUS:
        names.append("queued_callbacks")
    if AIRFLOW_V_3_3_PLUS:
        names.append("queued_connection_tests")
    return [getattr(executor, name) for name in names]


def has_key(executor: Any, key: WorkloadKey) -> bool:
    """Whether the workload of that key waits in the executor's own queues, or is in its care: ``has_task`` by key."""
    return key in executor.running or any(key in queue for queue in queues(executor))


def forget_queued_key(executor: Any, key: WorkloadKey) -> bool:
    """Take the workload of that key out of whichever queue holds it; False when none does."""
    return any(queue.pop(key, None) is not None for queue in queues(executor))


def forget_queued(executor: Any, workload: Workload) -> bool:
    """Take ``workload`` out of whichever queue holds it; False when none does."""
    return forget_queued_key(executor, workload_key(executor, workload))


def execution_api_url(conf: Conf) -> str:
    """Where the Execution API is, from ``[core] execution_api_server_url``, else ``[api] base_url``."""
    if AIRFLOW_V_3_3_PLUS:
        from airflow.executors.base_executor import get_execution_api_server_url

        return str(get_execution_api_server_url(conf))
    base = conf.get("api", "base_url", fallback="/")
    if base.startswith("/"):
        base = "http://localhost:8080" + base
    return str(conf.get("core", "execution_api_server_url", fallback=base.rstrip("/") + "/execution/"))


def warm_up(conf: Conf) -> None:
    """
    Do once what every supervisor would do first: above all load the certificates of the TLS context, which
    the client of the Execution API caches and which costs more than the rest of a supervisor's work.
    """
    from airflow.sdk.api.client import Client

    Client(base_url=execution_api_url(conf), token="").close()
    _keep_decoder()


def _keep_decoder() -> None:
    """Build the decoder of what a supervisor says to its task, which has no state, for all processes forked from this
    one: each task would derive it anew, twice, from some fifty classes of messages."""
    from airflow.sdk.execution_time import comms
    from pydantic import TypeAdapter

    module: Any = comms
    decoder: Any = TypeAdapter(module.ToTask)
    module.TypeAdapter = lambda of, **options: decoder if of is module.ToTask else TypeAdapter(of, **options)


def reach_execution_api(conf: Conf, timeout: float) -> None:
    """
    Ask the Execution API whether it is well, once; its own client tries again, and reads a token from the answer.

    :param timeout: seconds to connect, and as many to wait for the answer
    :raises Exception: of its HTTP client, or RuntimeError: the server, or a proxy before it, has an error of its own
    """
    from airflow.sdk.api.client import Client

    with Client(base_url=execution_api_url(conf), token="", timeout=timeout) as client:
        client.event_hooks = {}
        response = client.send(client.build_request("GET", "health"))
    if response.status_code >= 500:
        raise RuntimeError(f"HTTP {response.status_code} from {response.url}")


def run_workload(workload: Workload, conf: Conf, proctitle: str) -> None:
    """
    Run a workload to its end in this process and the children that Airflow's supervisors start.

    A task that fails has told the Execution API so and returns normally: only what could not be run or
    reported raises. Logs go to standard output as well, where Airflow's own LocalExecutor does so.
    """
    if AIRFLOW_V_3_3_PLUS:
        base: Any = BaseExecutor
        base.run_workload(
            workload,
            server=execution_api_url(conf),
            proctitle=proctitle,
            subprocess_logs_to_stdout=True,
        )
    elif is_task(workload) or not AIRFLOW_V_3_2_PLUS:
        _run_task(workload, conf)
    else:
        _run_callback(workload)


def _run_task(workload: Workload, conf: Conf) -> None:
    from airflow.sdk.execution_time.supervisor import supervise

    options = {"subprocess_logs_to_stdout": True} if AIRFLOW_V_3_2_PLUS else {}
    supervise(
        ti=workload.ti,
        bundle_info=workload.bundle_info,
        dag_rel_path=workload.dag_rel_path,
        token=workload.token,
        server=execution_api_url(conf),
        log_path=workload.log_path,
        **options,
    )


if AIRFLOW_V_3_2_PLUS and not AIRFLOW_V_3_3_PLUS:

    def _run_callback(workload: Workload) -> None:
        from airflow.executors.workloads import callback

        run: Any = vars(callback)["execute_callback_workload"]
        succeeded, error = run(workload.callback, log)
        if not succeeded:
            raise RuntimeError(error or "the callback failed and gave no reason")
