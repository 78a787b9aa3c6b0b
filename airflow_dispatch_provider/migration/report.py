# SPDX-License-Identifier: Apache-2.0
"""Everything that there is to say about a migration, as plain data and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

from airflow_dispatch_provider.bridge.installed import requirements_of
from airflow_dispatch_provider.migration.destinations import Destination, destinations, names_to_keep
from airflow_dispatch_provider.migration.executors import HYBRIDS, Kind
from airflow_dispatch_provider.migration.facts import changes, slots_words, unknowns
from airflow_dispatch_provider.migration.findings import (
    TIMEOUT,
    Finding,
    Target,
    findings,
    named_providers,
    not_judged,
    queued_timeout,
)
from airflow_dispatch_provider.migration.images import image_findings
from airflow_dispatch_provider.migration.ini import class_lines, configuration, timeout_lines
from airflow_dispatch_provider.migration.old import DEFAULT_EXECUTOR, DEFAULT_PARALLELISM, OldConfig
from airflow_dispatch_provider.migration.options import Options
from airflow_dispatch_provider.migration.plan import Plan, make_plan
from airflow_dispatch_provider.migration.uses import Scan, Unread

_SHOWN = (
    ("core", "executor"),
    ("core", "parallelism"),
    ("core", "multi_team"),
    ("operators", "default_queue"),
    ("celery", "default_queue"),
    *((hybrid.section, "kubernetes_queue") for hybrid in HYBRIDS.values()),
)
"""The options whose values are read and shown. None of them is a secret."""

_EXTRAS = {Kind.CELERY: "celery", Kind.KUBERNETES: "cncf-kubernetes"}

_SECTIONS = {Kind.CELERY: "celery", Kind.KUBERNETES: "kubernetes"}
"""How the sections begin that only the executor of a kind, and its workers, read."""

_DEFAULTS = {("core", "executor"): DEFAULT_EXECUTOR, ("core", "parallelism"): DEFAULT_PARALLELISM}


@dataclass(frozen=True)
class Report:
    """The answer of ``airflow dispatch migrate``."""

    airflow: str
    """The version that it is for."""

    read: dict[str, str]
    """Value by option, of those that the answer rests on."""

    source: str | None
    ready: bool
    """The router is configured already: nothing is to be done but for the options."""

    configuration: str | None
    """Lines for airflow.cfg; None where there is nothing to put in."""

    slots: str | None
    """Where the numbers of slots come from, in words."""

    variables: tuple[str, ...]
    """Environment variables that stand over these lines."""

    one_class: str | None
    """The same with a class in place of the router, as lines for airflow.cfg."""

    by_name: str | None
    """``[core] executor`` with which Dags may go on saying ``executor=``."""

    by_name_lacks: tuple[str, ...]
    """Values of ``executor=`` in Dags that have to be changed even with that."""

    changes: tuple[str, ...]
    unknown: tuple[str, ...]
    options: tuple[Finding, ...]
    """Options to rename, to remove, or whose value to change."""

    scanned: str | None
    """The places searched for Dags, in words; None: none was."""

    dags: tuple[Destination, ...]
    unread: tuple[Unread, ...]
    requirements: tuple[str, ...]
    """Packages, with their bounds, that the backends and the values of options need."""


def make_report(
    old: OldConfig, scan: Scan | None, target: Target, missing: Set[str], template: str = ""
) -> Report:
    """
    :param scan: None: Dags were not looked at
    :param missing: import paths in values which the target does not have
    :param template: see ``image_findings``
    """
    uses = () if scan is None else scan.uses
    ready = any(entry.is_router for entry in old.entries)
    plan = make_plan(old, uses)
    target = _for_backends_of(plan, target)
    timeout = queued_timeout(old.options, target)
    more = () if timeout is None else (timeout_lines(timeout),)
    by_class = None if ready else class_lines(plan, old)
    kept = {} if ready else names_to_keep(plan, uses)
    said = {use.executor for use in uses if use.executor is not None}
    return Report(
        airflow=target.version,
        read=_read(old),
        source=old.source,
        ready=ready,
        configuration="\n\n".join([*([] if ready else [configuration(plan)]), *more]) or None,
        slots=None if ready else slots_words(old),
        variables=_variables(old, ready, plan.parallelism, timeout),
        one_class=None if by_class is None else "\n\n".join([by_class, *more]),
        by_name=_by_name(plan, kept) if kept and (said or scan is None) else None,
        by_name_lacks=tuple(sorted(said - kept.keys())) if kept else (),
        changes=() if ready else changes(old, plan, scan),
        unknown=(*(() if ready else unknowns(old, plan, scan)), *not_judged(old.options, target)),
        options=(
            *findings(old.options, target, missing, old.overridden),
            *image_findings(old.options, template, target.version),
            *_routed_queues(old),
        ),
        scanned=None if scan is None else scan.source,
        dags=() if ready or scan is None else destinations(plan, old, scan.uses),
        unread=() if ready or scan is None else scan.unread,
        requirements=_requirements(plan, old.options, target),
    )


def _for_backends_of(plan: Plan, target: Target) -> Target:
    """Another executor that is kept by its path may still use what a backend of this package does not."""
    sections = tuple(name for kind, name in _SECTIONS.items() if kind in plan.kinds)
    not_used = {key: why for key, why in target.not_used.items() if key[0].startswith(sections)}
    return replace(target, not_used=not_used)


def _read(old: OldConfig) -> dict[str, str]:
    """Options that the plan rests on, the defaults of two options included, the queues of other hybrids left out."""
    others = {hybrid.section for kind, hybrid in HYBRIDS.items() if kind not in old.kinds}
    found = {}
    for section, name in _SHOWN:
        option = old.options.get((section, name))
        if option is not None and section not in others:
            found[option.label] = option.value
        elif option is None and (section, name) in _DEFAULTS:
            found[f"[{section}] {name}"] = f"{_DEFAULTS[section, name]} (not set)"
    return found


def _routed_queues(old: OldConfig) -> Iterator[Finding]:
    """``kubernetes_queue`` of hybrids that are two backends now."""
    hybrids = {entry.kind for entry in old.entries if entry.kind.hybrid and not entry.ours}
    keys = {(HYBRIDS[kind].section, "kubernetes_queue") for kind in hybrids}
    why = "a route says it now" + "; the lines with the other class have it, too" * (not old.several)
    for option in (*old.options.values(), *old.overridden):
        if option.key in keys:
            yield Finding(option.label, "remove", None, why)


def _variables(old: OldConfig, ready: bool, parallelism: int, timeout: str | None) -> tuple[str, ...]:
    """Those whose value is another one than that of the lines to put in."""
    put_in = {} if ready else {("core", "executor"): None, ("core", "parallelism"): f"{parallelism}"}
    new = {**put_in, **({} if timeout is None else {TIMEOUT: timeout})}
    options = (
        old.options[key]
        for key, value in new.items()
        if key in old.options and old.options[key].value != value
    )
    return tuple(option.label for option in options if (option.variable or "").startswith("AIRFLOW__"))


def _by_name(plan: Plan, kept: Mapping[str, str]) -> str | None:
    """None with several teams, each of which has a list of its own."""
    if "=" in plan.executor:
        return None
    return ",\n    ".join([plan.executor, *(f"{name}:{path}" for name, path in kept.items())])


def _requirements(plan: Plan, options: Options, target: Target) -> tuple[str, ...]:
    kinds = plan.kinds
    bounded = [text for kind, extra in _EXTRAS.items() if kind in kinds for text in requirements_of(extra)]
    # An executor that is kept by its path may be a subclass of Airflow's.
    others = kinds & {Kind.OTHER, Kind.ROUTER}
    unread = () if others else tuple(name for kind, name in _SECTIONS.items() if kind not in kinds)
    said = {
        key: option
        for key, option in options.items()
        if not option.section.startswith(unread) and not target.is_default(option)
    }
    more = (name for name in named_providers(said) if not any(text.startswith(name) for text in bounded))
    return (*dict.fromkeys(bounded), *more)
