# SPDX-License-Identifier: Apache-2.0
"""Changes that people have made while schedulers ran: orders, and versions of the routing file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from airflow_dispatch_provider.bridge.event_log import (
    CHANGED_FILE,
    ORDERED,
    REFUSED_FILE,
    object_in,
    rows_since,
)
from airflow_dispatch_provider.lifecycle.events import Command
from airflow_dispatch_provider.operate.past import Change

MOST = 200
"""Changes in one answer: the last ones."""

RAN_OUT = f"{ORDERED}ran_out"
"""``Change.event`` of an order that has run out. No row tells of that; it follows from the others."""

_LOOK_BACK = timedelta(days=8)
"""How much older an order may be whose end is told: longer than the longest time for which the page gives one."""

_EVENTS = (CHANGED_FILE, REFUSED_FILE, *(f"{ORDERED}{command.value}" for command in Command))


def read_changes(since: datetime, concerns: Callable[[str | None], bool]) -> list[Change]:
    """The last ones first, ``MOST`` at most.

    :param concerns: whether those of a team are wanted; None: of no team
    """
    now = datetime.now(UTC)
    changes = changes_of(rows_since(_EVENTS, _before(since)), concerns, now)
    found = list(islice((change for change in changes if change.at >= since), MOST))
    return sorted(found, key=lambda change: change.at, reverse=True)


def _before(since: datetime) -> datetime:
    """Early enough for orders that ran out later; the first year has no dates before it."""
    return max(since, datetime.min.replace(tzinfo=UTC) + _LOOK_BACK) - _LOOK_BACK


def changes_of(
    rows: Iterable[tuple[datetime, str, str, str]], concerns: Callable[[str | None], bool], now: datetime
) -> Iterator[Change]:
    """
    Changes that the rows tell, the last one first; behind an order that it has run out.

    :param rows: when, ``log.event``, ``log.owner`` and ``log.extra``, the last one first
    """
    over: dict[tuple[Any, Any], datetime] = {}
    for at, event, owner, extra in rows:
        facts = object_in(extra) or {}
        change = _change(at, event, owner, facts)
        is_wanted, about = concerns(change.team), (change.team, change.backend)
        if is_wanted:
            yield change
        if event in _LASTING:
            end = _end(at, facts.get("seconds"))
            if is_wanted and end is not None and end <= over.get(about, now):
                yield _ran_out(end, event, change, facts)
        if event in _LASTING or event == _RESUMED:
            over[about] = at


_LASTING = tuple(f"{ORDERED}{each.value}" for each in Command if each.lasts)
_RESUMED = f"{ORDERED}{Command.RESUME.value}"


def _end(at: datetime, seconds: Any) -> datetime | None:
    """When an order runs out; None: never, or in a year that has no date."""
    if not isinstance(seconds, int | float):
        return None
    try:
        return at + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _ran_out(at: datetime, event: str, order: Change, facts: dict[str, Any]) -> Change:
    why = f": {facts['reason']}" if facts.get("reason") else ""
    words = f"{event.removeprefix(ORDERED)} {order.backend} by {order.by} has run out{why}"
    return Change(at, RAN_OUT, words, None, order.backend, order.team, None)


def _change(at: datetime, event: str, owner: str, facts: dict[str, Any]) -> Change:
    team, detail = facts.get("team"), str(facts.get("detail", ""))
    if event in (CHANGED_FILE, REFUSED_FILE):
        state = "is in use" if event == CHANGED_FILE else "is refused"
        apart = "\n" if "\n" in detail else " "
        words = f"{facts.get('file')} {state}:{apart}{detail}"
        return Change(at, event, words, None, None, team, facts.get("scheduler"))
    backend, seconds, reason = facts.get("backend"), facts.get("seconds"), facts.get("reason")
    lasts = f" for {seconds:.0f} s" if isinstance(seconds, int | float) else ""
    why = f": {reason}" if reason else ""
    replaces = f" (replaces {facts['replaces']})" if facts.get("replaces") else ""
    words = f"{event.removeprefix(ORDERED)} {backend}{lasts}{why}{replaces}"
    return Change(at, event, words, owner, backend, team, None)
