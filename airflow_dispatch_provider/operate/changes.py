# SPDX-License-Identifier: Apache-2.0
"""Changes that people have made while schedulers ran: orders, and versions of the routing file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
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
from airflow_dispatch_provider.operate.model import Change

MOST = 200
"""Changes in one answer: the last ones."""

_EVENTS = (CHANGED_FILE, REFUSED_FILE, *(f"{ORDERED}{command.value}" for command in Command))


def read_changes(since: datetime, concerns: Callable[[str | None], bool]) -> list[Change]:
    """The last ones first, ``MOST`` at most.

    :param concerns: whether those of a team are wanted; None: of no team
    """
    return list(islice(changes_of(rows_since(_EVENTS, since), concerns), MOST))


def changes_of(
    rows: Iterable[tuple[datetime, str, str, str]], concerns: Callable[[str | None], bool]
) -> Iterator[Change]:
    """
    :param rows: when, ``log.event``, ``log.owner`` and ``log.extra``
    """
    for at, event, owner, extra in rows:
        change = _change(at, event, owner, object_in(extra) or {})
        if concerns(change.team):
            yield change


def _change(at: datetime, event: str, owner: str, facts: dict[str, Any]) -> Change:
    team, detail = facts.get("team"), str(facts.get("detail", ""))
    if event in (CHANGED_FILE, REFUSED_FILE):
        words = f"{facts.get('file')} {'is in use' if event == CHANGED_FILE else 'is refused'}: {detail}"
        return Change(at, event, words, None, None, team, facts.get("scheduler"))
    backend, seconds, reason = facts.get("backend"), facts.get("seconds"), facts.get("reason")
    lasts = f" for {seconds:.0f} s" if isinstance(seconds, int | float) else ""
    why = f": {reason}" if reason else ""
    words = f"{event.removeprefix(ORDERED)} {backend}{lasts}{why}"
    return Change(at, event, words, owner, backend, team, None)
