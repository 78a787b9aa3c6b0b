# SPDX-License-Identifier: Apache-2.0
"""Orders of operators about backends: they reach every scheduler within seconds, and survive its restart."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.bridge.database.tables import ALL_TEAMS, LONGEST_NAME, OrderRow
from airflow_dispatch_provider.bridge.event_log import order_row
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.lifecycle.events import Command
from airflow_dispatch_provider.operate.documents import Reading, order_of, read
from airflow_dispatch_provider.operate.model import GivenOrder, OrderInForce

COMMANDS = tuple(command.value for command in Command)


LONGEST_REASON = 1000
"""Characters: the event log has 64 kB for it in MySQL, with up to 12 bytes of JSON for each."""


class UnknownBackend(DispatchError):
    """No scheduler has a backend of that name."""


class WrongOrder(DispatchError):
    """It makes no sense: an unknown command, a time that is over already, or a reason that no database takes."""


def give_order(
    command: str,
    backend: str,
    team: str | None,
    by: str,
    reason: str = "",
    seconds: float | None = None,
) -> GivenOrder | None:
    """
    Cordon or drain a backend, in place of what was ordered before, take back what was ordered, or recall what the
    backend has not begun. Enters a row in Airflow's event log, unless there was nothing to take back.

    :param command: ``cordon``, ``drain``, ``resume`` or ``recall``
    :param by: who gives it; as much of a long name is kept as the table has room for
    :param reason: ``LONGEST_REASON`` characters at most
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
    _check_reason(reason)
    wanted, reading = Command(command), read()
    check_backend(reading, backend, team, may_be_gone=wanted is Command.RESUME)
    now = time.time()
    lasts = _KEPT if wanted is Command.RECALL else seconds
    row = OrderRow(
        team or ALL_TEAMS,
        backend,
        command,
        by[:LONGEST_NAME],
        reason,
        now,
        None if lasts is None else now + lasts,
    )
    if wanted is Command.RESUME:
        before = tables.take_back(row.team, backend, now, _audit(row))
        return (
            None if before is None else GivenOrder(**vars(order_of(before)), warning=_unheard(reading, team))
        )
    replaced, given = reading.order_about(backend, team) if wanted.lasts else None, order_of(row)
    tables.enter_order(row, _audit(row, seconds, replaced))
    warnings = (early(given.until, replaced), _comes_again(reading, given), _unheard(reading, team))
    return GivenOrder(**vars(given), replaces=replaced, warning=" ".join(filter(None, warnings)) or None)


def _check_reason(reason: str) -> None:
    if len(reason) > LONGEST_REASON:
        raise WrongOrder(f"A reason has at most {LONGEST_REASON:,} characters, and this one {len(reason):,}.")
    if "\0" in reason or any("\ud800" <= each <= "\udfff" for each in reason):
        raise WrongOrder("The reason is no text in UTF-8.")


def _audit(row: OrderRow, seconds: float | None = None, replaced: OrderInForce | None = None) -> Any:
    """The row for Airflow's event log."""
    facts = {"backend": row.backend, "team": row.team, "reason": row.reason, "seconds": seconds}
    if replaced is not None:
        facts["replaces"] = f"{replaced.command} by {replaced.by} {replaced.lasts_until}"
    return order_row(row.command, row.given_by, {key: value for key, value in facts.items() if value})


def early(until: datetime | None, replaced: OrderInForce | None) -> str | None:
    """Of an order that ends then, and the one that it would replace."""
    if replaced is None or until is None:
        return None
    if replaced.until is not None and replaced.until <= until:
        return None
    return "It ends earlier than the one that it replaces: then the backend takes work again."


def _comes_again(reading: Reading, given: OrderInForce) -> str | None:
    if given.command != Command.RECALL or reading.is_cordoned(given.backend, given.team):
        return None
    return TAKES_WORK


TAKES_WORK = (
    "The backend takes work, so that what comes back may be given to it again: cordon or drain it first."
)


def _unheard(reading: Reading, team: str | None) -> str | None:
    of_team = reading.of_team(team)
    if of_team.living or any(each.lives for each in of_team.unread):
        return None
    return UNHEARD


UNHEARD = "No scheduler lives: the first that starts follows it."


_KEPT = 3_600.0
"""Seconds for which what is done once is kept, at least, for schedulers that cannot read it at once."""

_LONGEST = 10 * 366 * 86_400.0


def check_backend(reading: Reading, backend: str, team: str | None, may_be_gone: bool) -> None:
    """
    :param may_be_gone: an order about it will do
    :raises UnknownBackend: no scheduler has it; names those that there are. Where none lives whose status can be read,
        those that were silent last count
    """
    if may_be_gone and reading.order_about(backend, team) is not None:
        return
    of_team = reading.of_team(team)
    written = {entry["name"] for document in of_team.documents for entry in document.about(None)}
    living = {entry["name"] for entry in of_team.about(None)}
    is_known = of_team.living and not any(each.lives for each in of_team.unread)
    known = living if is_known else written
    if backend in known:
        return
    whose = f" of the team {team!r}" if team else ""
    was = " Only a scheduler that no longer lives had it." if backend in written else ""
    names = f"Known: {', '.join(sorted(known))}." if known else "No scheduler has named any in the last hour."
    raise UnknownBackend(f"There is no backend {backend!r}{whose}.{was} {names}")
