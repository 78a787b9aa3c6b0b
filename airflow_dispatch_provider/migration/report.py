# SPDX-License-Identifier: Apache-2.0
"""Everything that there is to say about a migration, as plain data and as text."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict, dataclass
from typing import Any

from airflow_dispatch_provider.migration.destinations import (
    Destination,
    destinations,
    destinations_there,
    names_to_keep,
    settings_there,
)
from airflow_dispatch_provider.migration.executors import Kind
from airflow_dispatch_provider.migration.facts import changes, slots_words, unknowns
from airflow_dispatch_provider.migration.findings import (
    TIMEOUT,
    Finding,
    Target,
    findings,
    not_for_update,
    not_judged,
    over_several_lines,
    queued_timeout,
)
from airflow_dispatch_provider.migration.ini import configuration, core_lines, timeout_lines
from airflow_dispatch_provider.migration.old import (
    DEFAULT_EXECUTOR,
    DEFAULT_PARALLELISM,
    KUBERNETES_QUEUE_SECTIONS,
    OldConfig,
)
from airflow_dispatch_provider.migration.plan import Plan, make_plan
from airflow_dispatch_provider.migration.uses import Scan, Unread

_SHOWN = (
    ("core", "executor"),
    ("core", "parallelism"),
    ("core", "multi_team"),
    ("operators", "default_queue"),
    ("celery", "default_queue"),
    ("celery_kubernetes_executor", "kubernetes_queue"),
    ("local_kubernetes_executor", "kubernetes_queue"),
)
"""The options whose values are read and shown. None of them is a secret."""

_DEFAULTS = {("core", "executor"): DEFAULT_EXECUTOR, ("core", "parallelism"): DEFAULT_PARALLELISM}


@dataclass(frozen=True)
class Report:
    """The answer of ``airflow dispatch migrate``."""

    airflow: str
    """The version that it is for."""

    read: dict[str, str]
    """Value by option, of those that the answer rests on."""

    source: str | None
    in_use: bool
    """Whether that file is the one that Airflow itself reads here."""

    ready: bool
    """The router is configured already: nothing is to be done."""

    beside: tuple[str, ...]
    """Executors that stand beside that router."""

    configuration: str | None
    """Lines for airflow.cfg; None where there is nothing to put in."""

    slots: str | None
    """Where the numbers of slots come from, in words."""

    variables: tuple[str, ...]
    """Environment variables that stand over these lines."""

    one_line: str | None
    """The same by a class alone, as lines for airflow.cfg."""

    by_name: str | None
    """``[core] executor`` with which Dags may go on saying ``executor=``."""

    by_name_lacks: tuple[str, ...]
    """Values of ``executor=`` in Dags that have to be changed even with that."""

    behind: str | None
    """The executor that stands before the router, which then is not the default one."""

    changes: tuple[str, ...]
    unknown: tuple[str, ...]
    options: tuple[Finding, ...]
    """Options to rename, to remove, or whose value to change."""

    update_ignores: tuple[str, ...]
    """Options that ``airflow config update`` has to leave alone."""

    update_breaks: tuple[str, ...]
    """Options whose lines have to become one before it, since it writes a file that cannot be read otherwise."""

    scanned: str | None
    """The places searched for Dags, in words; None: none was."""

    dags: tuple[Destination, ...]
    unread: tuple[Unread, ...]
    providers: tuple[str, ...]
    """The packages of Airflow that the backends need."""

    def data(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def make_report(
    old: OldConfig, scan: Scan | None, target: Target, missing: Set[str], in_use: bool = True
) -> Report:
    """
    :param scan: None: Dags were not looked at
    :param missing: import paths in values which the target does not have
    :param in_use: whether ``old`` was read from the file that Airflow itself reads here
    """
    uses = () if scan is None else scan.uses
    ready = any(entry.is_router for entry in old.entries)
    plan = make_plan(old, uses)
    timeout = queued_timeout(old.options, target)
    lines = [] if ready else [configuration(plan)]
    if timeout is not None:
        lines.append(timeout_lines(timeout))
    return Report(
        airflow=target.version,
        read=_read(old),
        source=old.source,
        in_use=in_use,
        ready=ready,
        beside=tuple(entry.path for entry in old.entries if ready and not entry.is_router),
        configuration="\n\n".join(lines) or None,
        slots=None if ready else slots_words(old),
        variables=_variables(old, ready, timeout),
        one_line=None if ready or plan.one_line is None else core_lines(plan.one_line, plan.parallelism),
        by_name=None if ready else _by_name(plan, scan),
        by_name_lacks=() if ready else _without_name(plan, scan),
        behind=None if not ready or old.entries[0].is_router else old.entries[0].path,
        changes=() if ready else changes(old, plan, scan, target.not_used),
        unknown=(*(() if ready else unknowns(old, plan, scan)), *not_judged(old.options, target)),
        options=findings(old.options, target, missing),
        update_ignores=not_for_update(old.options, target),
        update_breaks=over_several_lines(old.options),
        scanned=None if scan is None else scan.source,
        dags=_destinations(old, plan, scan, ready),
        unread=() if scan is None else scan.unread,
        providers=_providers(plan),
    )


def _destinations(old: OldConfig, plan: Plan, scan: Scan | None, ready: bool) -> tuple[Destination, ...]:
    if scan is None:
        return ()
    own = any(option.section == "dispatch" for option in old.options.values())
    if ready and (own or Kind.ROUTER in old.kinds):
        return destinations_there(settings_there(old), scan.uses)
    return destinations(plan, old, scan.uses)


def _read(old: OldConfig) -> dict[str, str]:
    """Options that the plan rests on, the defaults of two options included, the queues of other hybrids left out."""
    others = {section for kind, section in KUBERNETES_QUEUE_SECTIONS.items() if kind not in old.kinds}
    found = {}
    for section, name in _SHOWN:
        option = old.options.get((section, name))
        if option is not None and section not in others:
            found[option.label] = option.value
        elif option is None and (section, name) in _DEFAULTS:
            found[f"[{section}] {name}"] = f"{_DEFAULTS[section, name]} (not set)"
    return found


def _variables(old: OldConfig, ready: bool, timeout: str | None) -> tuple[str, ...]:
    put_in = [] if ready else [("core", "executor"), ("core", "parallelism")]
    if timeout is not None:
        put_in.append(TIMEOUT)
    variables = (old.options[key].variable or "" for key in put_in if key in old.options)
    return tuple(name for name in variables if name.startswith("AIRFLOW__"))


def _by_name(plan: Plan, scan: Scan | None) -> str | None:
    kept = names_to_keep(plan, () if scan is None else scan.uses)
    nobody = scan is not None and not any(use.executor for use in scan.uses)
    if not kept or nobody or "=" in plan.executor:
        return None
    return ",\n    ".join([plan.executor, *(f"{name}:{path}" for name, path in kept.items())])


def _without_name(plan: Plan, scan: Scan | None) -> tuple[str, ...]:
    """Names that Dags have for executors, beside those that they may keep."""
    uses = () if scan is None else scan.uses
    kept = names_to_keep(plan, uses)
    said = {use.executor for use in uses if use.executor is not None}
    return tuple(sorted(said - kept.keys())) if kept else ()


def _providers(plan: Plan) -> tuple[str, ...]:
    kinds = {backend.kind for section in plan.sections for backend in section.backends}
    needed = {Kind.CELERY: "celery", Kind.KUBERNETES: "cncf-kubernetes"}
    return tuple(f"apache-airflow-providers-{name}" for kind, name in needed.items() if kind in kinds)
