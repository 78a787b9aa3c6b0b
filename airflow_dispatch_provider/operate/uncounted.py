# SPDX-License-Identifier: Apache-2.0
"""Schedulers whose tasks no number of an answer has: those that have died, until their tasks are taken over, and those
that do not say how it is now."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_dispatch_provider.bridge import schedulers
from airflow_dispatch_provider.operate.documents import Document, Reading, Unread
from airflow_dispatch_provider.operate.model import Status, Uncounted


def uncounted_of(reading: Reading) -> list[Uncounted]:
    """Each of them, once for each team."""
    documents = (_document(each, reading) for each in reading.documents if _matters(each, reading))
    unread = (_unread(each, reading) for each in reading.unread if _matters(each, reading))
    return [*documents, *unread]


def adopted_when() -> str:
    """When Airflow has the tasks of a dead scheduler taken over, in a sentence."""
    return (
        f"Airflow takes a scheduler for dead {schedulers.dead_after():.0f} s after its last heartbeat, and looks for"
        f" such tasks when a scheduler starts and every {schedulers.tidy_interval():.0f} s."
    )


def _matters(each: Document | Unread, reading: Reading) -> bool:
    is_silent = isinstance(each, Unread) or not each.lives
    return is_silent and each.scheduler in reading.uncounted


def _document(document: Document, reading: Reading) -> Uncounted:
    entries = document.about(None)
    had = {entry["name"]: document.out(entry["name"]) for entry in entries}
    parts = [
        f"{document.body['held']} waited",
        *(f"{name} had {count}" for name, count in had.items() if count),
    ]
    written = f"When it last wrote, {reading.now - document.written:.0f} s ago, {', '.join(parts)}."
    words = " ".join(_words(document, document.body["hostname"], written, reading))
    held = {entry["name"]: entry["held"] for entry in entries}
    return Uncounted(document.scheduler, document.team, words, had, held)


def _unread(found: Unread, reading: Reading) -> Uncounted:
    if found.lives:
        return Uncounted(found.scheduler, found.team, f"{found} What it has is not counted.")
    return Uncounted(found.scheduler, found.team, " ".join(_words(found, found.hostname, "", reading)))


def _words(each: Document | Unread, hostname: str, had: str, reading: Reading) -> Iterator[str]:
    who = f"Scheduler {each.scheduler} on {hostname}"
    number = reading.uncounted[each.scheduler]
    if number is None:
        yield f"{who} has not written its status for {reading.now - each.written:.0f} s: what it has is not counted."
    else:
        tasks = "its tasks have" if each.team else f"{number} of its tasks {'has' if number == 1 else 'have'}"
        yield f"{who} has ended or died, and {tasks} not been taken over yet: they are not counted."
    if had:
        yield had
    if number is not None:
        yield adopted_when()


def backlog_of(status: Status, backend: str, team: str | None) -> int | None:
    """Tasks that a backend has, and that wait for it, as far as anybody knows; None: nobody tells of such a backend."""
    living = [
        each.held + each.used + each.ahead
        for each in status.backends
        if (each.name, each.team) == (backend, team)
    ]
    silent = [
        each.had[backend] + each.held[backend]
        for each in status.uncounted
        if each.team == team and backend in each.had
    ]
    return sum(living + silent) if living or silent else None
