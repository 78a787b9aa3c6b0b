# SPDX-License-Identifier: Apache-2.0
"""Work that backends have and have not begun: how much, since when, and what to look at. From the entries about one
backend in the documents of several schedulers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow_dispatch_provider.operate.documents import Reading, moment
from airflow_dispatch_provider.operate.model import NotBegun

LONG = 120.0
"""Seconds in which a task usually begins, and in which the scheduler is told so: it asks the database every 30."""

_ANY = "See the story of one of them."


def not_begun(entries: Iterable[dict[str, Any]]) -> tuple[int, float | None]:
    """How many workloads have not been seen to begin, and since when, in seconds since 1970, the backend has the oldest
    of them. Those that it was given ahead of a free slot wait for that, and are left out."""
    waits = [entry for entry in entries if entry["not_begun_since"] is not None]
    number = sum(max(0, entry["not_begun"] - entry["ahead"]) for entry in waits)
    return number, min((entry["not_begun_since"] for entry in waits), default=None)


def hint_of(entries: Iterable[dict[str, Any]], since: float, now: float) -> str | None:
    """The hint of a backend where something has not begun since then; None: it has not been long."""
    if now - since < LONG:
        return None
    return " ".join(dict.fromkeys(filter(None, (entry["hint"] for entry in entries)))) or None


def hint_about(entries: Sequence[dict[str, Any]], now: float) -> str | None:
    """The hint where nothing that a backend has has begun for long; None: something has, or may soon."""
    number, since = not_begun(entries)
    if since is None or now - since < LONG or number < sum(entry["used"] for entry in entries):
        return None
    return hint_of(entries, since, now) or _ANY


def not_begun_of(reading: Reading, backend: str | None) -> list[NotBegun]:
    """Of each backend that has such workloads, the most first.

    :param backend: of this one alone; None: of all
    """
    by_backend: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for document in reading.living:
        for entry in document.about(backend):
            by_backend.setdefault((entry["name"], document.team), []).append(entry)
    counted = ((key, not_begun(entries)) for key, entries in by_backend.items())
    found = [
        NotBegun(name, team, number, moment(since))
        for (name, team), (number, since) in counted
        if number and since is not None
    ]
    return sorted(found, key=lambda each: -each.number)
