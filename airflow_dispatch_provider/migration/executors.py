# SPDX-License-Identifier: Apache-2.0
"""Executors that ``[core] executor`` names, in every form that Airflow 2 and 3 know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum

from airflow_dispatch_provider.exceptions import MigrationError
from airflow_dispatch_provider.settings.presets import CELERY_KUBERNETES, LOCAL_KUBERNETES

OURS = "airflow_dispatch_provider.executors"
ROUTER = f"{OURS}.dispatch_executor.DispatchExecutor"

_OF_AIRFLOW_ITSELF = ("airflow.executors.", "airflow.contrib.executors.")
_OF_AIRFLOW = (
    *_OF_AIRFLOW_ITSELF,
    "airflow.providers.celery.executors.",
    "airflow.providers.cncf.kubernetes.executors.",
)


class Kind(Enum):
    """The kind of an executor to the router; the value is its class name."""

    LOCAL = "LocalExecutor"
    CELERY = "CeleryExecutor"
    KUBERNETES = "KubernetesExecutor"
    SEQUENTIAL = "SequentialExecutor"
    DEBUG = "DebugExecutor"
    CELERY_KUBERNETES = "CeleryKubernetesExecutor"
    LOCAL_KUBERNETES = "LocalKubernetesExecutor"
    ROUTER = "DispatchExecutor"
    OTHER = ""
    """Somebody else's class: it becomes a backend by its path."""

    @property
    def hybrid(self) -> bool:
        return self in HYBRIDS

    @property
    def one_at_a_time(self) -> bool:
        """Gone in Airflow 3; ran one task at a time."""
        return self in (Kind.SEQUENTIAL, Kind.DEBUG)


HYBRIDS = {Kind.CELERY_KUBERNETES: CELERY_KUBERNETES, Kind.LOCAL_KUBERNETES: LOCAL_KUBERNETES}
"""As the ready-made routers have them."""

_KINDS = {kind.value: kind for kind in Kind if kind.value}


@dataclass(frozen=True)
class Entry:
    """One executor in ``[core] executor``."""

    kind: Kind
    path: str
    """As written: a name that Airflow knows, or an import path."""

    alias: str | None = None
    team: str | None = None

    @property
    def class_name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def ours(self) -> bool:
        return self.path.startswith(f"{OURS}.")

    @property
    def is_router(self) -> bool:
        """Whether it is a class of this package that routes: there is nothing to migrate then."""
        return self.kind is Kind.ROUTER or (self.kind.hybrid and self.ours)

    @property
    def names(self) -> frozenset[str]:
        """Names by which ``executor=`` in a Dag may call it."""
        # Airflow takes the import path of a short name, too.
        module = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.class_name).lower()
        paths = [] if "." in self.path else [f"{start}{module}.{self.class_name}" for start in _OF_AIRFLOW]
        return frozenset(name for name in (self.alias, self.path, self.class_name, *paths) if name)


def read_entries(text: str, multi_team: bool) -> tuple[Entry, ...]:
    """The executors in their order, those without a team first; raises MigrationError.

    Airflow ignores the lists of teams unless ``multi_team`` is on, and so does this.
    """
    found: list[Entry] = []
    for part in text.split(";"):
        before, equals, after = part.partition("=")
        team = before.strip() or None if equals else None
        if team is None or multi_team:
            found += _entries(after if equals else part, team)
    if not any(entry.team is None for entry in found):
        raise MigrationError(
            f"[core] executor names no executor that is not a team's: found {text!r}. Put one first."
        )
    return tuple(found)


def _entries(text: str, team: str | None) -> Iterator[Entry]:
    for name in filter(None, map(str.strip, text.split(","))):
        alias, colon, path = name.rpartition(":")
        if (colon and not alias) or not path:
            raise MigrationError(f"[core] executor: found {name!r}. Write NAME:import.path, or no colon.")
        yield Entry(_kind(path), path, alias or None, team)


def _kind(path: str) -> Kind:
    module, dot, class_name = path.rpartition(".")
    if dot and not all(map(str.isidentifier, path.split("."))):
        raise MigrationError(f"[core] executor: found {path!r}, which is no import path. Correct it.")
    known = _KINDS.get(class_name)
    if known is None and (not dot or path.startswith(_OF_AIRFLOW_ITSELF)):
        close = "".join(
            f" Did you mean {name!r}?" for name in get_close_matches(path, _KINDS, n=1, cutoff=0.85)
        )
        raise MigrationError(
            f"[core] executor: found {path!r}, which Airflow 3 does not have.{close} Give the import path of a class,"
            " with --executor if the file is to stay as it is."
        )
    if known is None:
        return Kind.OTHER
    routes = known.hybrid or known is Kind.ROUTER
    return known if not dot or routes or f"{module}.".startswith((f"{OURS}.", *_OF_AIRFLOW)) else Kind.OTHER


def backend_name(entry: Entry) -> str:
    """A name for the backend that an executor of somebody else becomes, or one with an alias: ``AwsEcsExecutor`` as
    ``aws-ecs``."""
    words = (
        entry.alias
        or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", entry.class_name.removesuffix("Executor")).lower()
    )
    return re.sub(r"[^A-Za-z0-9_-]+", "-", words).strip("-_")[:60] or "backend"
