# SPDX-License-Identifier: Apache-2.0
"""Random weather over more tasks than every interleaving could be tried for: all kinds of faults, then calm."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from unit.lifecycle.small_scheduler import forget
from unit.lifecycle.world import World

from airflow_dispatch_provider.lifecycle.events import Room

FAULTS = (
    "crashes",
    "loss",
    "reject",
    "give_back",
    "api",
    "stuck",
    "outage",
    "mute",
    "vain",
    "defer",
    "mistaken",
    "recall",
    "die",
)
CALM = 600
"""Steps that are enough for a few tasks to end once nothing fails any more."""


class AnyWeather(RuleBasedStateMachine):
    """Four tasks; the world itself raises where an invariant does not hold (see ``world.Wrong``)."""

    @initialize(
        slots=st.integers(1, 3),
        reconciled=st.booleans(),
        budget=st.fixed_dictionaries({fault: st.integers(0, 2) for fault in FAULTS}),
    )
    def begin(self, slots, reconciled, budget):
        forget()
        rooms = {"a": Room(slots), "b": Room(1)}
        self.world = World(reconciled=reconciled or budget["loss"] > 0, tasks=4, rooms=rooms, **budget)

    @rule(choice=st.integers(0, 10_000))
    def anything(self, choice):
        """One step, whatever it is."""
        steps = list(self.world.steps())
        if steps:
            _, name, arguments = steps[choice % len(steps)]
            getattr(self.world, name)(*arguments)

    @invariant()
    def no_more_out_than_slots(self):
        """A backend has no more dispatches than slots, but for those that were adopted."""
        if hasattr(self, "world"):
            assert not any(scheduler.frozen.overfull for scheduler in self.world.schedulers)

    def teardown(self):
        """Once faults stop, everything succeeds, at its first try, and nothing is left behind."""
        if not hasattr(self, "world"):
            return
        for turn in range(CALM):
            self.world.drop_inert()
            steps = [step for step in self.world.steps() if not step[0]]
            if self.world.done or not steps:
                break
            _, name, arguments = steps[turn % len(steps)]
            getattr(self.world, name)(*arguments)
        assert self.world.done, (self.world.rows, self.world.copies)


AnyWeather.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnyWeather = AnyWeather.TestCase
