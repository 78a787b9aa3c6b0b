# SPDX-License-Identifier: Apache-2.0
"""Metrics of an executor: collected in its heartbeats, sent a few at a time.

Counts go out with the heartbeat in which they change. Gauges go out in rounds, at most every five seconds; a round
takes up to ten heartbeats, so that none of them pays for all backends. One that has not changed is sent in every sixth
round. All that is held is looked at a little in each heartbeat. Where Airflow's metrics are off, nothing is collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

from airflow_dispatch_provider.bridge import metrics
from airflow_dispatch_provider.engines.engine import Engine, Measured
from airflow_dispatch_provider.lifecycle import survey
from airflow_dispatch_provider.lifecycle.machine import Machine

ROUND_EVERY = 5.0
"""Seconds from one round of gauges to the next."""

_BEATS_OF_A_ROUND = 10
_ALL_EVERY = 6
_LONGEST_OF = 60.0
"""Seconds for which the longest heartbeat is told, at least; at most twice as long."""


class Gauge(NamedTuple):
    """One of each backend."""

    metric: str
    value: Callable[[survey.BackendNumbers, float], float]
    """Of a backend, and of the seconds for which its oldest job has waited."""


GAUGES = (
    Gauge("dispatch.slots", lambda of, oldest: of.slots),
    Gauge("dispatch.used", lambda of, oldest: of.used),
    Gauge("dispatch.ahead", lambda of, oldest: of.ahead),
    Gauge("dispatch.held", lambda of, oldest: of.held),
    Gauge("dispatch.oldest_wait", lambda of, oldest: oldest),
    Gauge("dispatch.circuit_open", lambda of, oldest: of.is_open),
    Gauge("dispatch.cordoned", lambda of, oldest: of.is_cordoned),
)


@dataclass
class _Known:
    """The gauges of one backend, as they were last sent."""

    rounds: int = 0
    values: dict[str, float] = field(default_factory=dict)
    numbers: survey.BackendNumbers | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    """Jobs that wait, by the word of their reason."""


class Gauges:
    """Of one executor. For the scheduler's thread."""

    def __init__(
        self, machine: Machine, engines: Mapping[str, Engine], team: str | None, alone: bool
    ) -> None:
        """
        :param engines: by backend; may change
        :param team: for the tag ``team_name``
        :param alone: the executor is no router: Airflow's own gauges tell of its only backend
        """
        self._machine, self._engines, self._alone = machine, engines, alone
        self._team = {"team_name": team} if team else {}
        self._is_on = metrics.ways().on
        self._sent: dict[tuple[str, str], int] = {}
        """Counts that have been sent, by backend and word."""

        self._round: list[survey.BackendNumbers] = []
        self._size, self._next_round = 1, 0.0
        self._looks: Iterator[survey.Backlog | None] = survey.backlogs(machine)
        self._backlog = survey.Backlog()
        self._known: dict[str, _Known] = {}
        """By backend."""

        self._longest = self._longest_before = self._longest_since = 0.0

    def beat(self, now: float, seconds: float) -> None:
        """Called at the end of every heartbeat; raises what Airflow's client raises.

        :param now: monotonic seconds at its beginning
        :param seconds: the time that it has taken
        """
        if not self._is_on:
            return
        self._note(now, seconds)
        self._count()
        self._measure()
        if not self._round and now >= self._next_round:
            self._begin_round(now)
        for _ in range(min(self._size, len(self._round))):
            self._send(self._round.pop(), now)
        self._look()

    def _note(self, now: float, seconds: float) -> None:
        metrics.timing(metrics.HEARTBEAT, seconds, self._team)
        if now - self._longest_since >= _LONGEST_OF:
            self._longest_since, self._longest_before, self._longest = now, self._longest, 0.0
        self._longest = max(self._longest, seconds)

    def _count(self) -> None:
        """Send the counts since the last heartbeat."""
        for backend, what, number in survey.counts(self._machine):
            known = self._sent.get((backend, what), 0)
            if number != known:
                metrics.count_backend(
                    f"dispatch.{what}", backend, number - known if number > known else number, **self._team
                )
                self._sent[backend, what] = number

    def _measure(self) -> None:
        """Send the requests that engines have measured, under the names of Airflow's own executors."""
        for name, engine in self._engines.items():
            take: Callable[[], Measured] | None = getattr(engine, "take_measured", None)
            if take is None:
                continue
            tags, measured = {**self._team, "backend": name}, take()
            for (metric, status), number in measured.counts.items():
                metrics.count(metric, number, {**tags, "status": status})
            for metric, seconds in measured.durations:
                metrics.timing(metric, seconds, tags)

    def _begin_round(self, now: float) -> None:
        self._next_round = now + ROUND_EVERY
        self._round = [*survey.backends(self._machine)]
        gone = self._known.keys() - {each.name for each in self._round}
        self._round += [survey.BackendNumbers(name, 0, 0, 0, 0, 0, False, False) for name in gone]
        self._size = ceil(len(self._round) / _BEATS_OF_A_ROUND)
        metrics.gauge(metrics.HEARTBEAT_LONGEST, max(self._longest, self._longest_before) * 1000, self._team)
        metrics.gauge(metrics.HELD_BACK, survey.held_back(self._machine), self._team)
        metrics.gauge(metrics.API_AWAY, int(survey.has_no_api(self._machine)), self._team)

    def _send(self, of: survey.BackendNumbers, now: float) -> None:
        """The gauges of one backend."""
        name, known = of.name, self._known.setdefault(of.name, _Known())
        is_all = known.rounds % _ALL_EVERY == 0
        known.rounds += 1
        oldest = max(0.0, now - self._backlog.since.get(name, now)) if of.held else 0.0
        for gauge in GAUGES:
            value = float(gauge.value(of, oldest))
            if is_all or known.values.get(gauge.metric) != value:
                known.values[gauge.metric] = value
                metrics.gauge_backend(gauge.metric, name, value, **self._team)
        if not self._alone and (is_all or of != known.numbers):
            metrics.gauge_executor(name, open_slots=of.free, running=of.used, held=of.held)
        known.numbers = of
        self._send_reasons(name, known, is_all)
        if not of.slots and name not in self._engines:
            del self._known[name]

    def _send_reasons(self, name: str, known: _Known, is_all: bool) -> None:
        """One that is over is sent as 0, once: a gauge keeps its last value."""
        reasons = {why: number for (at, why), number in self._backlog.reasons.items() if at == name}
        for why in reasons.keys() | known.reasons.keys():
            number = reasons.get(why, 0)
            if is_all or known.reasons.get(why) != number:
                metrics.gauge_backend(metrics.HELD_BY_REASON, name, number, why, reason=why, **self._team)
        known.reasons = reasons

    def _look(self) -> None:
        backlog = next(self._looks)
        if backlog is not None:
            self._backlog = backlog


def names(backend: str, *reasons: str) -> list[str]:
    """The plain names of all gauges and counters of a backend of the router, for documentation and tests.

    :param reasons: for which jobs wait
    """
    gauges: list[Any] = [gauge.metric for gauge in GAUGES]
    counters = [metrics.DISPATCHED, metrics.FAILURES, *(f"dispatch.{what}" for what in survey.COUNTS)]
    return [
        *(f"{metric}.{backend}" for metric in (*gauges, *counters)),
        *(f"{metrics.HELD_BY_REASON}.{backend}.{reason}" for reason in reasons),
    ]
