# SPDX-License-Identifier: Apache-2.0
"""The machine of a cluster, and the time, for tests."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.engines.kubernetes._lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes._machine import Machine
from airflow_dispatch_provider.engines.kubernetes._pods import Pods, Seen
from airflow_dispatch_provider.engines.kubernetes._seen import Kind, Observation, PodName
from airflow_dispatch_provider.engines.kubernetes._steps import Create, Wait
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.lifecycle.events import (
    Sent,
)
from airflow_dispatch_provider.lifecycle.states import Outcome

DONE = Answer(Verdict.DONE, "")
FULL, TROUBLE = Answer(Verdict.FULL, "quota"), Answer(Verdict.TROUBLE, "webhook")
DOWN = Answer(Verdict.TROUBLE, "is down", scope=Scope.SERVER)
BUSY = Answer(Verdict.THROTTLED, "too many", scope=Scope.SERVER)
TOO_LARGE = Answer(Verdict.FULL, "more than the quota", scope=Scope.JOB)
INVALID = Answer(Verdict.INVALID, "no such image policy")
FAILED, SUCCESS = Outcome.FAILED, Outcome.SUCCESS


class World:
    """A machine for the namespaces ``a`` and ``b``, and the time."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.unwatched: dict[str, str] = {}
        self.machine = Machine("x", Lanes(("a", "b"), self.unwatched.get), Pods("7"), **options)

    def submit(self, *dispatches: int) -> World:
        self.machine.submit((number, f"key {number}") for number in dispatches)
        return self

    def step(self) -> Any:
        return self.machine.next(self.now)

    def steps(self) -> list[Any]:
        """All that may be done at this moment."""
        found = []
        while not isinstance(step := self.step(), Wait):
            found.append(step)
        return found

    def build(self, dispatch: int, namespace: str = "a") -> bool:
        assert self.step() == Create(dispatch)
        return self.machine.built(dispatch, pod(dispatch, namespace), f"m{dispatch}", self.now)

    def answer(self, dispatch: int, answer: Answer, **more: Any) -> list[Any]:
        self.machine.answered(dispatch, answer, self.now, **more)
        return self.machine.take_events()

    def ask(self, dispatch: int, answer: Answer, namespace: str = "a", **more: Any) -> list[Any]:
        """Have it built and answered; returns what is said."""
        assert self.build(dispatch, namespace)
        return self.answer(dispatch, answer, **more)

    def with_pod(self, dispatch: int = 1) -> World:
        assert self.submit(dispatch).ask(dispatch, DONE) == [Sent(dispatch, "7")]
        return self

    def see(self, dispatch: int, kind: Kind, **more: Any) -> list[Any]:
        self.machine.see(seen(dispatch, kind, **more))
        return self.machine.take_events()

    def revoke(self, dispatch: int, over: bool = False) -> list[Any]:
        self.machine.revoke(dispatch, self.now, over=over)
        return self.machine.take_events()

    @property
    def room(self) -> Any:
        return self.machine.room(10)

    def orders(self) -> list[Any]:
        return self.machine.take_orders()


def pod(dispatch: int, namespace: str = "a") -> PodName:
    return PodName(namespace, f"pod-{dispatch}")


def seen(
    dispatch: int, kind: Kind, started: bool = False, reason: str = "why", lives_on: bool = False, **more: Any
) -> Seen:
    observation = Observation(kind, reason, started, lives_on=lives_on)
    return Seen(pod(dispatch), observation, **{"mark": f"m{dispatch}", "version": "5", **more})
