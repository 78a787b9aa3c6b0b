# SPDX-License-Identifier: Apache-2.0
"""The demo's backends and routes, and what tells them to Airflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EXECUTOR = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
WORKER_QUEUE = "default"
"""The Celery queue of every Celery backend, and the one that a worker listens to when it is told nothing."""


@dataclass(frozen=True)
class Layout:
    """Which backends there are, and which of them a queue's tasks may run on."""

    slots: Mapping[str, int]
    routes: Mapping[str, Sequence[str]]
    default: str
    workers: Mapping[str, str] = field(default_factory=dict)
    """The name of the worker of each Celery backend; a backend that is not here is local."""

    def allowed(self, queue: str) -> Sequence[str]:
        return self.routes.get(queue, [self.default])


LOCAL = Layout(
    slots={"small": 2, "large": 8, "batch": 4},
    routes={"bursts": ["small"], "spill": ["small", "large"], "fast": ["large"], "reports": ["batch"]},
    default="batch",
)
WITH_CELERY = Layout(
    LOCAL.slots, LOCAL.routes, LOCAL.default, {"large": "worker-large", "batch": "worker-batch"}
)


def settings(layout: Layout, tasks: int, celery: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Airflow's settings, as environment variables; ``celery`` has ``[celery]`` of each Celery backend."""
    backends = {name: _backend(slots, celery.get(name)) for name, slots in layout.slots.items()}
    routes = [
        {"queue": queue, "to": [_target(layout, name) for name in targets]}
        for queue, targets in layout.routes.items()
    ]
    default = _target(layout, layout.default)
    # Large enough that nothing but the backends' slots makes a task wait.
    room = str(max(128, tasks))
    return {
        "AIRFLOW__CORE__EXECUTOR": EXECUTOR,
        "AIRFLOW__CORE__PARALLELISM": room,
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": room,
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps(routes),
        "AIRFLOW__DISPATCH__DEFAULT": default if isinstance(default, str) else json.dumps(default),
        "DISPATCH_DEMO_TASKS": str(tasks),
    }


def _backend(slots: int, celery: Mapping[str, str] | None) -> dict[str, object]:
    if celery is None:
        return {"executor": "LocalExecutor", "slots": slots}
    return {"executor": "CeleryExecutor", "slots": slots, "config": {"celery": dict(celery)}}


def _target(layout: Layout, backend: str) -> str | dict[str, str]:
    return {"backend": backend, "queue": WORKER_QUEUE} if backend in layout.workers else backend
