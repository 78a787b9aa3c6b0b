# SPDX-License-Identifier: Apache-2.0
"""One backend: an executor under a name, with its own configuration, behind a circuit."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from inspect import isabstract
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.bridge.executor_classes import make_executor, parallelism_for, workload_kinds
from airflow_dispatch_provider.bridge.installed import extra_of, remedy_for, unmet
from airflow_dispatch_provider.bridge.metrics import count_failure
from airflow_dispatch_provider.bridge.users_code import (
    bounded_executor,
    import_users_object,
    is_for_the_process,
)
from airflow_dispatch_provider.engines.protocols import (
    Claim,
    Claims,
    CountsWorkers,
    ReportsHealth,
    ReportsNoRoom,
    ReturnsWork,
)
from airflow_dispatch_provider.exceptions import BackendUnavailable, DispatchConfigError, Problem, TookTooLong
from airflow_dispatch_provider.masking import kind_of, masked, traceback_of
from airflow_dispatch_provider.routing.circuit import Circuit, CircuitState
from airflow_dispatch_provider.routing.model import (
    EXECUTE_TASK,
    BackendView,
)
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES, WORKERS, BackendSettings, Limits

T = TypeVar("T")

log = logging.getLogger(__name__)

_ROUTERS = tuple(f"airflow_dispatch_provider.executors.{name}" for name in ("by_name", "dispatch_executor"))
"""Modules of classes that hand over to backends, and are none."""

_READ_ON_THE_CLASS = ("is_local", "serve_logs", "supports_ad_hoc_ti_run", "pre_assigns_external_executor_id")
"""Attributes that Airflow, or the router, reads before there is an instance."""


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
        for attribute in (*_READ_ON_THE_CLASS, "worker_slots"):
            getattr(cls, attribute, None)
    except Exception as error:
        return f"{path} has a class attribute that cannot be read ({kind_of(error)}).", "Correct it there."
    if settings.slots == WORKERS and not hasattr(cls, "worker_slots"):
        return f"{path} cannot count its workers.", "Give 'slots' as a number."
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
    return BackendUnavailable(reason, f'See what fails: python -c "import {module}".')


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
    """Adapter around one executor. Whatever the executor does, nothing but what is meant to end the process (see
    ``is_for_the_process``) leaves a method of this class; a failure opens the circuit and is logged once."""

    def __init__(
        self, name: str, settings: BackendSettings, limits: Limits, base_conf: Any, team_name: str | None
    ) -> None:
        self.name = name
        self.settings = settings
        self.circuit = Circuit(limits.retry_min_delay, limits.retry_max_delay)
        self.started = False
        self.conf = BackendConf(name, {**settings.config, "core": _core_options(settings)}, base_conf)
        self._team_name = team_name
        self._executor: BaseExecutor | None = None
        self._kinds: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Backend({self.name!r}, {self.settings.executor}, slots={self.settings.slots})"

    @property
    def executor(self) -> BaseExecutor:
        """Made on first use, not started; raises what its import or constructor raises."""
        if self._executor is None:
            cls, path = import_executor_class(self.settings), self.settings.class_path
            slots = self.settings.configured_slots
            executor = make_executor(cls, self.conf, self.name, path, slots, self._team_name)
            self._executor, self._kinds = executor, workload_kinds(executor)
        return self._executor

    def conf_problems(self) -> Sequence[Problem]:
        """See ``protocols.ChecksConf``; raises what the import of the executor raises."""
        cls: Any = import_executor_class(self.settings)
        return list(cls.conf_problems(self.conf) or ()) if hasattr(cls, "conf_problems") else []

    def use(self, settings: BackendSettings) -> None:
        """Take over changed slots and cordon."""
        self.settings = settings

    def slots(self, now: float) -> int:
        """How many workloads it may hold at this moment."""
        executor: Any = self._executor
        counts = self.started and self.settings.slots == WORKERS and isinstance(executor, CountsWorkers)
        counted = self.call("worker_slots", now, executor.worker_slots, None) if counts else None
        return self.settings.configured_slots if counted is None else int(counted)

    @property
    def made(self) -> BaseExecutor | None:
        """The executor if it has been made."""
        return self._executor

    def usable(self, now: float) -> bool:
        """Whether it may be called: started, and its circuit not open."""
        return self.started and self.circuit.state(now) is not CircuitState.OPEN

    def may_adopt(self, now: float) -> bool:
        """Whether it may be asked to adopt: an executor that reports its health knows what it can do without its
        server, and a task that is adopted costs none of its tries."""
        return self.usable(now) or (self.started and isinstance(self._executor, ReportsHealth))

    def may_start(self, now: float) -> bool:
        return not self.started and self.circuit.state(now) is not CircuitState.OPEN

    def view(self, now: float, load: int) -> BackendView:
        """The state of this backend that a decision is made on.

        :param load: slots in use
        """
        free = max(0, self.slots(now) - load)
        if not self.usable(now):
            return BackendView(0, Reason.CIRCUIT_OPEN, self._kinds or frozenset({EXECUTE_TASK}))
        if self.settings.cordoned:
            return BackendView(0, Reason.CORDONED, self._kinds)
        if self.circuit.state(now) is CircuitState.HALF_OPEN:
            free = min(free, 1)
        executor: Any = self._executor
        if isinstance(executor, ReportsNoRoom) and self.call("no_room", now, executor.no_room, None):
            free = 0
        return BackendView(free, None, self._kinds)

    def start(
        self,
        now: float,
        prepare: Callable[[BaseExecutor], None],
        check: Callable[[], Sequence[Problem]] = tuple,
    ) -> bool:
        """Make and start the executor; False where that failed, to be tried again when the circuit allows.

        :param check: tells what it could not read in its configuration; called before it is made
        """

        def make_and_start() -> bool:
            with bounded_executor(self.name):
                if problems := check():
                    raise DispatchConfigError(problems)
                executor: Any = self.executor
            prepare(executor)
            executor.start()
            return True

        self.started = self.call("start", now, make_and_start, False)
        if not self.started:
            self._executor = None
            self.conf.forget_failures()
        return self.started

    def heartbeat(self, now: float) -> list[Any]:
        """Run the executor's heartbeat; returns the workloads that it hands back unsent."""
        executor = self.executor
        executor.parallelism = parallelism_for(executor, self.slots(now))

        def beat() -> bool:
            executor.heartbeat()
            return True

        if not self.call("heartbeat", now, beat, False):
            return []
        problem = executor.health() if isinstance(executor, ReportsHealth) else None
        if problem is None:
            self._succeeded(now)
        else:
            self._failed("health", now, problem)
        return list(executor.take_returned()) if isinstance(executor, ReturnsWork) else []

    def call(self, what: str, now: float, action: Callable[[], T], otherwise: T) -> T:
        """``action()``, or ``otherwise`` where it raises."""
        try:
            return action()
        except BaseException as error:
            if is_for_the_process(error):
                raise
            self._failed(what, now, masked(f"{type(error).__name__}: {error}"), error)
            return otherwise

    def _failed(self, what: str, now: float, reason: str, error: BaseException | None = None) -> None:
        news = self.circuit.error is None
        self.circuit = self.circuit.failed(now, reason, random.random())
        count_failure(self.name)
        delay = (self.circuit.retry_at or now) - now
        message = "Backend %r failed in %s and gets no new work until it recovers; next try in %.1f s. %s%s"
        level = logging.ERROR if news else logging.DEBUG
        details = f"\n{traceback_of(error)}" if error is not None and news else ""
        log.log(level, message, self.name, what, delay, reason, details)

    def _succeeded(self, now: float) -> None:
        if self.circuit.error is not None:
            log.info("Backend %r has recovered after %d failures.", self.name, self.circuit.failures)
        self.circuit = self.circuit.succeeded(now)


def clashes(backends: Iterable[Backend], place: str) -> Iterator[Problem]:
    """One for each backend that wants what an earlier one uses, and only one of them may use. Those that cannot say
    what they use are passed over; their start will tell why.

    :param place: where ``backends`` stands: ``[dispatch] `` or the name of the file
    """
    known: list[tuple[str, Claim]] = []
    for backend in backends:
        claims = _claims(backend)
        both = ((claim, name) for claim in claims for name, other in known if claim.clashes(other))
        for claim, name in islice(both, 1):
            found = f"uses {claim}, as the backend {name!r} does: each would disturb the other."
            yield Problem(f"{place}backends.{backend.name}", found, "Give each its own.")
        known += [(backend.name, claim) for claim in claims]


def _claims(backend: Backend) -> Collection[Claim]:
    try:
        # Only those are made that can be asked: others might start processes in their constructor.
        if not hasattr(import_executor_class(backend.settings), "claims"):
            return ()
        with bounded_executor(backend.name):
            executor: Any = backend.executor
            return executor.claims() or () if isinstance(executor, Claims) else ()
    except Exception:
        return ()


def _core_options(settings: BackendSettings) -> dict[str, Any]:
    """``[core]`` as the backend sees it: some executors read their parallelism from there."""
    given = {key.lower(): value for key, value in settings.config.get("core", {}).items()}
    return {**given, "parallelism": settings.configured_slots}


def in_start_order(backends: Iterable[Backend]) -> list[Backend]:
    """Local executors first: they fork, and their children inherit what is open by then. Ending goes the
    other way round: the remote ones first, since a local one waits for its tasks."""

    def remote(backend: Backend) -> bool:
        try:
            executor: Any = backend.made or import_executor_class(backend.settings)
        except BackendUnavailable:
            return True
        return getattr(executor, "is_local", False) is not True

    return sorted(backends, key=remote)
