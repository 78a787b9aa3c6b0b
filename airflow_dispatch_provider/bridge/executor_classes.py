# SPDX-License-Identifier: Apache-2.0
"""Executor classes of anybody's: made as Airflow makes them, and called where their answer may be anything."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.executor_utils import ExecutorName
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge.airflow_api import Conf, Workload
from airflow_dispatch_provider.bridge.users_code import is_for_the_process
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.exceptions import BackendUnavailable
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, EXECUTE_TASK, TEST_CONNECTION

_ENDS = {TaskInstanceState.SUCCESS.value, TaskInstanceState.FAILED.value}
"""Of callbacks and connection tests, too. Every other state is news of no meaning, whoever invented it."""

_OURS = "airflow_dispatch_provider."


def view_of(cls: type[BaseExecutor], conf: Conf) -> type[BaseExecutor]:
    """A subclass whose instances see ``conf`` from the first line of ``__init__`` on, and that leaves the
    executor gauges to the router (two backends of one class would overwrite each other's)."""
    body = {
        "conf": property(lambda self: conf, lambda self, value: None),
        "_emit_metrics": lambda self, open_slots, num_running_tasks, num_queued_tasks: None,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    return type(cls.__name__, (cls,), body)


def make_executor(
    cls: type[BaseExecutor], conf: Conf, name: str, path: str, slots: int, team_name: str | None
) -> BaseExecutor:
    """An instance that sees ``conf``, made as Airflow would make it; raises what the constructor raises.

    :param path: its import path, as configured
    :raises BackendUnavailable: a check that Airflow makes on the class fails
    """
    team: dict[str, Any] = {"team_name": team_name} if team_name and AIRFLOW_V_3_2_PLUS else {}
    if team and not getattr(cls, "supports_multi_team", False):
        raise BackendUnavailable(
            f"{path} does not support teams (supports_multi_team is not set).",
            "Configure it for the scheduler of no team, or take another executor.",
        )
    parallelism: dict[str, Any] = {"parallelism": slots} if _takes(cls, "parallelism") else {}
    executor = view_of(cls, conf)(**parallelism, **team)
    executor.parallelism = slots
    executor.name = ExecutorName(module_path=path, alias=name, **team)
    return executor


def _takes(cls: type[BaseExecutor], argument: str) -> bool:
    """Airflow itself calls the class without ``parallelism``: not every constructor has it."""
    parameters = inspect.signature(cls.__init__).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    return argument in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def workload_kinds(executor: Any) -> frozenset[str]:
    """The workload types that an executor class or instance can run, by Airflow's names."""
    if AIRFLOW_V_3_4_PLUS:
        return frozenset(kind.value for kind in executor.supported_workload_types)
    kinds = {EXECUTE_TASK}
    if AIRFLOW_V_3_2_PLUS and getattr(executor, "supports_callbacks", False):
        kinds.add(EXECUTE_CALLBACK)
    if getattr(executor, "supports_connection_test", False):
        kinds.add(TEST_CONNECTION)
    return frozenset(kinds)


def parallelism_for(executor: Any, slots: int) -> int:
    """The value to set as ``parallelism``. Executors of others may count what runs in more than one place, and would
    then send nothing; that they get no more than their slots is seen to by whoever gives it to them."""
    if type(executor).__module__.startswith(_OURS):
        return slots
    try:
        occupied = int(executor.slots_occupied)
    except BaseException as error:
        if is_for_the_process(error):
            raise
        occupied = 0
    return slots + max(0, occupied)


def queues_itself(executor: BaseExecutor) -> bool:
    """Whether it has its own way of queueing: the base class only takes note of a workload."""
    return _has_own(type(executor), "queue_workload")


def may_have_events(executor: Any) -> bool:
    """False where the base class's method would return nothing: that of Airflow 3.4 walks over all running tasks."""
    return bool(executor.event_buffer) or _has_own(type(executor), "get_event_buffer")


def can_revoke(cls: type[BaseExecutor]) -> bool:
    """The base class's own method says that it cannot."""
    return _has_own(cls, "revoke_task")


def _has_own(cls: type[BaseExecutor], method: str) -> bool:
    return getattr(cls, method) is not getattr(BaseExecutor, method)


def session_for(executor: BaseExecutor) -> AbstractContextManager[Any]:
    """A database session, as the scheduler would give one, where the executor has its own way of queueing: some hand
    work over through the database."""
    return create_session() if queues_itself(executor) else nullcontext()


def savepoint(session: Any) -> AbstractContextManager[Any]:
    """Within it, one piece of work that fails takes back its own writes and no others."""
    return nullcontext() if session is None else session.begin_nested()


def state_of_event(value: Any) -> tuple[str, Any]:
    """The state and the information of an event: its values are opaque but for their first two parts."""
    state, info = (*value, None, None)[:2] if isinstance(value, tuple) else (value, None)
    # Airflow's states are strings; to ask an enumeration for a value takes longer.
    return str.__str__(state) if isinstance(state, str) else str(getattr(state, "value", state)), info


def is_terminal(value: Any) -> bool:
    return is_terminal_state(state_of_event(value)[0])


def is_terminal_state(state: str) -> bool:
    return state in _ENDS


def is_pair(value: Any) -> bool:
    """Whether Airflow can take the value of an event apart; what follows the first two parts is opaque."""
    return isinstance(value, tuple) and len(value) >= 2


class TaskOf:
    """A task instance as ``revoke_task`` may read it: all that its workload has, and who queued it."""

    def __init__(self, workload: Workload, job_id: Any) -> None:
        self._ti = workload.ti
        self.queued_by_job_id = job_id
        self.state = TaskInstanceState.QUEUED

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ti, name)
