# SPDX-License-Identifier: Apache-2.0
"""Orders of operators about backends: they reach every scheduler within seconds, and survive its restart."""

from __future__ import annotations

import time

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import ALL_TEAMS, OrderRow
from airflow_dispatch_provider.bridge.event_log import order_row
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.lifecycle.events import Command
from airflow_dispatch_provider.operate.documents import Reading, order_of, read
from airflow_dispatch_provider.operate.model import OrderInForce

COMMANDS = tuple(command.value for command in Command)


class UnknownBackend(DispatchError):
    """No scheduler has a backend of that name."""


class WrongOrder(DispatchError):
    """It makes no sense: an unknown command, or a time that is over already."""


def give_order(
    command: str,
    backend: str,
    team: str | None,
    by: str,
    reason: str = "",
    seconds: float | None = None,
) -> OrderInForce | None:
    """
    Cordon or drain a backend, in place of what was ordered before, take back what was ordered, or recall what the
    backend has not begun. Enters a row in Airflow's event log.

    :param command: ``cordon``, ``drain``, ``resume`` or ``recall``
    :param by: who gives it
    :param seconds: after which it runs out; None: never
    :returns: the order that was entered; with ``resume`` the one that was in force, None: there was none
    :raises UnknownBackend: no scheduler has it
    :raises WrongOrder: it makes no sense
    :raises TablesMissing: the migration has not been run
    :raises ReadOnly: the database is a replica
    """
    if command not in COMMANDS:
        raise WrongOrder(f"{command!r} is no order. Known: {', '.join(COMMANDS)}.")
    if seconds is not None and not 0 < seconds < _LONGEST:
        raise WrongOrder("An order is for more than no time, and for less than ten years.")
    wanted = Command(command)
    check_backend(read(), backend, team, may_be_gone=wanted is Command.RESUME)
    facts = {"backend": backend, "team": team, "reason": reason, "seconds": seconds}
    audit = order_row(command, by, {key: value for key, value in facts.items() if value})
    now = time.time()
    lasts = _KEPT if wanted is Command.RECALL else seconds
    until = None if lasts is None else now + lasts
    row = OrderRow(team or ALL_TEAMS, backend, command, by, reason, now, until)
    if wanted is Command.RESUME:
        before = tables.take_back(row.team, backend, now, audit)
        return None if before is None else order_of(before)
    tables.enter_order(row, audit)
    return order_of(row)


_KEPT = 3_600.0
"""Seconds for which what is done once is kept, at least, for schedulers that cannot read it at once."""

_LONGEST = 10 * 366 * 86_400.0


def check_backend(reading: Reading, backend: str, team: str | None, may_be_gone: bool) -> None:
    """
    :param may_be_gone: an order about it will do
    :raises UnknownBackend: no scheduler has written of it lately; names those that there are
    """
    if may_be_gone and reading.order_about(backend, team) is not None:
        return
    known = {
        entry["name"]
        for document in reading.documents
        if document.team == team
        for entry in document.body["backends"]
    }
    if backend not in known:
        whose = f" of the team {team!r}" if team else ""
        names = (
            f"Known: {', '.join(sorted(known))}." if known else "No scheduler has named any in the last hour."
        )
        raise UnknownBackend(f"There is no backend {backend!r}{whose}. {names}")
