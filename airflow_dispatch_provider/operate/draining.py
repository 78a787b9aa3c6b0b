# SPDX-License-Identifier: Apache-2.0
"""Whether a backend that is drained is empty, and whether what was recalled from one has come back."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_dispatch_provider.bridge import orphans
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate.documents import Document, Reading, Unread, moment
from airflow_dispatch_provider.operate.model import OrderInForce

_ADOPTED_WITHIN = 600.0
"""Seconds after which the tasks of a scheduler that has died are another's, or have ended, as a rule."""


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
    if (left_behind := _left_behind(reading, backend, team)) is not None:
        return left_behind
    has_order = all(entry["cordoned"] for entry in of_team.about(backend))
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
        if document.lives or not _may_have_left(document, recall, backend):
            continue
        if reading.uncounted.get(document.scheduler, 0) is None:
            ago = reading.now - document.written
            return f"scheduler {document.scheduler} lives, and has not written for {ago:.0f} s what it has there."
        if document.scheduler in reading.uncounted or _was_taken_over_since(recall, document, reading):
            raise NotRecalled(
                f"{backend}: scheduler {document.scheduler} has died, and what it had sent there may not have come"
                " back: give the order again when another scheduler has taken it over."
            )
    return _unknown(of_team) or _recalled(of_team, backend, team)


def _may_have_left(document: Document, recall: OrderInForce | None, backend: str) -> bool:
    """Whether there was something to take back when its scheduler last wrote."""
    not_begun = 0 if document.has_done(recall) else document.not_begun(backend)
    return bool(not_begun or document.returning(backend))


def _was_taken_over_since(recall: OrderInForce | None, document: Document, reading: Reading) -> bool:
    """Of a scheduler that wrote after the order was given and died later, for as long as that may be. What was taken
    over before is recalled by whoever has it now."""
    has_seen_it = recall is None or moment(document.written) > recall.since
    return has_seen_it and reading.now - document.written < _ADOPTED_WITHIN


def _unknown(of_team: Reading) -> str | None:
    """Why nothing is known of this moment."""
    if unread := [each for each in of_team.unread if each.lives]:
        return f"it is not known what every scheduler has there. {unread[0]}"
    return None if of_team.living else "no scheduler that lives has written of it."


def _left_behind(reading: Reading, backend: str, team: str | None) -> str | None:
    """Tasks that Airflow's database knows to be there of schedulers that do not say how it is now, or that have only
    just been taken over from them, or run on a backend that no scheduler knows any more: they are in no status."""
    of_team = reading.of_team(team)
    silent = of_team.silent
    is_known = bool(of_team.about(backend))
    if is_known and not silent:
        return None
    said: dict[str, float] = {}
    if _tells(reading, backend, team, silent):
        for document in of_team.living:
            at = document.body["heartbeat"] if is_known else 0.0
            said[document.scheduler] = min(said.get(document.scheduler, at), at)
    unknown = dict.fromkeys(each.scheduler for each in silent if each.scheduler in reading.uncounted)
    for job, number in orphans.given_to(backend, {**said, **unknown}).items():
        return f"{number} are queued or run there for scheduler {job}, {_why_unseen(reading, job)}."
    return None


def _tells(reading: Reading, backend: str, team: str | None, silent: Iterable[Document | Unread]) -> bool:
    """Whether rows that have changed lately tell what has been taken over. They do not say of which team a backend is:
    where another team has one of this name, what runs there would count for as long as it runs."""
    others = any(each.team != team and each.about(backend) for each in reading.documents)
    return not others or any(reading.now - each.written < _ADOPTED_WITHIN for each in silent)


def _why_unseen(reading: Reading, job: str) -> str:
    if job not in reading.uncounted:
        return "and are not in its status"
    if reading.uncounted[job] is None:
        return "which has not written its status lately"
    return "which has ended or died, and nobody has taken them over yet"


def _recalled(of_team: Reading, backend: str, team: str | None) -> str | None:
    if schedulers := of_team.not_recalled(backend, team):
        return f"recall is still to be done by scheduler {', '.join(schedulers)}."
    if returning := sum(document.returning(backend) for document in of_team.living):
        return f"{returning} are being set back to scheduled."
    return None
