# SPDX-License-Identifier: Apache-2.0
"""A scheduler in a small world: a real machine, and what it waits for."""

from __future__ import annotations

from typing import NamedTuple

from unit.lifecycle.builders import route, settings
from unit.lifecycle.frozen import FOREVER, LONG, freeze, thaw

from airflow_dispatch_provider.lifecycle.events import (
    BackendRules,
    Room,
)


def _settings(look_every):
    return settings(
        route("q", "a", "b"),
        rules={"a": BackendRules(by_queue=True)},
        look_every=look_every,
        refresh_every=FOREVER,
        let_go_after=LONG * 1.5,
        paused_after=FOREVER,
        launch_retries=3,
    )


SETTINGS, LOOKING = _settings(FOREVER), _settings(LONG / 2)
ROOMS = {"a": Room(1), "b": Room(1)}
SURVIVES = {"a": ("sent", "running"), "b": ("running",)}
"""The part of a backend that outlives its scheduler: a is like Celery, b like local processes."""

KNOWS = {"a": False, "b": True}
"""Whether its engine can tell that a task has begun."""

NOBODY = -1


class Copy(NamedTuple):
    """One dispatch as its engine has it."""

    owner: int
    """The scheduler that hears of it; NOBODY: none."""

    number: int
    job: int
    backend: str
    phase: str = "unsent"
    """``unsent``, ``sent``, ``running``; ``done`` and ``refused`` until the scheduler has heard of it."""


class Scheduler:
    """A machine with its own clock, and what it waits for. Only what a step touches is thawed."""

    def __init__(self, alive_as, empty):
        self.alive_as = alive_as
        """The id under which it queues; NOBODY once it was taken for dead."""

        self.questions = ()
        self.adoptions = ()
        self.down = ""
        """The backend that it cannot reach, or that does not answer it."""

        self.frozen = empty

    def copy(self):
        other = Scheduler.__new__(Scheduler)
        other.__dict__.update(self.__dict__)
        return other

    def hear(self, passed, events):
        """Let time pass and the machine handle events; returns what it wants done. What the same machine has done
        with the same before is not computed again."""
        question = (self.frozen.content, passed, repr(events))
        known = _KNOWN.get(question)
        if known is None:
            machine, now = thaw(self.frozen.content)
            now += passed
            wanted = machine.handle(now, *events)
            known = _KNOWN[question] = (freeze(machine, now), wanted)
        self.frozen, wanted = known
        return wanted

    def as_value(self, jobs, queued):
        """Equal for schedulers in which the same may happen from now on.

        :param jobs: names of the tasks
        :param queued: how often each of them was queued by now
        """
        frozen = self.frozen
        questions = tuple(
            (
                type(q).__name__,
                *sorted((jobs[k], q.asked >= frozen.moments[k], before[k] == queued[k]) for k in q.keys),
            )
            for q, before in self.questions
        )
        adoptions = tuple((b, jobs[f.key], frozen.ranks.get(f.number, 0), f.runs) for b, f in self.adoptions)
        return self.alive_as != NOBODY, self.down, adoptions, questions, frozen.keys[jobs[0]]


_KNOWN = {}


def forget():
    """Remembered steps of machines; a search fills some hundred megabytes with them."""
    _KNOWN.clear()
