# SPDX-License-Identifier: Apache-2.0
"""Properties of every decision, whatever is held and whatever the backends are like."""

from __future__ import annotations

import copy
from collections import Counter
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from airflow_dispatch_provider.routing.decide import choose, decide
from airflow_dispatch_provider.routing.hold import HoldQueue
from airflow_dispatch_provider.routing.model import KIND_RANK, BackendView, Held, Route, Snapshot, Target
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.routing.routes import Match, ordered_targets

NAMES = "abcd"
KINDS = st.sampled_from(list(KIND_RANK))
NOW = 100.0

views = st.builds(
    BackendView,
    free=st.integers(-1, 4),
    blocked=st.sampled_from([None, None, None, Reason.CORDONED, Reason.CIRCUIT_OPEN]),
    kinds=st.frozensets(KINDS, min_size=1),
)
# ``d`` is never configured.
snapshots = st.builds(Snapshot, st.just(NOW), st.dictionaries(st.sampled_from("abc"), views))


@st.composite
def routes(draw):
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    weighted = draw(st.booleans())
    weights = [draw(st.integers(0, 3)) if weighted else None for _ in names]
    after = draw(st.sampled_from([0.0, 30.0, 60.0, "never"]))
    to = tuple(Target(backend=name, weight=weight) for name, weight in zip(names, weights, strict=True))
    return Route(queue="q", to=to, overflow_after=after)


@st.composite
def hold_queues(draw):
    matches = [
        Match(f"r{n}", route) for n, route in enumerate(draw(st.lists(routes(), min_size=1, max_size=3)))
    ]
    work = st.tuples(
        st.sampled_from(matches), st.integers(0, 3), st.floats(0, NOW), KINDS, st.text(max_size=2)
    )
    queue = HoldQueue()
    for number, (match, priority, since, kind, seed) in enumerate(draw(st.lists(work, max_size=25))):
        held = Held(number, priority, since, number, kind=kind)
        queue.add(held, match, ordered_targets(match.route, seed))
    return queue


def lanes_by_key(queue):
    return {held.key: lane for lane in queue.lanes for held in lane.entries}


def left_over(snapshot, decisions):
    free = {name: view.free for name, view in snapshot.backends.items()}
    for decision in decisions:
        free[decision.target.backend] -= 1
    return free


def would_choose(held, lane, snapshot, free):
    after = lane.match.route.overflow_after
    limit = inf if after == "never" else after
    return choose(lane.targets, held.kind, snapshot.now - held.since, limit, snapshot.backends, free)


@given(snapshots, hold_queues())
def test_never_more_than_the_free_slots(snapshot, queue):
    """No backend is given more than it could take."""
    taken = Counter(decision.target.backend for decision in decide(snapshot, queue.lanes))
    assert all(count <= snapshot.backends[name].free for name, count in taken.items())


@given(snapshots, hold_queues())
def test_nothing_is_decided_twice(snapshot, queue):
    """A workload goes to one backend."""
    keys = [decision.held.key for decision in decide(snapshot, queue.lanes)]
    assert len(keys) == len(set(keys))
    assert all(key in queue for key in keys)


@given(snapshots, hold_queues())
def test_only_usable_targets_of_the_own_route(snapshot, queue):
    """The target is one of the workload's route; its backend is configured, takes work, and can run it."""
    lanes = lanes_by_key(queue)
    for decision in decide(snapshot, queue.lanes):
        lane, view = lanes[decision.held.key], snapshot.backends[decision.target.backend]
        assert decision.target in lane.match.route.to
        assert decision.route == lane.match.name
        assert view.blocked is None
        assert decision.held.kind in view.kinds


@given(snapshots, hold_queues())
def test_maximal(snapshot, queue):
    """Nothing waits that the slots left over would serve."""
    decisions = decide(snapshot, queue.lanes)
    free, placed = left_over(snapshot, decisions), {decision.held.key for decision in decisions}
    lanes = lanes_by_key(queue)
    for held in queue.held:
        if held.key not in placed:
            assert would_choose(held, lanes[held.key], snapshot, free)[0] is None


@given(snapshots, hold_queues())
def test_same_as_serving_one_after_the_other(snapshot, queue):
    """Targets, order and reasons are those of the plain way: sort everything, ask ``choose`` for each. Hence
    priority is respected: what goes before a workload that waits takes nothing that it could have used."""
    free = left_over(snapshot, [])
    lanes, expected = lanes_by_key(queue), []
    for held in sorted(queue.held, key=lambda held: held.order):
        target, reason = would_choose(held, lanes[held.key], snapshot, free)
        if target is not None:
            free[target.backend] -= 1
            expected.append((held.key, target, reason))
    found = decide(snapshot, queue.lanes)
    assert [(each.held.key, each.target, each.reason) for each in found] == expected


@given(snapshots, hold_queues())
def test_pure(snapshot, queue):
    """Deciding changes nothing, and the same input gives the same decisions."""
    before = copy.deepcopy(snapshot)
    held = [(id(lane), list(lane.entries)) for lane in queue.lanes]
    first, second = decide(snapshot, queue.lanes), decide(snapshot, queue.lanes)
    assert first == second
    assert snapshot == before
    assert [(id(lane), list(lane.entries)) for lane in queue.lanes] == held


@given(routes(), st.text(), st.sampled_from(NAMES))
def test_order_of_targets(route, seed, gone):
    """All targets, once each, the same each time; without one of them the others keep their order."""
    order = ordered_targets(route, seed)
    assert sorted(map(str, order)) == sorted(map(str, route.to))
    assert ordered_targets(route, seed) == order
    rest = tuple(target for target in route.to if target.backend != gone)
    if rest:
        smaller = Route(queue="q", to=rest)
        assert ordered_targets(smaller, seed) == tuple(target for target in order if target.backend != gone)
