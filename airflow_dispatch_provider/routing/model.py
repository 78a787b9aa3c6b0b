# SPDX-License-Identifier: Apache-2.0
"""The values of routing: what users write, what is asked, what is seen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
"""A typo in a key or a number in quotes is a mistake to report, never something to guess at."""

EXECUTE_TASK, EXECUTE_CALLBACK, TEST_CONNECTION = "ExecuteTask", "ExecuteCallback", "TestConnection"
KIND_RANK = {EXECUTE_CALLBACK: 0, TEST_CONNECTION: 1, EXECUTE_TASK: 2}
"""Airflow's names of the workload types, and the order in which it serves them (``WORKLOAD_TYPE_PRIORITY``
of Airflow 3.4): callbacks complete work that has been done, and a person waits for a connection test."""

Name = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@validated(frozen=True, config=STRICT)
class Target:
    """A backend that a route may use, optionally under another queue name there."""

    backend: Name
    """Name of a backend under ``backends``."""

    queue: Name | None = None
    """The queue that the backend is told instead of the task's own."""

    weight: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Share of the route's tasks that have this target first; 0 makes it a last resort. Either all targets of
    a route have a weight, or none has: then they are tried in the order in which they are written."""

    def __str__(self) -> str:
        return self.backend if self.queue is None else f"{self.backend} (queue {self.queue})"


def _bare_name_is_a_target(value: Any) -> Any:
    return {"backend": value} if isinstance(value, str) else value


AnyTarget = Annotated[Target, BeforeValidator(_bare_name_is_a_target, json_schema_input_type=Name | Target)]


@validated(frozen=True, config=STRICT)
class Route:
    """Which workloads go where: a queue pattern, optionally a dag_id pattern, and targets, best first."""

    queue: Name
    """Exact queue name, or a glob (``*``, ``?``, ``[abc]``); case counts."""

    to: Annotated[tuple[AnyTarget, ...], Field(min_length=1)]
    """Targets, best first. A bare string is a target with nothing but a backend."""

    dag_id: Name | None = None
    """Exact dag_id or glob that the task's Dag has to match too."""

    overflow_after: Seconds | Literal["never"] = 0.0
    """Seconds that a task waits for a target that is full before the next one is used; 0 is at once,
    ``never`` is not at all. A target that takes no work (failing, cordoned) is passed over at once."""

    @property
    def name(self) -> str:
        """How logs, ``explain`` and the event log call this route."""
        return self.queue if self.dag_id is None else f"{self.queue} of {self.dag_id}"

    @property
    def patience(self) -> float:
        """``overflow_after`` in seconds; infinite for ``never``."""
        return inf if self.overflow_after == "never" else self.overflow_after

    @cached_property
    def weighted(self) -> bool:
        return any(target.weight is not None for target in self.to)


DEFAULT_ROUTE = "default"
"""Name under which a workload is reported whose queue matches no route."""


class Routable(Protocol):
    """By this a workload finds its route: see ``TaskRef``."""

    @property
    def queue(self) -> str | None: ...

    @property
    def dag_id(self) -> str: ...

    @property
    def executor(self) -> str | None: ...


class TaskRef(NamedTuple):
    """The facts about one workload that routing uses."""

    queue: str | None
    """None where Airflow gives no queue (callbacks, connection tests): the default route is taken."""

    dag_id: str = ""
    seed: str = ""
    """Equal on every scheduler, after every restart and for every try; picks among weighted targets."""

    kind: str = EXECUTE_TASK

    executor: str | None = None
    """Name of the executor that the task asks for; None, or one that no backend has: its route alone counts."""


Order = tuple[int, int, int]


@dataclass(eq=False)
class Held:
    """One workload in the hold queue."""

    key: Hashable
    priority: int
    since: float
    """Monotonic seconds at which it was queued here."""

    sequence: int
    """Arrival number, never given twice: among equals the older goes first."""

    workload: Any = field(repr=False, default=None)
    """Opaque to routing."""

    kind: str = EXECUTE_TASK
    executor: str | None = None
    """See ``TaskRef``."""

    order: Order = field(init=False, repr=False)
    """Ascending: workload type, then priority_weight from high to low, then age."""

    lane: Any = field(init=False, repr=False)
    """Where it stands in the hold queue; of use to that alone."""

    def __post_init__(self) -> None:
        self.lane = None
        self.order = (KIND_RANK.get(self.kind, len(KIND_RANK)), -self.priority, self.sequence)


@dataclass(frozen=True, slots=True)
class BackendView:
    """The state of one backend, as a decision sees it."""

    free: int
    """Workloads that it could take now."""

    blocked: str | None = None
    """Why it takes no new work (a ``Reason`` such as ``cordoned`` or ``circuit_open``); None: it does."""

    kinds: frozenset[str] = frozenset({EXECUTE_TASK})
    """Workload types that it can run."""

    closed: Mapping[str, str] = field(default_factory=dict)
    """Lanes of it (Celery queues, Kubernetes namespaces) that are full by themselves, whatever is free elsewhere, and
    why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision depends on besides what is held."""

    now: float
    """Monotonic seconds."""

    backends: Mapping[str, BackendView]

    @property
    def free(self) -> dict[str, int]:
        """Free slots of each backend that takes work; a new dictionary."""
        return {name: view.free for name, view in self.backends.items() if view.blocked is None}
