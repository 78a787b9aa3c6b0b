# SPDX-License-Identifier: Apache-2.0
"""The executors that ``[core] executor`` lists, and the routers among them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from airflow.executors.executor_loader import ExecutorLoader

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.users_code import import_users_module
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor


def configured_executors() -> Iterator[tuple[Any, type[Any]]]:
    """The ``ExecutorName`` and the class of each entry of ``[core] executor``, in order. Those that cannot be imported
    are passed over: Airflow will say so."""
    for name in airflow_api.executor_names():
        with suppress(Exception):
            import_users_module(name.module_path.rpartition(".")[0])
            yield name, ExecutorLoader.import_executor_cls(name)[0]


def router_classes() -> dict[str | None, type[DispatchExecutor]]:
    """By team, None being everybody's; of several the first. Nothing where ``[core] executor`` cannot be read."""
    return {team: cls for team, (_, cls) in _routers().items()}


def make_router(team: str | None) -> DispatchExecutor | None:
    """The router of a team, as Airflow would make it, not started; None where none is configured."""
    configured = _routers().get(team)
    made = None if configured is None else ExecutorLoader.load_executor(configured[0])
    return made if isinstance(made, DispatchExecutor) else None


def _routers() -> dict[str | None, tuple[Any, type[DispatchExecutor]]]:
    found: dict[str | None, tuple[Any, type[DispatchExecutor]]] = {}
    with suppress(Exception):
        for name, cls in configured_executors():
            if issubclass(cls, DispatchExecutor):
                found.setdefault(name.team_name, (name, cls))
    return found
