# SPDX-License-Identifier: Apache-2.0
"""Where a task would go: as configured, and as the backends are now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from airflow_dispatch_provider.dispatch.rules import route_table
from airflow_dispatch_provider.operate.explanation import Explanation, TargetExplanation, explain
from airflow_dispatch_provider.operate.inspection import ConfiguredBackend, inspect
from airflow_dispatch_provider.operate.model import BackendState, BackendStatus, Status
from airflow_dispatch_provider.operate.trying import Choice, Explained, ExplainedTarget, TargetUse
from airflow_dispatch_provider.routing.decide import choose
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, BackendView, Target, TaskRef
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.settings.model import Settings

_BLOCKED = {
    BackendState.CORDONED: Reason.CORDONED,
    BackendState.DRAINED: Reason.CORDONED,
    BackendState.DRAINING: Reason.CORDONED,
    BackendState.REMOVED: Reason.UNKNOWN_BACKEND,
    BackendState.FAILING: Reason.CIRCUIT_OPEN,
}
"""Why a backend in this state takes no work."""


def explain_now(settings: Settings, ref: TaskRef, status: Status, team: str | None = None) -> Explained:
    """
    :param ref: an empty seed stands for "any task of this queue"
    :param status: from which the backends of this team are taken
    """
    table = route_table(settings)
    named = {target.backend for target in table.match(ref).route.to}
    configured = {each.name: each for each in inspect(settings, named)}
    found = explain(table, ref, {name: each.view for name, each in configured.items()})
    live = {each.name: each for each in status.backends if each.team == team and each.name in named}
    missing = sorted(named - live.keys())
    return Explained(
        queue=ref.queue,
        dag_id=ref.dag_id or None,
        route=found.match.name,
        why=found.why,
        overflow_after=found.match.route.overflow_after,
        targets=[_target(each, ref, configured, live) for each in found.targets],
        configured=_choice(found.choice, found.reason, ref),
        now=None if missing else _now(found, ref, configured, live),
        problem=status.problem or (f"No scheduler tells of {', '.join(missing)}." if missing else None),
    )


def _now(
    found: Explanation,
    ref: TaskRef,
    configured: Mapping[str, ConfiguredBackend],
    live: Mapping[str, BackendStatus],
) -> Choice | None:
    """The decision about a task that comes in this moment, with no other before it."""
    if found.reason is None:
        return None
    views = {name: _view(each, configured[name]) for name, each in live.items()}
    order = [each.target for each in found.targets]
    free = {name: view.free for name, view in views.items()}
    choice, reason = choose(order, EXECUTE_TASK, 0.0, found.match.route.patience, views, free)
    return _choice(choice, reason, ref)


def _view(live: BackendStatus, configured: ConfiguredBackend) -> BackendView:
    """An order that its schedulers have not followed yet counts: they do within seconds."""
    view = configured.view
    ordered = view.blocked if live.order is None else Reason.CORDONED
    return replace(view, free=max(0, live.free), blocked=_BLOCKED.get(live.state, ordered))


def _target(
    found: TargetExplanation,
    ref: TaskRef,
    configured: Mapping[str, ConfiguredBackend],
    live: Mapping[str, BackendStatus],
) -> ExplainedTarget:
    name = found.target.backend
    now, missing = live.get(name), configured[name].missing
    return ExplainedTarget(
        backend=name,
        queue=found.target.queue or ref.queue,
        share=found.share,
        blocked=None if found.blocked is None else str(found.blocked),
        problem=None if missing is None else f"{missing} {configured[name].remedy}",
        uses=[TargetUse(use.reason.value, use.reason.words, use.after) for use in found.uses],
        state=now.state if now else None,
        slots=now.slots if now else None,
        used=now.used if now else None,
        free=now.free if now else None,
        held=now.held if now else None,
        trouble=_trouble(now) if now else None,
    )


def _trouble(now: BackendStatus) -> str | None:
    """A backend that has other trouble says that, too."""
    ordered = now.order.words if now.order is not None else None
    return " ".join(filter(None, (now.trouble, ordered))) or None


def _choice(target: Target | None, reason: Reason | None, ref: TaskRef) -> Choice | None:
    if reason is None:
        return None
    if target is None:
        return Choice(None, None, reason.value, reason.words)
    return Choice(target.backend, target.queue or ref.queue, reason.value, reason.words)
