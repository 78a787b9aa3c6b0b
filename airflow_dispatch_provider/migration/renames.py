# SPDX-License-Identifier: Apache-2.0
"""Options about executors that Airflow 3 reads under another name, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airflow_dispatch_provider.migration.options import Key, Option, Options

_OLD_SECTION, _NEW_SECTION = "kubernetes", "kubernetes_executor"

_MOVED: dict[Key, Key | None] = {
    ("celery", "stalled_task_timeout"): ("scheduler", "task_queued_timeout"),
    ("celery", "task_adoption_timeout"): ("scheduler", "task_queued_timeout"),
    ("celery", "default_queue"): ("operators", "default_queue"),
    ("core", "worker_precheck"): ("celery", "worker_precheck"),
    (_NEW_SECTION, "worker_pods_pending_timeout"): ("scheduler", "task_queued_timeout"),
    (_NEW_SECTION, "worker_pods_pending_timeout_check_interval"): (
        "scheduler",
        "task_queued_timeout_check_interval",
    ),
    (_NEW_SECTION, "worker_pods_queued_check_interval"): None,
    (_NEW_SECTION, "worker_pods_pending_timeout_batch_size"): None,
    (_NEW_SECTION, "airflow_configmap"): None,
    (_NEW_SECTION, "airflow_local_settings_configmap"): None,
}
"""None: nothing took its place."""

_REPORTED = frozenset(
    {
        ("celery", "stalled_task_timeout"),
        ("celery", "task_adoption_timeout"),
        ("celery", "default_queue"),
        ("core", "worker_precheck"),
        (_NEW_SECTION, "worker_pods_pending_timeout"),
        (_NEW_SECTION, "worker_pods_pending_timeout_check_interval"),
    }
)
"""What ``airflow config lint`` of Airflow 3.1 to 3.4 reports, too."""


@dataclass(frozen=True)
class Rename:
    """One option that Airflow 3 does not read where it stands."""

    old: str
    new: str | None
    """None: nothing took its place."""

    taken: bool
    """Whether the new one is set, too, so that the old one can go."""

    linted: bool
    """Whether ``airflow config lint`` reports it, too."""


def renames(options: Options) -> tuple[Rename, ...]:
    """Ordered as set."""
    return tuple(_renames(options))


def _renames(options: Options) -> Iterator[Rename]:
    for option in options.values():
        key = (option.section, option.name)
        moved = (_NEW_SECTION, option.name) if option.section == _OLD_SECTION else key
        new = _MOVED.get(moved, moved)
        if new != key:
            label = _label(new, option) if new else None
            yield Rename(option.label, label, new in options, key in _REPORTED)


def _label(key: Key, like: Option) -> str:
    """Written as the old one was: as a variable, or as an option of a file."""
    section, name = key
    return f"AIRFLOW__{section}__{name}".upper() if like.variable else f"[{section}] {name}"
