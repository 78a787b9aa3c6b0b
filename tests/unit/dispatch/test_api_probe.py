# SPDX-License-Identifier: Apache-2.0
"""The clerk's question whether the Execution API answers."""

from __future__ import annotations

import threading

from airflow_dispatch_provider.dispatch.api_probe import ApiProbe
from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Broken, Recovered
from tests.support import wait_until


class Api:
    """Answers as long as it is ``up``."""

    def __init__(self, up: bool = True) -> None:
        self.up, self.asked, self.now = up, 0, 0.0
        self.answering = threading.Event()
        self.answering.set()
        self.probe = ApiProbe(self.reach, 0.05, lambda: self.now)

    def learns(self, times: int) -> bool:
        """Whether it has asked so often, soon."""
        return wait_until(lambda: (self.probe.learn(), self.asked == times)[1])

    def reach(self) -> None:
        self.asked += 1
        self.answering.wait(10)
        if not self.up:
            raise OSError("refused")


def test_one_that_has_answered_before_is_away_when_it_does_not():
    """And is back as soon as it does."""
    api = Api()
    assert api.probe.ask() == Recovered(EXECUTION_API)
    api.up = False
    assert api.probe.ask() == Broken(EXECUTION_API, "OSError: refused")
    api.up = True
    assert api.probe.ask() == Recovered(EXECUTION_API)


def test_of_one_that_has_never_answered_nothing_is_concluded():
    """A network policy may keep the scheduler from it, and not the tasks."""
    api = Api(up=False)
    api.probe.learn()
    assert api.probe.ask() is None
    assert api.probe.ask() is None


def test_whether_it_can_be_reached_is_learnt_before_it_is_needed():
    """At once and then now and then, until it has answered; a scheduler often starts before it."""
    api = Api(up=False)
    assert api.learns(1)
    api.now = 59.0
    api.probe.learn()
    assert api.asked == 1
    api.now, api.up = 60.0, True
    assert api.learns(2)
    api.now = 1000.0
    api.probe.learn()
    assert api.asked == 2
    api.up = False
    assert wait_until(lambda: api.probe.ask() == Broken(EXECUTION_API, "OSError: refused"))


def test_one_that_takes_its_time_does_not_answer():
    """However it does so: the thread that asks has other work. It is asked once, until it has answered."""
    api = Api()
    assert api.probe.ask() == Recovered(EXECUTION_API)
    api.answering.clear()
    for _ in range(2):
        assert api.probe.ask() == Broken(EXECUTION_API, "no answer within 0.05 s")
    api.probe.learn()
    assert api.asked == 2
    api.answering.set()
    assert wait_until(lambda: api.probe.ask() == Recovered(EXECUTION_API))


def test_learning_waits_for_nothing():
    """The database's work comes first."""
    api = Api()
    api.answering.clear()
    api.probe.learn()
    assert api.probe.ask() is None
    api.answering.set()
