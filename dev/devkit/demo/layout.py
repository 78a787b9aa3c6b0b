# SPDX-License-Identifier: Apache-2.0
"""The demo's backends and routes, and what tells them to Airflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

EXECUTOR = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"

Options = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Of each backend that has workers: options by section of airflow.cfg."""


@dataclass(frozen=True)
class Layout:
    """Which backends there are, and which of them a queue's tasks may run on.

    :ivar executor: of the backends that have workers; all others are local
    :ivar workers: the name under which each backend's tasks run
    :ivar queue: that workers listen to, where they do
    :ivar unrouted: the queue of the Dag that no route knows
    """

    slots: Mapping[str, int]
    routes: Mapping[str, Sequence[str]]
    default: str
    executor: str = "LocalExecutor"
    workers: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None
    unrouted: str = "misc"

    def allowed(self, queue: str) -> Sequence[str]:
        return self.routes.get(queue, [self.default])

    def executor_of(self, backend: str) -> str:
        return self.executor if backend in self.workers else "LocalExecutor"


LOCAL = Layout(
    slots={"small": 2, "large": 8, "batch": 4},
    routes={"bursts": ["small"], "spill": ["small", "large"], "fast": ["large"], "reports": ["batch"]},
    default="batch",
)
WITH_CELERY = replace(
    LOCAL,
    executor="CeleryExecutor",
    workers={"large": "worker-large", "batch": "worker-batch"},
    queue="default",  # the one that a worker listens to when it is told nothing
)
WITH_KUBERNETES = replace(
    LOCAL, executor="KubernetesExecutor", workers={"large": "node-large", "batch": "node-batch"}
)


def settings(layout: Layout, tasks: int, options: Options) -> dict[str, str]:
    """Airflow's settings, as environment variables."""
    backends = {name: _backend(layout, name, options.get(name)) for name in layout.slots}
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
        # The first tasks all start at once, and on a small machine the API server answers later than in 5 seconds.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps(routes),
        "AIRFLOW__DISPATCH__DEFAULT": default if isinstance(default, str) else json.dumps(default),
        "DISPATCH_DEMO_TASKS": str(tasks),
    }


def _backend(layout: Layout, name: str, config: Mapping[str, Mapping[str, str]] | None) -> dict[str, object]:
    backend = {"executor": layout.executor_of(name), "slots": layout.slots[name]}
    return {**backend, "config": config} if config else backend


def _target(layout: Layout, backend: str) -> str | dict[str, str]:
    if layout.queue and backend in layout.workers:
        return {"backend": backend, "queue": layout.queue}
    return backend
