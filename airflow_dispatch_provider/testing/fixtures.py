# SPDX-License-Identifier: Apache-2.0
"""pytest fixtures; put ``pytest_plugins = ["airflow_dispatch_provider.testing.fixtures"]`` in a conftest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_dispatch_provider.dispatch.loop import ClerkLike
from airflow_dispatch_provider.executors.class_attributes import configured_classes
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

IN_MEMORY = "airflow_dispatch_provider.testing.in_memory.InMemoryExecutor"


@pytest.fixture
def dispatch_config(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets ``[dispatch]`` options for one test; what is not a string is written as JSON."""

    def configure(**options: Any) -> None:
        for option, value in options.items():
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"AIRFLOW__DISPATCH__{option.upper()}", text)
        configured_classes.cache_clear()

    return configure


@pytest.fixture
def make_clerk() -> Callable[[], ClerkLike]:
    """Makes what asks the database for a router. This one knows of no database; see ``InMemoryClerk``."""
    return InMemoryClerk


@pytest.fixture
def make_router(
    dispatch_config: Callable[..., None], make_clerk: Callable[[], ClerkLike]
) -> Iterator[Callable[..., DispatchExecutor]]:
    """Makes started DispatchExecutors, and ends them.

    ``make_router({"a": 2, "b": {...}}, routes=[...])``: a number stands for an in-memory backend with so many
    slots. ``make_router(None, config_file=...)`` takes the backends from a file.
    """
    made: list[DispatchExecutor] = []

    def make(
        backends: dict[str, Any] | None, clerk: ClerkLike | None = None, **options: Any
    ) -> DispatchExecutor:
        if backends is not None:
            options["backends"] = {
                name: {"executor": IN_MEMORY, "slots": value} if isinstance(value, int) else value
                for name, value in backends.items()
            }
            options.setdefault("default", next(iter(backends)))
        dispatch_config(**options)
        executor = DispatchExecutor(parallelism=32)
        executor.job_id = 1
        # In place of a thread that asks a database.
        executor._make_clerk = lambda limits: clerk or make_clerk()  # type: ignore[method-assign]
        executor.start()
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.end()
    configured_classes.cache_clear()
