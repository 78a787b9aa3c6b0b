# SPDX-License-Identifier: Apache-2.0
"""One backend: an executor under a name, with its own configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from inspect import isabstract
from itertools import islice
from types import ModuleType
from typing import Any

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.bridge.executor_classes import make_executor, workload_kinds
from airflow_dispatch_provider.bridge.installed import extra_of, remedy_for, unmet
from airflow_dispatch_provider.bridge.users_code import (
    bounded_executor,
    import_users_object,
)
from airflow_dispatch_provider.engines.engine import Engine
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.engines.guarded import GuardedEngine
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.engines.protocols import Claim
from airflow_dispatch_provider.exceptions import BackendUnavailable, DispatchConfigError, Problem, TookTooLong
from airflow_dispatch_provider.masking import kind_of
from airflow_dispatch_provider.routing.model import EXECUTE_TASK
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES, WORKERS, BackendSettings, Limits

_ROUTERS = tuple(f"airflow_dispatch_provider.executors.{name}" for name in ("by_name", "dispatch_executor"))
"""Modules of classes that hand over to backends, and are none."""

_READ_ON_THE_CLASS = ("is_local", "serve_logs", "supports_ad_hoc_ti_run", "pre_assigns_external_executor_id")
"""Attributes that Airflow, or the router, reads before there is an instance."""

_COUNTS_WORKERS = ("worker_slots", "counts_workers")
"""Either makes ``slots: workers`` possible: see ``protocols.CountsWorkers`` and ``protocols.HasEngine``."""


def import_executor_class(settings: BackendSettings) -> type[BaseExecutor]:
    """The class that ``executor`` names; raises BackendUnavailable where it cannot be had."""
    module_name, _, class_name = settings.class_path.rpartition(".")
    if not module_name:
        known = ", ".join(EXECUTOR_ALIASES)
        raise BackendUnavailable(
            f"{settings.executor} is no executor's name.", f"Take {known}, or an import path."
        )
    try:
        found = import_users_object(settings.class_path)
    except TookTooLong as error:
        reason = f"{settings.executor} cannot be imported: its module {error.found}."
        raise BackendUnavailable(reason, error.remedy) from None
    except Exception as error:
        # Without the cause: the log would quote it.
        raise _import_failed(settings, module_name, error) from None
    if found is None:
        reason = f"{module_name} has no {class_name}."
        raise BackendUnavailable(reason, _correct(sys.modules[module_name], class_name))
    if not (isinstance(found, type) and issubclass(found, BaseExecutor)):
        raise BackendUnavailable(
            f"{settings.class_path} is not an executor (no subclass of BaseExecutor).",
            _correct(sys.modules[module_name], class_name),
        )
    if wrong := _unfit(settings, found):
        raise BackendUnavailable(*wrong)
    if settings.slots == WORKERS and not any(getattr(found, name, False) for name in _COUNTS_WORKERS):
        reason = f"{settings.class_path} cannot count its workers."
        raise BackendUnavailable(reason, "Give 'slots' as a number.", key="slots")
    return found


def _unfit(settings: BackendSettings, cls: type[BaseExecutor]) -> tuple[str, str] | None:
    """Why no backend can be made of a class, and a remedy."""
    path = settings.class_path
    # Before it is asked for an attribute that its backends have.
    if any(base.__module__ in _ROUTERS for base in cls.__mro__):
        return f"{path} is a router.", "A backend is an executor that runs tasks."
    if isabstract(cls) or cls is BaseExecutor:
        return f"{path} is abstract: no executor can be made of it.", "Give one of its subclasses."
    try:
        workload_kinds(cls)
        for attribute in (*_READ_ON_THE_CLASS, *_COUNTS_WORKERS):
            getattr(cls, attribute, None)
    except Exception as error:
        return f"{path} has a class attribute that cannot be read ({kind_of(error)}).", "Correct it there."
    return None


def _import_failed(settings: BackendSettings, module: str, error: Exception) -> BackendUnavailable:
    extra = extra_of(module)
    missing = unmet(extra) if extra else []
    reason = f"{settings.executor} cannot be imported ({kind_of(error)})."
    if extra and missing:
        needs = f"It needs {', '.join(map(str, missing))}."
        return BackendUnavailable(f"{reason} {needs}", remedy_for(extra, missing))
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        name = settings.class_path.rpartition(".")[2]
        short = f" or give {name}," if name in EXECUTOR_ALIASES else ""
        return BackendUnavailable(
            reason, f"Correct 'executor',{short} or install the package that has this module."
        )
    remedy = f'See what fails: python -c "import {module}".'
    # By name: Airflow and its SDK each have one, neither a base of the other.
    misread = type(error).__name__ == "AirflowConfigException"
    return BackendUnavailable(reason, remedy, misread=misread)


def _correct(module: ModuleType, class_name: str) -> str:
    """A remedy that names the executors of a module, the likeliest first."""
    executors = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseExecutor) and value.__module__ == module.__name__
    ]
    executors.sort(key=lambda name: -SequenceMatcher(None, class_name, name).ratio())
    there = f": {module.__name__} has {', '.join(executors)}" if executors else ""
    return f"Correct 'executor'{there}."


class Backend:
    """An executor under a name, made when it is needed."""

    def __init__(self, name: str, settings: BackendSettings, base_conf: Any, team_name: str | None) -> None:
        self.name = name
        self.settings = settings
        self.conf = BackendConf(name, {**settings.config, "core": _core_options(settings)}, base_conf)
        self._team_name = team_name
        self._executor: BaseExecutor | None = None
        self.has_engine = False
        """Whether its executor is only the face of an engine of ours, which was taken instead."""

        self._is_late = self._is_new = False
        self._claims: Collection[Claim] | None = None

    def __repr__(self) -> str:
        return f"Backend({self.name!r}, {self.settings.executor}, slots={self.settings.slots})"

    @property
    def executor(self) -> BaseExecutor:
        """Made on first use, not started; raises what its import or constructor raises."""
        if self._executor is None:
            cls, path = import_executor_class(self.settings), self.settings.class_path
            slots = self.settings.configured_slots
            self._executor = make_executor(cls, self.conf, self.name, path, slots, self._team_name)
        return self._executor

    @property
    def made(self) -> BaseExecutor | None:
        """The executor if it has been made."""
        return self._executor

    def conf_problems(self) -> Sequence[Problem]:
        """See ``protocols.ChecksConf``; raises what the import of the executor raises."""
        cls: Any = import_executor_class(self.settings)
        return list(cls.conf_problems(self.conf) or ()) if hasattr(cls, "conf_problems") else []

    def engine(
        self,
        limits: Limits,
        prepare: Callable[[BaseExecutor], None],
        check: Callable[[], Sequence[Problem]],
        clock: Callable[[], float],
    ) -> Engine:
        """The executor's own engine, or the executor behind the protocol of engines.

        :param prepare: gives an executor what it needs before its start
        :param check: tells what it could not read in its configuration; called before it is made
        :param clock: monotonic seconds
        """
        tried: list[bool] = []

        def make() -> BaseExecutor:
            if tried:
                self._executor = None
                self.conf.forget_failures()
            tried.append(True)
            with bounded_executor(self.name):
                if problems := check():
                    raise DispatchConfigError(problems)
                executor = self.executor
            prepare(executor)
            return executor

        backoff = Backoff(limits.retry_min_delay, limits.retry_max_delay)
        slots, counts_workers = self.settings.configured_slots, self.settings.slots == WORKERS

        def make_engine() -> Engine:
            # Only now: a class that cannot be had may be there later.
            self.has_engine = _has_engine(self.settings)
            self._is_late, self._is_new = False, self._is_late
            if not self.has_engine:
                return ForeignEngine(self.name, make, slots, counts_workers, backoff, clock)
            executor: Any = make()
            made: Engine = executor.make_engine(self.name, slots, counts_workers=counts_workers)
            return made

        with suppress(BackendUnavailable):
            if not _has_engine(self.settings):
                return make_engine()
            return GuardedEngine(self.name, make_engine, slots, backoff, clock)
        self._is_late = True
        return GuardedEngine(self.name, make_engine, slots, backoff, clock)

    @property
    def claims(self) -> Collection[Claim]:
        """Things that no other backend may use; none where it cannot say: its start will tell why."""
        if self._claims is None:
            try:
                self._claims = self._ask_claims()
            except Exception:
                return ()
        return self._claims

    def _ask_claims(self) -> Collection[Claim]:
        # Only those are made that can be asked: others might start processes in their constructor.
        if not hasattr(import_executor_class(self.settings), "claims"):
            return ()
        with bounded_executor(self.name):
            executor: Any = self.executor
            return executor.claims() or ()

    def clashes(self, other: Backend) -> bool:
        """Whether each would disturb the other."""
        return any(mine.clashes(theirs) for mine in self.claims for theirs in other.claims)

    def take_late(self) -> bool:
        """Once: whether its class, which could not be had at the start, is there now, with rules of its own."""
        is_new, self._is_new = self._is_new, False
        return is_new


def clashes(backends: Iterable[Backend], place: str) -> Iterator[Problem]:
    """One for each backend that wants what an earlier one uses, and only one of them may use.

    :param place: where ``backends`` stands: ``[dispatch] `` or the name of the file
    """
    known: list[tuple[str, Claim]] = []
    for backend in backends:
        claims = backend.claims
        both = ((claim, name) for claim in claims for name, other in known if claim.clashes(other))
        for claim, name in islice(both, 1):
            found = f"uses {claim}, as the backend {name!r} does: each would disturb the other."
            yield Problem(f"{place}backends.{backend.name}", found, "Give each its own.")
        known += [(backend.name, claim) for claim in claims]


def _core_options(settings: BackendSettings) -> dict[str, Any]:
    """``[core]`` as the backend sees it: some executors read their parallelism from there."""
    return {**settings.config.get("core", {}), "parallelism": settings.configured_slots}


def kinds_of(backends: Iterable[Backend]) -> frozenset[str]:
    """Types of workloads that any of them can run, be it usable now or not; tasks always."""
    kinds = {EXECUTE_TASK}
    for backend in backends:
        with suppress(BackendUnavailable):
            kinds |= workload_kinds(backend.made or import_executor_class(backend.settings))
    return frozenset(kinds)


def classes_of(backends: Iterable[Backend]) -> tuple[type[BaseExecutor], ...]:
    """The executor classes that can be imported, each once."""
    classes: dict[str, type[BaseExecutor]] = {}
    for backend in backends:
        with suppress(BackendUnavailable):
            classes[backend.settings.class_path] = import_executor_class(backend.settings)
    return tuple(classes.values())


def in_start_order(backends: Iterable[Backend]) -> list[Backend]:
    """Local executors first, then those of others, as far as their classes tell: both may fork, and their children
    inherit what is open and which threads hold a lock by then. Ending goes the other way round: the remote ones first,
    since a local one, and some of others, wait for their tasks."""
    return sorted(backends, key=lambda backend: (not is_local(backend), _may_have_threads(backend)))


def _may_have_threads(backend: Backend) -> bool:
    """Whether it has an engine of its own, of which our remote ones begin threads."""
    try:
        return _has_engine(backend.settings)
    except BackendUnavailable:
        return False


def _has_engine(settings: BackendSettings) -> bool:
    """Whether its executor makes an engine of its own; raises BackendUnavailable."""
    return hasattr(import_executor_class(settings), "make_engine")


def is_local(backend: Backend) -> bool:
    """Whether it runs tasks on this machine, as far as its class tells."""
    try:
        executor: Any = backend.made or import_executor_class(backend.settings)
    except BackendUnavailable:
        return False
    return getattr(executor, "is_local", False) is True
