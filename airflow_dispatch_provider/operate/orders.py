# SPDX-License-Identifier: Apache-2.0
"""Orders of operators about backends: they reach every scheduler within seconds, and survive its restart."""

from __future__ import annotations

import time

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import ALL_TEAMS, OrderRow
from airflow_dispatch_provider.bridge.event_log import audit_row
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.lifecycle.events import Command
from airflow_dispatch_provider.operate.documents import order_of, read
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
    Cordon or drain a backend, in place of what was ordered before, or take back what was ordered. Enters a row in
    Airflow's event log.

    :param command: ``cordon``, ``drain`` or ``resume``
    :param by: who gives it
    :param seconds: after which it runs out; None: never
    :returns: what is in force now; None: nothing
    :raises UnknownBackend: no scheduler has it
    :raises WrongOrder: it makes no sense
    :raises TablesMissing: the migration has not been run
    """
    if command not in COMMANDS:
        raise WrongOrder(f"{command!r} is no order. Known: {', '.join(COMMANDS)}.")
    if seconds is not None and not 0 < seconds < _LONGEST:
        raise WrongOrder("An order is for more than no time, and for less than ten years.")
    check_backend(backend, team, may_be_gone=command == Command.RESUME.value)
    now, row = time.time(), None
    if command != Command.RESUME.value:
        until = None if seconds is None else now + seconds
        row = OrderRow(0, team or ALL_TEAMS, backend, command, by, reason, now, until)
    facts = {"backend": backend, "team": team, "reason": reason, "seconds": seconds}
    audit = audit_row(f"dispatch_{command}", by, {key: value for key, value in facts.items() if value})
    tables.replace_orders(team or ALL_TEAMS, backend, row, audit)
    return None if row is None else order_of(row)


_LONGEST = 10 * 366 * 86_400.0


def check_backend(backend: str, team: str | None, may_be_gone: bool) -> None:
    """
    :param may_be_gone: an order about it will do
    :raises UnknownBackend: no scheduler has written of it lately; names those that there are
    """
    reading = read()
    documents = reading.documents
    if may_be_gone and reading.order_about(backend, team) is not None:
        return
    known = {
        entry["name"]
        for document in documents
        if document.team == team
        for entry in document.body["backends"]
    }
    if backend not in known:
        whose = f" of the team {team!r}" if team else ""
        names = (
            f"Known: {', '.join(sorted(known))}." if known else "No scheduler has named any in the last hour."
        )
        raise UnknownBackend(f"There is no backend {backend!r}{whose}. {names}")
