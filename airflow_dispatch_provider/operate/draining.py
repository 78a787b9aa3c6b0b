# SPDX-License-Identifier: Apache-2.0
"""Whether a backend that is drained is empty."""

from __future__ import annotations

from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate.documents import Reading

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
    of_team = reading.of_team(team)
    if unread := [each for each in of_team.unread if each.lives]:
        return f"it is not known what every scheduler has there. {unread[0]}"
    living = of_team.living
    if not living:
        return "no scheduler that lives has written of it."
    if out := sum(document.out(backend) for document in living):
        return f"{out} run there."
    if returning := sum(document.returning(backend) for document in living):
        return f"{returning} are being set back to scheduled."
    for document in of_team.documents:
        lately = reading.now - document.written < _ADOPTED_WITHIN
        if not document.lives and lately and (out := document.out(backend) + document.returning(backend)):
            who = f"scheduler {document.scheduler}"
            return f"{out} ran there when {who} wrote last; it is not known what became of them."
    has_order = all(entry["cordoned"] for document in living for entry in document.about(backend))
    return None if has_order else "not every scheduler has the order yet."
