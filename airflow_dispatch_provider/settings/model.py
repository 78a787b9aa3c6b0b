# SPDX-License-Identifier: Apache-2.0
"""The ``[dispatch]`` configuration as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as validated

from airflow_dispatch_provider.routing.model import STRICT, AnyTarget, Route

EXECUTOR_ALIASES: Mapping[str, str] = {
    "LocalExecutor": "airflow_dispatch_provider.executors.local_executor.LocalExecutor",
    "CeleryExecutor": "airflow_dispatch_provider.executors.celery_executor.CeleryExecutor",
    "KubernetesExecutor": "airflow_dispatch_provider.executors.kubernetes_executor.KubernetesExecutor",
}
"""The short names that ``executor`` accepts besides import paths."""

BackendName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]
"""Goes into metric names and log lines, hence no dots and no spaces."""

LAST_GOOD = "last_good"
"""As ``on_refused_file``: go on with the last version that was accepted."""

Count = Annotated[int, Field(ge=1, le=1_000_000)]
_MODULES = r"^\s*([A-Za-z_]\w*(\.[A-Za-z_]\w*)*\s*(,\s*|$))*$"
"""Names of modules, separated by commas."""

WORKERS = "workers"
"""As ``slots``: as many as the live workers have."""

OptionValue = str | int | float | bool


@validated(frozen=True, config=STRICT)
class BackendSettings:
    """One executor under a name of the user's."""

    executor: Annotated[str, Field(min_length=1)]
    """``LocalExecutor``, ``CeleryExecutor``, ``KubernetesExecutor``, or the import path of any executor."""

    slots: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["workers"]
    """How many workloads it may hold at once, for each scheduler. ``"workers"``: as many as the live workers can
    run, counted again and again; for CeleryExecutor."""

    fallback_slots: Annotated[int, Field(ge=0, le=1_000_000)] = 16
    """With ``slots`` ``"workers"``: the slots while no worker is known. 0: nothing is sent then."""

    cordoned: bool = False
    """True: it takes no new work; what runs there goes on. May be changed while the scheduler runs."""

    config: Mapping[str, Mapping[str, OptionValue]] = field(default_factory=dict, repr=False)
    """Airflow options for this backend alone, by section. ``<option>_cmd`` and ``<option>_secret`` take the
    value from a command or a secrets backend. Never shown anywhere."""

    @property
    def configured_slots(self) -> int:
        """Slots as long as no worker has been counted."""
        return self.slots if isinstance(self.slots, int) else self.fallback_slots

    @property
    def class_path(self) -> str:
        return EXECUTOR_ALIASES.get(self.executor, self.executor)


@validated(frozen=True, config=STRICT)
class RoutingFile:
    """Keys of ``config_file`` and of ``[dispatch]`` itself: the same ones, by the same schema."""

    backends: Annotated[dict[BackendName, BackendSettings], Field(min_length=1)]
    """The executors to choose among, by name: letters, digits, ``-`` and ``_``, at most 60, and a letter or digit
    first."""

    routes: tuple[Route, ...] = ()
    """Which queue goes to which backends. An exact queue name wins over a glob, then a route with a dag_id over
    one without, then an earlier route over a later one."""

    default: AnyTarget | tuple[AnyTarget, ...] | None = None
    """The target or targets of every task whose queue matches no route. May be left out where there is only
    one backend."""


@validated(frozen=True, config=STRICT)
class Limits:
    """The options of the router besides backends and routes."""

    max_held: Annotated[int, Field(ge=1)] = 10_000
    """How many workloads are held at most; at the bound the router reports no free slots."""

    retry_min_delay: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Seconds until a backend that failed is tried again for the first time."""

    retry_max_delay: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Upper bound in seconds of that delay, which doubles with every failure."""

    on_refused_file: Literal["stop", "last_good"] = "stop"
    """Behaviour of a scheduler that starts with a ``config_file`` that is wrong."""

    waits_event_after: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0
    """Seconds after which a task that is held has an entry in the event log that says why; 0: none."""


@validated(frozen=True, config=STRICT)
class EngineOptions:
    """The options of the executors. Each executor reads its own, as its backend sees them; here they are checked."""

    local_ahead: Annotated[int, Field(ge=0, le=1_000_000)] = 64
    local_preload: Annotated[str, Field(pattern=_MODULES)] = ""
    local_template: Literal["fork", "exec"] = "fork"
    local_warm_dags: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    celery_warm_dags: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    celery_max_unsent: Count = 250
    kubernetes_max_unsent: Count = 250
    kubernetes_concurrency: Count = 32
    launch_retries: Annotated[int, Field(ge=0, le=1_000_000)] = 10


@validated(frozen=True, config=STRICT)
class Settings:
    """A whole, checked configuration."""

    backends: Mapping[str, BackendSettings]
    routes: tuple[Route, ...]
    default: Route
    limits: Limits = field(default_factory=Limits)

    share_parallelism: frozenset[str] = frozenset()
    """Backends of a ready-made router that were given no slots: each may use all of ``[core] parallelism``, and
    together they have no more."""

    @property
    def executors(self) -> dict[str, list[str]]:
        """The backends of each executor, by the name of its class."""
        found: dict[str, list[str]] = {}
        for name, backend in self.backends.items():
            found.setdefault(backend.class_path.rpartition(".")[2], []).append(name)
        return found

    @property
    def routes_by_place(self) -> dict[str, Route]:
        """All routes, the default one last, by where each stands."""
        numbered = {f"routes[{index}]": route for index, route in enumerate(self.routes)}
        return {**numbered, "default": self.default}

    @property
    def slots_given(self) -> int:
        """The lowest ``[core] parallelism`` at which all given slots can be used at the same time."""
        given = (b for name, b in self.backends.items() if name not in self.share_parallelism)
        return sum(backend.configured_slots for backend in given)
