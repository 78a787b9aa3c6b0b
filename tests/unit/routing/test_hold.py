# SPDX-License-Identifier: Apache-2.0
"""The hold queue against a simple model of it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from unit.routing.builders import match

from airflow_dispatch_provider.routing import hold
from airflow_dispatch_provider.routing.hold import Entries, HoldQueue
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, EXECUTE_TASK, Held

MATCHES = [match("a"), match("b"), match("a", "b"), match("a", "b", overflow_after="never", name="never")]


def held(key, priority=1, sequence=0, **more):
    return Held(key, priority, 0.0, sequence, **more)


def test_add_and_remove():
    """A workload that was added can be taken out by its key, once."""
    queue, one = HoldQueue(), held("x")
    queue.add(one, MATCHES[0], MATCHES[0].route.to)
    assert (len(queue), "x" in queue, list(queue)) == (1, True, ["x"])
    assert queue.remove("x") is one
    assert queue.remove("x") is None
    assert (len(queue), list(queue.lanes)) == (0, [])


def test_same_key_again_replaces():
    """A workload that is queued again counts once, in its new lane."""
    queue, new = HoldQueue(), held("x", sequence=2)
    queue.add(held("x", sequence=1), MATCHES[0], MATCHES[0].route.to)
    queue.add(new, MATCHES[1], MATCHES[1].route.to)
    assert list(queue.held) == [new]
    assert dict(+queue.by_first_choice) == {"b": 1}


def test_lanes_are_apart():
    """Another route, another order of targets or another type of workload makes another lane."""
    queue, ab = HoldQueue(), MATCHES[2]
    queue.add(held(1, sequence=1), ab, ab.route.to)
    queue.add(held(2, sequence=2), ab, ab.route.to[::-1])
    queue.add(held(3, sequence=3, kind=EXECUTE_CALLBACK), ab, ab.route.to)
    queue.add(held(4, sequence=4), MATCHES[3], MATCHES[3].route.to)
    queue.add(held(5, sequence=5), ab, ab.route.to)
    assert [[each.key for each in lane.entries] for lane in queue.lanes] == [[1, 5], [2], [3], [4]]


def test_workload_is_not_shown():
    """The repr has no workload in it: that has a token."""
    assert "secret" not in repr(held("x", workload="secret"))


@pytest.mark.parametrize(("after", "seconds"), [(0.0, 0.0), (30.0, 30.0), ("never", float("inf"))])
def test_overflow_after_of_a_lane(after, seconds):
    """``never`` is an infinite number of seconds."""
    where = match("a", "b", overflow_after=after)
    assert hold.Lane(where, where.route.to, EXECUTE_TASK).overflow_after == seconds


def test_many_entries_stay_sorted_in_small_pieces():
    """However many wait and wherever they are put, no piece is larger than it may be."""
    entries = Entries()
    everything = [held(number, priority=number * 7919 % 101, sequence=number) for number in range(3000)]
    for each in everything:
        entries.add(each)
    assert list(entries) == sorted(everything, key=lambda each: each.order)
    assert max(map(len, entries._pieces)) <= hold._PIECE
    for each in everything[::2]:
        entries.remove(each)
    assert list(entries) == sorted(everything[1::2], key=lambda each: each.order)
    assert len(entries) == 1500
    for each in everything[1::2]:
        entries.remove(each)
    assert (list(entries), bool(entries), entries._pieces, entries._lasts) == ([], False, [], [])


class HoldQueueModel(RuleBasedStateMachine):
    """A dict from key to (held, match) is what the queue has to agree with."""

    keys = st.integers(0, 30)

    def __init__(self):
        super().__init__()
        self.queue, self.model, self.count = HoldQueue(), {}, 0
        self.piece, hold._PIECE = hold._PIECE, 4

    def teardown(self):
        hold._PIECE = self.piece

    @rule(key=keys, where=st.sampled_from(MATCHES), priority=st.integers(0, 3), since=st.floats(0, 9))
    def add(self, key, where, priority, since):
        self.count += 1
        new = Held(key, priority, since, self.count)
        self.queue.add(new, where, where.route.to)
        self.model[key] = (new, where)

    @rule(key=keys)
    def give_back(self, key):
        """A workload that a backend refused comes back with its old place."""
        if key in self.model:
            old, where = self.model[key]
            assert self.queue.remove(key) is old
            self.queue.add(old, where, where.route.to)

    @rule(key=keys)
    def remove(self, key):
        assert self.queue.remove(key) is self.model.pop(key, (None,))[0]

    @rule()
    def clear(self):
        everything = sorted((each for each, _ in self.model.values()), key=lambda each: each.order)
        assert self.queue.clear() == everything
        self.model.clear()

    @invariant()
    def agrees(self):
        assert len(self.queue) == len(self.model)
        assert set(self.queue) == set(self.model)
        assert {id(each) for each in self.queue.held} == {id(each) for each, _ in self.model.values()}
        expected = {}
        for each, where in sorted(self.model.values(), key=lambda pair: pair[0].order):
            expected.setdefault(where, []).append(each)
        assert {lane.match: list(lane.entries) for lane in self.queue.lanes} == expected
        assert all(lane.since <= each.since for lane in self.queue.lanes for each in lane.entries)
        for backend in "ab":
            first = sum(where.route.to[0].backend == backend for _, where in self.model.values())
            assert self.queue.by_first_choice.get(backend, 0) == first


TestHoldQueueModel = HoldQueueModel.TestCase
TestHoldQueueModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
