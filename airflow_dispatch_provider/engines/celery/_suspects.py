# SPDX-License-Identifier: Apache-2.0
"""Messages that may be with nobody: a broker that keeps no receipts may not have got them, or a worker has dropped
them. One that cannot store that it has started neither runs its task nor gives the message back, with Celery's own
settings. Pure: times are monotonic seconds, and given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from airflow_dispatch_provider.engines.celery._flights import Flight

LOOK_AFTER = 60.0
"""Seconds after an outage of the result backend: by then most workers have said which messages they have."""

LOOK_AGAIN = 30.0
"""Seconds. What is twice in no queue, with nothing said of it in between, is nowhere."""

NOWHERE = "its message is in no queue, and no worker says that it has it"


class Suspects:
    """Of one engine. Whoever is wrong about one does no harm: its task is sent again, and the execution API lets only
    one message begin."""

    def __init__(self) -> None:
        self._outages, self._is_away = 0, False
        self._left: dict[Flight, int] = {}
        """How often each was in no queue."""

        self._look_at = inf

    def note(self, now: float, outages: int, is_away: bool, flights: Iterable[Flight]) -> None:
        """
        :param outages: of the result backend, that are over: workers may have dropped what was sent until then
        :param is_away: whether it is
        """
        if outages > self._outages:
            self.add(now, flights)
        self._outages, self._is_away = outages, is_away

    def add(self, now: float, flights: Iterable[Flight]) -> None:
        """Those among them that are sent and with no worker; of callbacks nobody could say whether they have run."""
        self._left |= {each: 0 for each in flights if each.sent and each.is_task and not each.taken}
        self._look_at = now + LOOK_AFTER

    def queues(self, now: float) -> list[str]:
        """Those that have to be counted now."""
        if now < self._look_at or self._is_away:
            return []
        self._left = {
            flight: times for flight, times in self._left.items() if not (flight.taken or flight.over)
        }
        self._look_at = now + LOOK_AGAIN if self._left else inf
        return list(dict.fromkeys(flight.queue for flight in self._left))

    def judge(self, counts: Mapping[str, int]) -> list[Flight]:
        """Those that are nowhere.

        :param counts: messages that wait in each queue
        """
        for flight in self._left:
            if flight.queue in counts:
                self._left[flight] = 0 if counts[flight.queue] else self._left[flight] + 1
        found = [
            flight for flight, times in self._left.items() if times > 1 and not (flight.taken or flight.over)
        ]
        for flight in found:
            del self._left[flight]
        return found
