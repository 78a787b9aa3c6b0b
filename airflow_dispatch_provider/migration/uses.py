# SPDX-License-Identifier: Apache-2.0
"""Queues and executors that Dags name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """One place that names a queue, an executor, or both."""

    where: str
    """``file.py:12``, or ``dag_id.task_id``."""

    queue: str | None = None
    executor: str | None = None


@dataclass(frozen=True)
class Unread:
    """One place that cannot be understood without running it."""

    where: str
    what: str
    """In words, e.g. ``queue= is computed``."""

    computed: bool = False
    """Whether it is one value that is computed; else it is a file, a folder or a Dag that cannot be read."""


@dataclass(frozen=True)
class Scan:
    """All that was found."""

    source: str
    """The places searched, in words."""

    resolved: bool = False
    """Whether Airflow made the Dags before, so that nothing in them is computed any more."""

    uses: tuple[Use, ...] = ()
    unread: tuple[Unread, ...] = ()


def grouped(uses: Iterable[Use]) -> dict[tuple[str | None, str | None], list[str]]:
    """The places of each pair of queue and executor, ordered by the names."""
    found: dict[tuple[str | None, str | None], list[str]] = {}
    for use in sorted(uses, key=lambda use: (use.executor or "", use.queue or "")):
        places = found.setdefault((use.queue, use.executor), [])
        if use.where not in places[-1:]:
            places.append(use.where)
    return found
