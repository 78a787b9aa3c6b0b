# SPDX-License-Identifier: Apache-2.0
"""Whether a backend that is drained is empty, and whether what was recalled from one has come back."""

from __future__ import annotations

from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate.documents import Reading

_ADOPTED_WITHIN = 600.0
"""Seconds after which the tasks of a scheduler that has died are another's, or have ended."""


class NotDrained(DispatchError):
    """It will not become empty: nothing keeps new work from it."""


class NotRecalled(DispatchError):
    """Something may not come back: its scheduler has died."""


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
    if (unknown := _unknown(of_team)) is not None:
        return unknown
    if out := sum(document.out(backend) for document in of_team.living):
        return _out_words(out, sum(document.not_begun(backend) for document in of_team.living))
    if (recalled := _recalled(of_team, backend, team)) is not None:
        return recalled
    for document in of_team.documents:
        lately = reading.now - document.written < _ADOPTED_WITHIN
        if not document.lives and lately and (out := document.out(backend) + document.returning(backend)):
            who = f"scheduler {document.scheduler}"
            return f"{out} ran there when {who} wrote last; it is not known what became of them."
    has_order = all(entry["cordoned"] for document in of_team.living for entry in document.about(backend))
    return None if has_order else "not every scheduler has the order yet."


def _out_words(out: int, not_begun: int) -> str:
    running = out - not_begun
    runs = f"{running} {'runs' if running == 1 else 'run'} there"
    if not not_begun:
        return f"{runs}."
    has = "has" if not_begun == 1 else "have"
    return f"{runs}, and {not_begun} {has} not begun, which recall takes back."


def to_come_back(reading: Reading, backend: str, team: str | None) -> str | None:
    """
    Why not everything that was recalled is known to have come back, in a sentence; None: it has, or has begun.

    :raises NotRecalled: give the order again
    """
    of_team = reading.of_team(team)
    recall = of_team.recall_about(backend, team)
    for document in of_team.documents:
        if document.lives or reading.now - document.written >= _ADOPTED_WITHIN:
            continue
        not_begun = 0 if document.has_done(recall) else document.not_begun(backend)
        if not_begun or document.returning(backend):
            raise NotRecalled(
                f"{backend}: scheduler {document.scheduler} has died, and what it had sent there may not have come"
                " back: give the order again when another scheduler has taken it over."
            )
    return _unknown(of_team) or _recalled(of_team, backend, team)


def _unknown(of_team: Reading) -> str | None:
    """Why nothing is known of this moment."""
    if unread := [each for each in of_team.unread if each.lives]:
        return f"it is not known what every scheduler has there. {unread[0]}"
    return None if of_team.living else "no scheduler that lives has written of it."


def _recalled(of_team: Reading, backend: str, team: str | None) -> str | None:
    if schedulers := of_team.not_recalled(backend, team):
        return f"recall is still to be done by scheduler {', '.join(schedulers)}."
    if returning := sum(document.returning(backend) for document in of_team.living):
        return f"{returning} are being set back to scheduled."
    return None
