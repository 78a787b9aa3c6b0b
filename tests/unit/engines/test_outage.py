# SPDX-License-Identifier: Apache-2.0
"""When what fails is tried again, and how often it is said."""

from __future__ import annotations

import logging

from airflow_dispatch_provider.engines.outage import Backoff, OutageLog
from airflow_dispatch_provider.masking import LateTraceback

log = logging.getLogger("outage")


def test_delays_double_up_to_their_bound():
    """One second, two, four, and no more than the longest; a success begins anew."""
    backoff, delays = Backoff(1.0, 8.0), []
    for _ in range(6):
        backoff = backoff.failed(100.0)
        delays.append(backoff.until - 100.0)
    assert delays == [1, 2, 4, 8, 8, 8]
    assert backoff.over().failed(0.0).until == 1.0


def test_chance_spreads_the_upper_half():
    """Schedulers that fail together do not try again together."""
    assert [Backoff(8.0).failed(0.0, chance).until for chance in (0, 0.5, 1)] == [4, 6, 8]


def test_due():
    """At once before any failure, and from the end of the delay on."""
    failed = Backoff(1.0).failed(100.0)
    assert (Backoff().due(0.0), failed.due(100.9), failed.due(101.0)) == (True, False, True)


def test_a_thousand_failures_are_no_overflow():
    """The delay stays what it is."""
    backoff = Backoff()
    for _ in range(1_100):
        backoff = backoff.failed(0.0)
    assert backoff.until == 60.0


def test_trouble_is_said_once_and_so_is_its_end(caplog):
    """One line for a thousand heartbeats, with its details; one when it is over; and again the next time."""
    caplog.set_level(logging.INFO)
    outage = OutageLog(log, "Backend 'a'")
    outage.over()
    for _ in range(3):
        outage.failed("heartbeat failed: OSError: away", "\nTraceback")
    outage.over()
    outage.failed("again")
    assert [record.getMessage() for record in caplog.records] == [
        "Backend 'a': heartbeat failed: OSError: away\nTraceback",
        "Backend 'a' works again.",
        "Backend 'a': again",
    ]


def test_a_traceback_is_made_for_the_line_that_shows_it(caplog):
    """Trouble may repeat itself with every heartbeat for hours."""

    class Counted(LateTraceback):
        made = 0

        def __str__(self) -> str:
            Counted.made += 1
            return super().__str__()

    caplog.set_level(logging.INFO)
    outage = OutageLog(log, "Backend 'a'")
    outage.failed("away", Counted(OSError("refused")))
    assert [record.getMessage() for record in caplog.records] == ["Backend 'a': away\nOSError: refused"]
    Counted.made = 0
    outage.failed("away", Counted(OSError("refused")))
    assert Counted.made == 0
