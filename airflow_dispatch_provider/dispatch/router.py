# SPDX-License-Identifier: Apache-2.0
"""The router's state and what it does with it, apart from the surface that Airflow calls.

Workloads come in through ``hold``, wait in the hold queue, are given to backends by ``dispatch``, and leave the
ledger when ``collect`` meets their terminal event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from itertools import count, groupby
from typing import Any

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge import airflow_api, metrics
from airflow_dispatch_provider.bridge.executor_classes import is_terminal, session_for
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.bridge.workload import (
    for_backend,
    kind_of,
    priority_of,
    task_ref,
    token_lifetime,
    with_new_token,
)
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.dispatch.ledger import Ledger
from airflow_dispatch_provider.dispatch.observers import DispatchObserver, tell
from airflow_dispatch_provider.routing.decide import Decision, decide
from airflow_dispatch_provider.routing.hold import HoldQueue
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, Held, Snapshot, Target, TaskRef
from airflow_dispatch_provider.routing.routes import Match, RouteTable, ordered_targets
from airflow_dispatch_provider.settings.model import Settings

log = logging.getLogger(__name__)

REQUEUE_GRACE = 10.0
"""Seconds that a workload waits whose key is still in the ledger: a task that deferred may come back before the
end of its first half is seen. Airflow's ``RunningRetryAttemptType.MIN_SECONDS``."""


class Router:
    """Everything between ``queue_workload`` and the event buffer."""

    def __init__(
        self,
        settings: Settings,
        backends: dict[str, Backend],
        observers: Sequence[DispatchObserver],
        new_token_generator: Callable[[], Any],
    ) -> None:
        self.backends = backends
        self.holding = HoldQueue()
        self.ledger = Ledger()
        self._observers = observers
        self._new_token_generator = new_token_generator
        self._token_half_life = token_lifetime() / 2
        self._sequence = count()
        self._returning: dict[Hashable, Held] = {}
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Take over settings, the first or changed ones: everything held is routed anew."""
        self.settings = settings
        self._table = RouteTable(settings.routes, settings.default, settings.executors)
        for name, backend in self.backends.items():
            backend.use(settings.backends[name])
        for held in self.holding.clear():
            self._join(held)

    def __contains__(self, key: object) -> bool:
        return key in self.holding or key in self._returning or key in self.ledger

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Hashable]:
        """Keys of all workloads that the router answers for."""
        yield from self.holding
        yield from self._returning
        yield from self.ledger

    # Coming in

    def hold(self, key: Hashable, workload: Any, now: float, executor: str | None = None) -> None:
        """Accept a workload; nothing is decided yet.

        :param executor: see ``Held``
        """
        kind, number = kind_of(workload), next(self._sequence)
        held = Held(key, priority_of(workload), now, number, workload, kind, executor)
        if key in self.ledger:
            self._returning[key] = held
        else:
            self._join(held)

    def _join(self, held: Held) -> None:
        ref = task_ref(held.workload)._replace(executor=held.executor)
        match = self._table.match(ref)
        self.holding.add(held, match, self._targets(match, ref))

    def _targets(self, match: Match, ref: TaskRef) -> tuple[Target, ...]:
        """A callback or connection test may go to any backend after those of its route: most say no queue, and
        not every backend can run them."""
        targets = ordered_targets(match.route, ref.seed)
        if ref.kind == EXECUTE_TASK:
            return targets
        named = {target.backend for target in targets}
        return (*targets, *(Target(backend=name) for name in self.backends if name not in named))

    def _admit_returned(self, now: float) -> None:
        """Let those join that came back under a key which the ledger has released by now."""
        for key, held in list(self._returning.items()):
            if key not in self.ledger or now - held.since >= REQUEUE_GRACE:
                del self._returning[key]
                self._join(held)

    # Going out

    def dispatch(self, now: float) -> None:
        """Decide for everything held, and give what was decided to the backends."""
        if self._returning:
            self._admit_returned(now)
        if not self.holding:
            return
        decisions = decide(self.snapshot(now), self.holding.lanes)
        decisions.sort(key=_backend_of)
        for name, batch in groupby(decisions, key=_backend_of):
            self._give(self.backends[name], list(batch), now)

    def snapshot(self, now: float) -> Snapshot:
        views = {name: backend.view(now, self.ledger.load(name)) for name, backend in self.backends.items()}
        return Snapshot(now, views)

    def _give(self, backend: Backend, batch: Sequence[Decision], now: float) -> None:
        """Queue a batch in one backend; what it does not accept stays held."""
        accepted: list[Decision] = []

        def queue_all() -> bool:
            executor = backend.executor
            with session_for(executor) as session:
                for decision in batch:
                    workload = self._prepare(decision, executor, now)
                    queue = partial(_queue, executor, workload, session)
                    if not backend.call("queue_workload", now, queue, False):
                        break
                    accepted.append(decision)
            return True

        if not backend.call("queue_workload", now, queue_all, False):
            accepted.clear()
        for decision in accepted:
            self._record(decision, backend)
        for decision in batch[len(accepted) :][:1]:
            self._to_the_back(decision.held)
        if accepted:
            tell(self._observers, accepted)

    def _prepare(self, decision: Decision, executor: BaseExecutor, now: float) -> Any:
        workload = for_backend(decision.held.workload, executor, decision.target.queue)
        if now - decision.held.since >= self._token_half_life:
            workload = with_new_token(workload, self._new_token_generator())
        return workload

    def _record(self, decision: Decision, backend: Backend) -> None:
        held = decision.held
        self.holding.remove(held.key)
        self.ledger.add(held.key, backend.name, _child_key(backend.executor, held), held)

    def _to_the_back(self, held: Held) -> None:
        """One that a backend refused is tried after its equals, lest it stands in their way for ever."""
        self.holding.remove(held.key)
        self._join(replace(held, sequence=next(self._sequence)))

    # Coming back

    def beat(self, backend: Backend, now: float) -> None:
        """Run one backend's heartbeat and take back what it could not send."""
        for workload in backend.heartbeat(now):
            key = self.ledger.key_of(backend.name, airflow_api.workload_key(backend.executor, workload))
            entry = self.ledger.drop(key)
            if entry is not None and entry.held is not None:
                self._join(entry.held)

    def collect(self, backend: Backend, now: float, buffer: dict[Any, Any]) -> None:
        """Move a backend's events into the router's buffer, as they are; a terminal one releases its slot.

        The buffer takes one event for a key at a time: what would replace a terminal one, which may be that of
        an earlier dispatch of the same key, stays where it is until the scheduler has taken that.
        """
        executor: Any = backend.executor
        if not executor.event_buffer and type(executor).get_event_buffer is BaseExecutor.get_event_buffer:
            return
        events: dict[Any, Any] = backend.call("get_event_buffer", now, executor.get_event_buffer, {})
        for child_key, value in events.items():
            key = self.ledger.key_of(backend.name, child_key)
            if self.ledger.was_revoked(backend.name, child_key):
                if is_terminal(value):
                    self.ledger.close_revoked(backend.name, child_key)
            elif key in buffer and is_terminal(buffer[key]):
                executor.event_buffer.setdefault(child_key, value)
            else:
                buffer[key] = value
                if is_terminal(value):
                    self.ledger.release(key)

    # Being asked

    @property
    def held(self) -> int:
        """How many workloads wait here."""
        return len(self.holding) + len(self._returning)

    def free_slots(self, now: float) -> int:
        """Slots that a new task could really get: free ones of each backend without those that are wanted by
        what is held for it.

        While tasks for backends that take none are in the way of tasks for these slots, as many more as may
        be held: Airflow queues tasks in priority order and cannot pass over those of a full backend.
        """
        room = self.settings.limits.max_held - self.held
        if room <= 0:
            return 0
        wanted, really_free, in_the_way = self.holding.by_first_choice, 0, False
        for name, backend in self.backends.items():
            view = backend.view(now, self.ledger.load(name))
            free = 0 if view.blocked else view.free
            held_for_it = wanted.get(name, 0)
            really_free += max(0, free - held_for_it)
            in_the_way = in_the_way or held_for_it > free
        return room if really_free and in_the_way else min(room, really_free)

    def runs(self, kind: str) -> bool:
        """Whether any backend can run that type of workload, be it usable now or not."""
        return any(kind in backend.view(0.0, 0).kinds for backend in self.backends.values())

    def held_before(self, time: float) -> list[Any]:
        """Ids of the task instances that have been held since before that time (monotonic seconds)."""
        waiting = (*self.holding.held, *self._returning.values())
        return [held.workload.ti.id for held in waiting if held.since < time and held.kind == EXECUTE_TASK]

    def candidates(self, queue: str, dag_id: str) -> Iterable[str]:
        """Backends that could have a task of that queue: local ones first, which can tell for sure, then those
        of its route, then the others."""
        match = self._table.match(TaskRef(queue, dag_id))
        on_route = [target.backend for target in match.route.to]

        def rank(name: str) -> tuple[bool, bool, int]:
            made = self.backends[name].made
            local = made is not None and made.is_local
            return (not local, name not in on_route, on_route.index(name) if name in on_route else 0)

        return sorted(self.backends, key=rank)

    def revoke(self, key: Hashable, ti: Any, now: float) -> None:
        """Take a task back, wherever it is. A backend that cannot revoke keeps its copy; whichever copy starts
        first, the Execution API refuses the other."""
        if self.holding.remove(key) or self._returning.pop(key, None):
            return
        entry = self.ledger.get(key)
        if entry is None:
            return
        backend = self.backends[entry.backend]
        self.ledger.revoke(key)

        def revoke() -> None:
            try:
                backend.executor.revoke_task(ti=ti)
            except NotImplementedError:
                airflow_api.forget_queued_key(backend.executor, entry.child_key)

        backend.call("revoke_task", now, revoke, None)

    def change_state(self, key: Hashable, state: Any, info: Any, remove_running: bool, now: float) -> bool:
        """Tell the backend that has it; False where none has, or where it cannot be told."""
        entry = self.ledger.get(key)
        if entry is None:
            return False
        backend, child_key = self.backends[entry.backend], entry.child_key

        def change() -> bool:
            executor: Any = backend.executor
            executor.change_state(child_key, state, info, remove_running)
            return True

        told = backend.call("change_state", now, change, False)
        if not told:
            self.ledger.drop(key)
        return told

    def fail_connection_test(self, key: Hashable, now: float) -> None:
        """Forget a connection test, here and in the backend that has it."""
        self.holding.remove(key)
        entry = self.ledger.drop(key)
        if entry is not None:
            backend, child_key = self.backends[entry.backend], entry.child_key
            executor: Any = backend.executor
            backend.call("fail_connection_test", now, lambda: executor.fail_connection_test(child_key), None)

    def emit_metrics(self, now: float) -> None:
        wanted = self.holding.by_first_choice
        for name, backend in self.backends.items():
            load = self.ledger.load(name)
            free = backend.view(now, load).free
            metrics.gauge_backend(name, open_slots=free, running=load, held=wanted.get(name, 0))


class AnsweredFor(AbstractSet[Hashable]):
    """Keys that Airflow takes for the executor's running ones: a view, which it cannot change."""

    def __init__(self, keys: Collection[Hashable]) -> None:
        self._keys = keys

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: Hashable) -> None:
        """Airflow 3.4 adds adopted tasks; those are in the ledger."""


def _queue(executor: Any, workload: Any, session: Any) -> bool:
    executor.queue_workload(workload, session)
    return True


def _child_key(executor: Any, held: Held) -> Hashable:
    """The backend's key for a workload: another than ours only where Airflow has two kinds of keys."""
    if AIRFLOW_V_3_4_PLUS and not executor.supports_task_instance_uuid:
        key: Hashable = airflow_api.workload_key(executor, held.workload)
        return key
    return held.key


def _backend_of(decision: Decision) -> str:
    return decision.target.backend
