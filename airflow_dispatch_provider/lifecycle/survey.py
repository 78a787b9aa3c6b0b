# SPDX-License-Identifier: Apache-2.0
"""Numbers of a machine for metrics: its backends, all that they have done, and all that is held. Nothing here changes
anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import NamedTuple

from airflow_dispatch_provider.lifecycle import _waiting
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.routing.hold import Lane

_AT_ONCE = 250
"""Held jobs that are looked at in one step: some fifty microseconds of it."""

_LANE = 20
"""How many held jobs a lane counts for: it has to be asked why it waits."""

_Why = Callable[[Lane, float], "str | None"]

COUNTS = {"began": "began", "ended": "done", "returned": "returned", "launch_failures": "launch_failures"}
"""Counts of each backend, and the attribute that holds each. ``began``: dispatches whose task has begun;
``ended``: dispatches that are over, whatever came of them; ``returned``: those among them that were taken back, or
given back unsent; ``launch_failures``: those that came to nothing before the task began, and are launched again."""

_COUNTED = tuple(COUNTS.items())


class BackendNumbers(NamedTuple):
    """One backend, at one moment."""

    name: str
    slots: int
    used: int
    ahead: int
    """Jobs that it was given ahead of a free slot."""

    free: int
    """0 where it takes no work."""

    held: int
    """Jobs that wait and have it as first choice."""

    is_open: bool
    """Its circuit is open or half open, or it cannot be used for another reason."""

    is_cordoned: bool


@dataclass
class Backlog:
    """All that is held in lanes. It is counted in many steps, so that it may never have been quite like this."""

    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many jobs wait, by the backend of their first choice and the word of their reason."""

    since: dict[str, float] = field(default_factory=dict)
    """Monotonic seconds of the oldest of them, by the backend of their first choice."""


def backends(machine: Machine) -> Iterator[BackendNumbers]:
    """Those that are configured, and those that are drained since they no longer are."""
    ledger = machine._ledger
    wanted, now = ledger.holding.by_first_choice, ledger.now
    for name, backend in ledger.backends.items():
        yield BackendNumbers(
            name,
            backend.room.slots,
            backend.used,
            len(backend.ahead),
            backend.view(now).free,
            wanted.get(name, 0),
            backend.fails(now) and not backend.gone,
            backend.cordoned,
        )


def counts(machine: Machine) -> Iterator[tuple[str, str, int]]:
    """Backend, word and number since the start of all that has been counted; see ``COUNTS``. A backend that is removed
    and comes back begins anew."""
    for name, backend in machine._ledger.backends.items():
        for what, attribute in _COUNTED:
            if number := getattr(backend, attribute):
                yield name, what, number


def held_back(machine: Machine) -> int:
    """How many jobs are not even decided about: they wait for their next launch, or for the end of an earlier one."""
    return machine.held - len(machine._ledger.holding)


def has_no_api(machine: Machine) -> bool:
    """Whether the execution API answers nobody, so that nothing is launched."""
    return machine._ledger.api_trouble is not None


def backlogs(machine: Machine) -> Iterator[Backlog | None]:
    """Look at a few of the held jobs with each ``next``; gives None until all have been looked at, and begins again."""
    holding = machine._ledger.holding
    while True:
        backlog, spent, why = Backlog(), 0, _reasons(machine)
        for lane in list(holding.lanes):
            entries = iter(lane.entries)
            while jobs := list(islice(entries, _AT_ONCE)):
                _add(backlog, lane, [job.since for job in jobs], machine._ledger.now, why)
                spent += _LANE + len(jobs)
                if spent >= _AT_ONCE:
                    yield None
                    spent, why = 0, _reasons(machine)
        yield backlog


def _add(backlog: Backlog, lane: Lane, since: list[float], now: float, why: _Why) -> None:
    """
    :param since: of some of its jobs, monotonic seconds
    """
    name, oldest = lane.targets[0].backend, min(since)
    backlog.since[name] = min(oldest, backlog.since.get(name, inf))
    after, patient = lane.overflow_after, len(since)
    if after:
        long_ago = now - after
        patient = sum(moment <= long_ago for moment in since) if oldest <= long_ago else 0
    for number, waited in ((patient, after), (len(since) - patient, 0.0)):
        if number and (reason := why(lane, waited)):
            backlog.reasons[name, reason] += number


def _reasons(machine: Machine) -> _Why:
    """Tells the word for why jobs of a lane wait that have waited for so many seconds; None: they would be dispatched
    now."""
    everything = _waiting.of_everything(machine._ledger, machine._asking_since is not None)
    if everything is not None:
        return lambda lane, waited: everything.value
    snapshot = machine.snapshot()
    backends, free = snapshot.backends, snapshot.free

    def why(lane: Lane, waited: float) -> str | None:
        reason = _waiting.why(lane, waited, backends, free)
        return None if reason is None else reason.value

    return why
