# SPDX-License-Identifier: Apache-2.0
"""From a pydantic validation error to problems that a person can act on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.masking import may_be_secret

REMEDIES: Mapping[str, str] = {
    "backends": 'Give an object of backends by name, e.g. {"local": {"executor": "LocalExecutor", "slots": 8}}.',
    "backend": 'Give the name of one of the backends, e.g. "BACKEND".',
    "executor": "Give LocalExecutor, CeleryExecutor, KubernetesExecutor or the import path of an executor.",
    "slots": "Give a whole number from 1 to 1000000, e.g. 16.",
    "slots of workers": 'Give a whole number from 1 to 1000000, e.g. 16, or "workers".',
    "fallback_slots": "Give a whole number from 0 to 1000000, e.g. 16.",
    "cordoned": "Give true or false.",
    "config": 'Give an object of sections with options, e.g. {"celery": {"broker_url": "redis://broker:6379/0"}}.',
    "routes": 'Give a list of routes, e.g. [{"queue": "gpu", "to": ["BACKEND"]}].',
    "route": 'Give an object, e.g. {"queue": "gpu", "to": ["BACKEND"]}.',
    "queue": 'Give a queue name or a glob in quotes, e.g. "gpu-*".',
    "dag_id": 'Give a dag_id or a glob in quotes, e.g. "billing_*".',
    "to": 'Give a list of at least one backend, best first, e.g. ["BACKEND"].',
    "weight": "Give a whole number from 0 to 1000000, e.g. 80.",
    "overflow_after": 'Give seconds, e.g. 30, or "never".',
    "default": 'Give the name of one of the backends, e.g. "BACKEND".',
    "max_held": "Give a whole number of 1 or more, e.g. 10000.",
    "retry_min_delay": "Give seconds above 0, e.g. 1.",
    "retry_max_delay": "Give seconds above 0, e.g. 60.",
    "waits_event_after": "Give seconds, or 0 for no entries, e.g. 300.",
    "on_refused_file": "Give stop or last_good, e.g. stop.",
    "local_ahead": "Give a whole number from 0 to 1000000, e.g. 64.",
    "local_preload": "Give names of modules, separated by commas, e.g. airflow.sdk.",
    "local_template": "Give fork or exec, e.g. fork.",
    "local_warm_dags": "Give a whole number from 0 to 1000000, e.g. 8.",
    "celery_warm_dags": "Give a whole number from 0 to 1000000, e.g. 8.",
    "celery_max_unsent": "Give a whole number from 1 to 1000000, e.g. 250.",
    "kubernetes_max_unsent": "Give a whole number from 1 to 1000000, e.g. 250.",
    "kubernetes_concurrency": "Give a whole number from 1 to 1000000, e.g. 32.",
    "launch_retries": "Give a whole number from 0 to 1000000, e.g. 10.",
}
"""Remedies for a wrong value, by the key that it stands under. ``BACKEND`` is one that is configured."""

_CONFIG_REMEDIES = {
    1: REMEDIES["config"],
    2: 'Give an object of options, e.g. {"broker_url": "redis://broker:6379/0"}.',
    3: "Give text, a number, true or false.",
}
"""By the number of steps to the value."""

_JSON_AS_TEXT = "Give text, a number, true or false; where the option takes JSON, the JSON as text in quotes."

_MOST_NAMES = 20
_MOST_COMPARED = 200

TARGET_KEYS = ("backend", "queue", "weight")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")

_MISSING_TYPES = {"missing", "missing_argument"}
_UNKNOWN_TYPES = {"extra_forbidden", "unexpected_keyword_argument"}
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}

Steps = Sequence[str | int]
"""The way to a spot in nested data: keys of objects, positions in lists."""


def remedy_for(key: str, names: Sequence[str]) -> str:
    """The remedy for a value.

    :param names: the backends that are configured; where there is none, no example names one
    """
    text = REMEDIES[key]
    if "BACKEND" not in text:
        return text
    name = next((name for name in names if name), None)
    return text.replace("BACKEND", name) if name else text.partition(", e.g.")[0] + "."


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known word that a misspelt one is taken for."""
    return next(iter(get_close_matches(word, known[:_MOST_COMPARED], n=1)), None)


def suggest(word: str, known: Sequence[str]) -> str:
    """A closing sentence that offers what exists."""
    close = closest(word, known)
    if close is not None:
        return f"Did you mean {close!r}?"
    more = ", ..." if len(known) > _MOST_NAMES else ""
    return f"Known: {', '.join(map(repr, known[:_MOST_NAMES]))}{more}." if known else ""


def show(value: Any) -> str:
    """A value as it is quoted in a message: short, its kind alone where it has parts, and never a URL, which
    may hold a password."""
    if isinstance(value, (dict, list)):
        return _KINDS[type(value)] if value else f"an empty {_KINDS[type(value)].split()[-1]}"
    if isinstance(value, str) and "://" in value:
        return "a URL"
    if isinstance(value, str) and may_be_secret(value):
        return "text that may be a secret"
    text = json.dumps(value, default=str, ensure_ascii=False).encode(errors="backslashreplace").decode()
    return text if len(text) <= 60 else text[:56] + "..." + text[-1]


def path(steps: Steps, start: str = "") -> str:
    """``("routes", 2, "to")`` as ``routes[2].to``, after ``start``."""
    text = start
    for step in steps:
        if isinstance(step, str) and _PLAIN_KEY.fullmatch(step):
            text += step if text.endswith(" ") or not text else f".{step}"
        else:
            text += f"[{show(step)}]"
    return text


def is_inside(where: str, outer: str) -> bool:
    """Whether a place is part of another."""
    return where.startswith((f"{outer}.", f"{outer}["))


def from_pydantic(
    error: ValidationError, value: Any, place: str, key: str, fields: Sequence[str], names: Sequence[str]
) -> list[Problem]:
    """One problem for each wrong spot in ``value``, which was found at ``place``.

    :param key: the key that the value stands under, for the remedy
    :param fields: the keys that are allowed in ``value``
    :param names: of the backends
    """
    problems: dict[str, Problem] = {}
    misspelt = set()
    for detail in error.errors(include_url=False):
        steps, rest = _walk(value, detail["loc"])
        if detail["type"] in _MISSING_TYPES | _UNKNOWN_TYPES and rest:
            steps.append(rest[-1])
        where = path(steps, place)
        if detail["type"] in _UNKNOWN_TYPES:
            known = fields if len(steps) == 1 else TARGET_KEYS
            problem = Problem(where, "is not a known key.", suggest(str(steps[-1]), known))
            misspelt.add(path([*steps[:-1], closest(str(steps[-1]), known) or ""], place))
        else:
            missing = detail["type"] in _MISSING_TYPES
            problem = Problem(where, *_found_and_remedy(missing, steps, value, key, names))
        problems.setdefault(where, problem)
    return [each for each in problems.values() if each.where not in misspelt or each.found != "is missing."]


def _found_and_remedy(
    missing: bool, steps: Steps, value: Any, key: str, names: Sequence[str]
) -> tuple[str, str]:
    found = None if missing else _get(value, steps)
    if steps[:1] == ["config"] and not missing:
        is_json = len(steps) == 3 and isinstance(found, (dict, list))
        return f"found {_KINDS[type(found)]}.", _JSON_AS_TEXT if is_json else _CONFIG_REMEDIES[len(steps)]
    counts_workers = steps == ["slots"] and "Celery" in str(value.get("executor"))
    cure = REMEDIES["slots of workers"] if counts_workers else _remedy(steps, key, names)
    if (
        isinstance(found, str)
        and _NUMBER.fullmatch(found)
        and cure.startswith(("Give a whole", "Give seconds"))
    ):
        how = "in digits alone (YAML takes 1e9 for text)" if "e" in found.lower() else "without quotes"
        cure = cure.replace(", e.g.", f", {how}, e.g.", 1)
    return "is missing." if missing else f"found {show(found)}.", cure


def _remedy(steps: Steps, key: str, names: Sequence[str]) -> str:
    last = steps[-1] if steps else key
    if isinstance(last, int):
        return remedy_for("backend", names)
    if last == "queue" and (len(steps) > 1 or key == "default"):
        return 'Give the exact name of a queue in quotes, e.g. "gpu".'
    return remedy_for(last, names)


def _walk(value: Any, loc: Steps) -> tuple[list[str | int], list[str | int]]:
    """Split a location into the steps that exist in the value and the rest, without pydantic's union tags."""
    steps: list[str | int] = []
    rest: list[str | int] = []
    for step in loc:
        if not rest and _leads_on(value, steps) and _has(value, step):
            steps.append(step)
            value = value[step]
        else:
            rest.append(step)
    return steps, rest


def _leads_on(value: Any, steps: Steps) -> bool:
    """Whether the schema has parts here. An object where text belongs may have a union's tag as a key."""
    if not steps or isinstance(value, list) or steps[0] == "config":
        return len(steps) < 3
    return isinstance(steps[-1], int)


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _get(value: Any, steps: Steps) -> Any:
    for step in steps:
        value = value[step]
    return value
