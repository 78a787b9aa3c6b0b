# SPDX-License-Identifier: Apache-2.0
"""Whether an engine, which may be somebody else's, answers what the protocol says: the router calculates with it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, get_args

from airflow_dispatch_provider.engines.engine import Event
from airflow_dispatch_provider.lifecycle.events import Room

_EVENTS = get_args(Event)


def checked_room(room: Any) -> Room:
    """
    :raises TypeError: it is none, or something in it is not what ``Room`` says
    """
    if not isinstance(room, Room):
        raise TypeError(f"room() gives {room!r}, which is no Room")
    wanted = {
        "slots": int,
        "takes": int,
        "closed": Mapping,
        "unavailable": (str, type(None)),
        "kinds": frozenset,
        "retry_at": (int, float, type(None)),
        "hint": str,
    }
    for name, kinds in wanted.items():
        value = getattr(room, name)
        if not isinstance(value, kinds):  # type: ignore[arg-type]
            raise TypeError(f"room() gives {name}={value!r}")
    if room.retry_at is not None and not (isfinite(room.retry_at) and abs(room.retry_at) < _LATEST):
        raise TypeError(f"room() gives retry_at={room.retry_at!r}, which is no time")
    return room


_LATEST = 1e10
"""Seconds; what is later has no date."""


def checked_events(found: Any) -> list[Event]:
    """
    :raises TypeError: it gives no events, or something among them is none
    """
    events = list(found)
    for each in events:
        if not isinstance(each, _EVENTS):
            raise TypeError(f"poll() gives {each!r}, which is no event")
    return events
