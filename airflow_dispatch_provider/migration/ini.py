# SPDX-License-Identifier: Apache-2.0
"""The plan as lines of an airflow.cfg."""

from __future__ import annotations

import json
from typing import Any

from airflow_dispatch_provider.migration.executors import HYBRIDS
from airflow_dispatch_provider.migration.old import OldConfig
from airflow_dispatch_provider.migration.plan import Plan, Section


def configuration(plan: Plan) -> str:
    """Lines to put into airflow.cfg."""
    return "\n\n".join([core_lines(plan.executor, plan.parallelism), *map(_section_lines, plan.sections)])


def core_lines(executor: str, parallelism: int) -> str:
    """``[core]`` alone."""
    return f"[core]\nexecutor = {executor}\nparallelism = {parallelism}"


def class_lines(plan: Plan, old: OldConfig) -> str | None:
    """The same with a class of this package that stands for the old executor; None: there is none. Those that bring two
    backends along give each as many slots as ``parallelism``, and read ``kubernetes_queue``."""
    if plan.one_class is None:
        return None
    lines = core_lines(plan.one_class, plan.parallelism)
    kind = old.entries[0].kind
    if (hybrid := HYBRIDS.get(kind)) is None:
        return lines
    slots = _object({backend.name: {"slots": backend.slots} for backend in plan.main.backends})
    queue = old.queues[kind].replace("%", "%%")
    sections = _lines("dispatch", {"backends": slots}), _lines(hybrid.section, {"kubernetes_queue": queue})
    return "\n\n".join([lines, *sections])


def timeout_lines(seconds: str) -> str:
    """``[scheduler]`` alone."""
    return f"[scheduler]\ntask_queued_timeout = {seconds}"


def _section_lines(section: Section) -> str:
    options = {
        "backends": _object({backend.name: backend.config() for backend in section.backends}),
        **({"routes": _list(section.routes)} if section.routes else {}),
        "default": section.default,
    }
    return _lines("dispatch" if section.team is None else f"{section.team}=dispatch", options)


def _lines(section: str, options: dict[str, str]) -> str:
    lines = (
        f"{option} = " + text.replace("\n", "\n" + " " * (len(option) + 3))
        for option, text in options.items()
    )
    return "\n".join([f"[{section}]", *lines])


def _object(items: dict[str, Any]) -> str:
    return "{" + ",\n ".join(f"{_json(name)}: {_json(value)}" for name, value in items.items()) + "}"


def _list(items: tuple[dict[str, Any], ...]) -> str:
    return "[" + ",\n ".join(map(_json, items)) + "]"


def _json(value: Any) -> str:
    """JSON without the two signs that mean something in an airflow.cfg before JSON is read."""
    return json.dumps(value, ensure_ascii=False).replace("%", "\\u0025").replace("$", "\\u0024")
