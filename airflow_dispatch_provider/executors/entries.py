# SPDX-License-Identifier: Apache-2.0
"""Problems with the entries of ``[core] executor``, before Airflow takes them for executors or refuses them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import isabstract
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.executor_constants import CORE_EXECUTOR_NAMES
from airflow.executors.executor_loader import ExecutorLoader

from airflow_dispatch_provider.bridge.users_code import import_users_object
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.exceptions import Problem, TookTooLong
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from airflow_dispatch_provider.masking import kind_of, may_be_secret

PLACE = "[core] executor"

_OURS = "airflow_dispatch_provider.executors"
ROUTERS = tuple(
    f"{_OURS}.{module}.{name}"
    for module, name in (
        ("dispatch_executor", "DispatchExecutor"),
        ("celery_kubernetes_executor", "CeleryKubernetesExecutor"),
        ("local_kubernetes_executor", "LocalKubernetesExecutor"),
    )
)
_SHORT = {path.rpartition(".")[2]: path for path in ROUTERS}
"""Their names, which Airflow does not know (two of them it did, up to Airflow 2)."""


@dataclass(frozen=True)
class Entry:
    """One executor in the list."""

    text: str
    team: str | None
    """Everybody's: None."""

    @property
    def alias(self) -> str:
        return self.text.partition(":")[0].strip() if ":" in self.text else ""

    @property
    def path(self) -> str:
        """An import path, or the name of one of Airflow's own executors."""
        return self.text.rpartition(":")[2].strip()

    @property
    def class_path(self) -> str:
        """Its import path, of Airflow's own executors, too."""
        return ExecutorLoader.executors[self.path] if self.path in CORE_EXECUTOR_NAMES else self.path

    @property
    def name(self) -> str:
        """The name that Dags give in ``executor=``; Airflow's own executors have their name for an alias."""
        return self.alias or (self.path if self.path in CORE_EXECUTOR_NAMES else "")


def entries(text: str) -> list[Entry]:
    """``[core] executor`` taken apart: teams between semicolons, executors between commas."""
    found = []
    for part in text.split(";"):
        team, sign, names = part.rpartition("=")
        found += [Entry(name.strip(), team.strip() or None if sign else None) for name in names.split(",")]
    return found


def list_problems(text: str) -> Iterator[Problem]:
    """At most one for each entry; nothing about executors of others that can be imported."""
    listed = entries(text)
    for position, entry in enumerate(listed):
        problem = _alone(entry) or _among(entry, listed[:position])
        if problem is not None:
            yield problem


def _alone(entry: Entry) -> Problem | None:
    if not entry.path or entry.text.count(":") > 1:
        remedy = "Give names or import paths of executors, separated by single commas."
        return Problem(
            PLACE, f"has the entry {_shown(entry.text)}." if entry.text else "has an empty entry.", remedy
        )
    if entry.path in CORE_EXECUTOR_NAMES:
        if entry.alias and not AIRFLOW_V_3_2_PLUS:
            remedy = "Give the import path of the executor after the colon."
            return Problem(PLACE, f"lists {entry.text!r}: this Airflow takes no name after an alias.", remedy)
        return None
    wrong = _why_not(entry.path)
    return None if wrong is None else Problem(PLACE, f"lists {_shown(entry.path)}, {wrong[0]}.", wrong[1])


def _shown(text: str) -> str:
    """Quoted where it may be meant for names: anything else may be a URL with a password."""
    is_names = re.fullmatch(r"[\w.: -]*", text) and not may_be_secret(text)
    return repr(text) if is_names else "what can be no name"


def _among(entry: Entry, earlier: Sequence[Entry]) -> Problem | None:
    others = [other for other in earlier if other.team == entry.team]
    if any(other.class_path == entry.class_path for other in others):
        return Problem(PLACE, f"lists {entry.path!r} twice, which Airflow refuses.", "Remove one of the two.")
    if any(entry.name and other.name == entry.name for other in others):
        found = f"lists two executors as {entry.name!r}: a Dag that asks for it gets the last one."
        return Problem(PLACE, found, "Give each an alias of its own.")
    router = next((other.path for other in others if _is_router(other.path)), None)
    if router and _is_router(entry.path):
        found = f"lists two routers, {router!r} and {entry.path!r}: both would use all of [dispatch]."
        return Problem(PLACE, found, f"Remove {entry.path!r}.")
    return None


def _is_router(path: str) -> bool:
    return path in ROUTERS


def _why_not(path: str) -> tuple[str, str] | None:
    """Why there is no executor at this path, and a remedy; None: there is one."""
    try:
        found = _misnamed(path)
    except TookTooLong as error:
        return f"whose import {error.found}", error.remedy
    except Exception as error:
        # Its name is right: another one would be no remedy.
        remedy = f'See what fails: python -c "import {path.rpartition(".")[0]}".'
        return f"which fails as it is imported ({kind_of(error)})", remedy
    return None if found is None else (found, _suggestion(path))


def _misnamed(path: str) -> str | None:
    """Why a name or import path leads to no executor; raises what its module raises."""
    if "." not in path:
        return "which is no executor of Airflow's and no import path"
    try:
        found = _imported(path)
    except ImportError as error:
        return f"which cannot be imported ({type(error).__name__}{f': {error.name}' if error.name else ''})"
    if found is None:
        return "which cannot be imported (there is nothing of that name in its module)"
    if not (
        isinstance(found, type) and (issubclass(found, BaseExecutor) or hasattr(found, "queue_workload"))
    ):
        return "which is no executor"
    return "which is abstract: it cannot be made" if isabstract(found) else None


def _imported(path: str) -> Any:
    """The object at an import path, None where there is none. Raises what the module raises."""
    return import_users_object(path) if "." in path else None


def _meant(path: str) -> str | None:
    """The executor that a wrong name or import path stands for."""
    known = {
        **_SHORT,
        **dict(zip(ROUTERS, ROUTERS, strict=True)),
        **{name: name for name in CORE_EXECUTOR_NAMES},
    }
    name = path.rpartition(".")[2]
    close = get_close_matches(path, known, n=1, cutoff=0.75) or get_close_matches(
        name, _SHORT, n=1, cutoff=0.75
    )
    if close:
        return known[close[0]]
    return ROUTERS[0] if path.startswith(f"{_OURS}.") else None


def router_meant(text: str, team: str | None) -> str | None:
    """The import path of the router that a wrong entry stands for."""
    wrong = (entry.path for entry in entries(text) if entry.team == team and _alone(entry))
    return next((meant for path in wrong if (meant := _meant(path)) in ROUTERS), None)


def _suggestion(path: str) -> str:
    if meant := _meant(path):
        return f"Did you mean {meant!r}?"
    return f"Correct it, install what it is in, or give {ROUTERS[0]!r}."


def is_router_configured(text: str) -> bool:
    """Whether one of our routers, or a subclass of one, is listed."""
    return any(_is_router(entry.path) or _is_subclass(entry.path) for entry in entries(text))


def _is_subclass(path: str) -> bool:
    try:
        found = _imported(path)
    except Exception:
        return False
    return isinstance(found, type) and issubclass(found, DispatchExecutor)
