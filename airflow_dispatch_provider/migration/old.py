# SPDX-License-Identifier: Apache-2.0
"""Executors of a configuration without the router, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from airflow_dispatch_provider.exceptions import MigrationError
from airflow_dispatch_provider.migration.executors import HYBRIDS, Entry, Kind, read_entries
from airflow_dispatch_provider.migration.options import Option, Options, expand, from_environment, is_true
from airflow_dispatch_provider.settings.presets import DEFAULT_KUBERNETES_QUEUE

DEFAULT_EXECUTOR = "LocalExecutor"
"""Of Airflow 3; that of Airflow 2 was SequentialExecutor."""

DEFAULT_PARALLELISM = 32
"""Of every Airflow 2 and 3."""

UNLIMITED_SLOTS = 1024
"""Stands for ``parallelism = 0``, which meant no bound up to Airflow 2 and which Airflow 3 refuses."""

MOST_SLOTS = 1_000_000
"""As the settings have it."""


@dataclass(frozen=True)
class OldConfig:
    """The configuration to be migrated."""

    source: str | None
    """Name of the file; None: there is none, Airflow has its defaults."""

    entries: tuple[Entry, ...]
    parallelism: int
    """``[core] parallelism``; 0: no bound (up to Airflow 2)."""

    default_queue: str
    """Of tasks that name none."""

    options: Options = field(repr=False)
    """Everything that is set to something. Only names of it may be shown, except for the options that are fields
    here."""

    overridden: tuple[Option, ...] = field(default=(), repr=False)
    """Options of the file that stand in ``options`` as a variable sets them."""

    queues: Mapping[Kind, str] = field(default_factory=dict)
    """``kubernetes_queue`` of each hybrid."""

    @property
    def slots(self) -> int:
        """The most that one executor of this configuration could hold."""
        return min(self.parallelism or UNLIMITED_SLOTS, MOST_SLOTS)

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset(entry.kind for entry in self.entries)

    @property
    def several(self) -> bool:
        """Whether Dags could choose among executors by ``executor=``."""
        return len(self.entries) > 1

    @property
    def executor_option(self) -> Option | None:
        """None: ``[core] executor`` is not set."""
        return self.options.get(("core", "executor"))


def read_old(
    options: Options, environ: Mapping[str, str], source: str | None, executor: str | None = None
) -> OldConfig:
    """Understand what is set; raises MigrationError where an option of ours to read makes no sense.

    :param options: of the file
    :param environ: sets options on top, and is what ``$NAME`` in a value stands for; empty: only the file counts
    :param executor: to be used in place of ``[core] executor``
    """
    variables = from_environment(environ)
    overridden = tuple(option for key, option in options.items() if key in variables)
    options = {**options, **variables}
    if executor is not None:
        options["core", "executor"] = Option("core", "executor", executor, "--executor")
    options = {key: replace(option, value=expand(option.value, environ)) for key, option in options.items()}
    queues = {kind: _kubernetes_queue(options, hybrid.section) for kind, hybrid in HYBRIDS.items()}
    options = {key: option for key, option in options.items() if option.value.strip()}
    text = _get(options, ("core", "executor")) or DEFAULT_EXECUTOR
    multi_team = is_true(_get(options, ("core", "multi_team")) or "")
    default_queue = _get(options, ("operators", "default_queue"), ("celery", "default_queue")) or "default"
    return OldConfig(
        source=source,
        entries=read_entries(text, multi_team),
        parallelism=_parallelism(options.get(("core", "parallelism"))),
        default_queue=default_queue,
        options=options,
        overridden=overridden,
        queues=queues,
    )


def _get(options: Options, *keys: tuple[str, str]) -> str | None:
    """The first of these options that is set; variables count before the file, whatever their names."""
    found = [options[key] for key in keys if key in options]
    return next((option.value.strip() for option in sorted(found, key=_is_of_file)), None)


def _is_of_file(option: Option) -> bool:
    return option.variable is None


def _kubernetes_queue(options: Options, section: str) -> str:
    option = options.get((section, "kubernetes_queue"))
    return DEFAULT_KUBERNETES_QUEUE if option is None else option.value.strip()


def _parallelism(option: Option | None) -> int:
    if option is None:
        return DEFAULT_PARALLELISM
    text = option.value.partition("#")[0].strip()
    if not text.isdecimal():
        raise MigrationError(
            f"{option.label} is not a whole number of 0 or more: found {text!r}. Correct it."
        )
    return int(text)
