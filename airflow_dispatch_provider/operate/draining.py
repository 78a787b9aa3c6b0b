# SPDX-License-Identifier: Apache-2.0
"""Whether a backend that is drained is empty."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate.documents import Document, Reading

_ADOPTED_WITHIN = 600.0
"""Seconds after which the tasks of a scheduler that has died are another's, or have ended."""


class NotDrained(DispatchError):
    """It will not become empty: nothing keeps new work from it."""


def left(reading: Reading, backend: str, team: str | None) -> str | None:
    """
    Why a backend is not known to be empty, in a sentence; None: it is.

    :raises NotDrained: the order about it is no longer in force
    """
    if reading.order_about(backend, team) is None:
        raise NotDrained(
            f"{backend}: the order is no longer in force: it has run out, or somebody has resumed it."
        )
    if unread := [each for each in reading.unread if each.lives and each.team == team]:
        return f"it is not known what every scheduler has there. {unread[0]}"
    documents = [document for document in reading.documents if document.team == team]
    living = [document for document in documents if document.lives]
    if not living:
        return "no scheduler that lives has written of it."
    entries = [entry for document in living for entry in _of(document, backend)]
    if out := sum(map(_out, entries)):
        return f"{out} run there."
    for document in documents:
        lately = reading.now - document.written < _ADOPTED_WITHIN
        if not document.lives and lately and (out := sum(map(_out, _of(document, backend)))):
            who = f"scheduler {document.scheduler}"
            return f"{out} ran there when {who} wrote last; it is not known what became of them."
    return None if all(entry["cordoned"] for entry in entries) else "not every scheduler has the order yet."


def _of(document: Document, backend: str) -> list[dict[str, Any]]:
    """None: it has no such backend, or no longer."""
    return [entry for entry in document.body["backends"] if entry["name"] == backend]


def _out(entry: dict[str, Any]) -> int:
    used, ahead = entry["used"], entry["ahead"]
    return int(used + ahead)
