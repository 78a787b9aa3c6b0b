# SPDX-License-Identifier: Apache-2.0
"""A thread that does what it is asked, whatever that raises."""

from __future__ import annotations

import logging
import threading

from airflow_dispatch_provider.dispatch.worker import Worker


def test_what_fails_is_said_once_and_stops_nothing(caplog):
    """Also what ends a thread as a rule; and when it works again."""
    caplog.set_level(logging.INFO)
    worker, done = Worker("dispatch-test", logging.getLogger(__name__)), threading.Event()

    def fails() -> None:
        raise SystemExit("a hook")

    for call in (fails, fails, lambda: None, done.set):
        worker.do("orders", call)
    assert done.wait(20)
    said = [each.getMessage().splitlines()[0] for each in caplog.records]
    assert said == [
        "The database, as asked beside the scheduler's own work (orders): SystemExit: a hook",
        "The database, as asked beside the scheduler's own work (orders) works again.",
    ]


def test_one_that_hangs_holds_up_nobody_who_asks(caplog):
    """It does later, in order, whatever it was asked meanwhile."""
    worker, released, done = (
        Worker("dispatch-test", logging.getLogger(__name__)),
        threading.Event(),
        threading.Event(),
    )
    worker.do("status", lambda: released.wait(20) and None)
    worker.do("orders", done.set)
    assert not done.is_set()
    released.set()
    assert done.wait(20)
