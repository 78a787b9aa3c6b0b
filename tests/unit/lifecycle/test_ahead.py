# SPDX-License-Identifier: Apache-2.0
"""Jobs that a backend is given before it has a slot for them."""

from __future__ import annotations

import pytest
from unit.lifecycle.builders import dispatches, launched, machine, of, queued, route, settings, tick

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    BackendRules,
    Broken,
    Command,
    Ended,
    Order,
    Rejected,
    Returned,
    Room,
    Sent,
)
from airflow_dispatch_provider.lifecycle.states import Outcome, State


def room(ahead, slots=2):
    """Of an engine that takes so many ahead."""
    return Room(slots, ahead=ahead)


def full(ahead, *more):
    """A machine whose backend a has two that run, and takes so many ahead; ``more`` is queued then."""
    m = machine(route("*", "a"))
    found = dispatches(m.handle(0, queued("one"), queued("two"), tick(a=room(0))))
    m.handle(1, *(Sent(each.number) for each in found.values()))
    given = launched(m, 2, *more, a=room(ahead))
    return m, {key: each.number for key, each in found.items()}, given


def taken_back(found):
    return [each for action in of(found, actions.Withdraw) for each in action.dispatches]


def number_of(m, key):
    return m._ledger.jobs[key].dispatch


def test_the_best_are_given_ahead_and_no_more_than_it_takes():
    """By priority; the others are held."""
    m, _, given = full(2, queued("low", priority=1), queued("high", priority=9), queued("mid", priority=5))
    assert given == {"high": "a", "mid": "a"}
    assert (m.held, m.slots_used["a"]) == (1, 2)
    assert m.in_short().startswith("a 2/2 +2 ahead,")


def test_nothing_is_given_ahead_where_a_target_is_free():
    """A free slot elsewhere is better than one that will be free."""
    m = machine(route("*", "a", "b"))
    m.handle(0, queued("one"), tick(a=room(5, slots=1), b=0))
    assert launched(m, 1, queued("two"), a=room(5, slots=1), b=1) == {"two": "b"}


def test_what_starts_has_a_slot():
    """And leaves room for another one ahead."""
    m, out, _ = full(1, queued("three"))
    m.handle(3, Ended(out["one"], Outcome.FAILED, True), Sent(number_of(m, "three")))
    assert m.slots_used["a"] == 2
    assert launched(m, 4, queued("four"), a=room(1)) == {"four": "a"}


def test_one_that_is_better_overtakes_what_was_given_ahead():
    """The worst of what waits is asked back, once, and held in its old place; the better one is given at once."""
    m, _, _ = full(2, queued("x", priority=5), queued("y", priority=1))
    found = m.handle(3, queued("z", priority=9), tick(a=room(2)))
    assert (taken_back(found), list(dispatches(found))) == ([number_of(m, "y")], ["z"])
    assert taken_back(m.handle(4, tick(a=room(2)))) == []
    assert launched(m, 5, Returned(number_of(m, "y")), a=room(2)) == {}
    assert m.state("y") is State.HELD


def told(found):
    """By key: what the user of a task is told of it."""
    return {each.key: (each.word, each.detail) for each in of(found, actions.Record)}


def withdrawn(why, backend="a"):
    return "withdrawn", f"{why}: it is taken back from {backend!r}, unless it has been sent"


def test_whoever_is_given_ahead_is_said_to_be():
    """The others have a slot."""
    m = machine(route("*", "a"))
    found = dispatches(m.handle(0, queued("one"), queued("two"), tick(a=room(1, slots=1))))
    assert {key: each.ahead for key, each in found.items()} == {"one": False, "two": True}


def test_users_are_told_why_a_task_is_taken_back_that_was_given_ahead():
    """Once: others have overtaken it, its backend takes fewer, another target is free, or its route leads elsewhere."""
    m, _, _ = full(2, queued("x", priority=5), queued("y", priority=1))
    found = m.handle(3, queued("z", priority=9), tick(a=room(2)))
    assert told(found) == {"y": withdrawn("others go first that wait for the next free slot there")}
    assert told(m.handle(4, tick(a=room(2)))) == {}
    assert told(m.handle(5, Returned(number_of(m, "y")), tick(a=room(1)))) == {
        "x": withdrawn("it takes fewer ahead of a free slot")
    }
    m = two_backends()
    found = m.handle(4, tick(a=room(2, slots=1), b=room(0, slots=2)))
    free = "'b' takes it now (a target before it is full and the route lets tasks overflow)"
    assert told(found) == {"x1": withdrawn(free)}
    found = m.handle(5, settings(route("*", "b")), tick(a=room(2, slots=1), b=room(0, slots=1)))
    assert told(found) == {"x2": withdrawn("its route does not lead there any more")}


def test_what_is_drained_is_told_once():
    """It is not asked back a second time for having no place ahead."""
    m, _, _ = full(1, queued("x"))
    found = m.handle(3, Order(Command.DRAIN, "a"), tick(a=room(1)))
    assert told(found) == {"x": withdrawn("an operator has ordered drain")}
    assert (taken_back(found), told(m.handle(4, tick(a=room(1))))) == ([number_of(m, "x")], {})


def two_backends(overflow_after=0.0):
    """Both take two ahead; x1 and x2 are ahead at a."""
    m = machine(route("*", "a", "b", overflow_after=overflow_after))
    for now, key in enumerate(("one", "two")):
        m.handle(
            now, queued(key), tick(a=room(0, slots=int(key == "one")), b=room(0, slots=int(key == "two")))
        )
    given = launched(
        m, 3, *(queued(key, priority=5) for key in ("x1", "x2")), a=room(2, slots=1), b=room(0, slots=1)
    )
    assert given == {"x1": "a", "x2": "a"}
    return m


def test_none_is_passed_over_for_a_worse_one():
    """The best of what waits go where there is still room, though their first choice has none left."""
    m = two_backends()
    more = [queued(key, priority=priority) for key, priority in (("p1", 5), ("p2", 5), ("low", 1))]
    assert launched(m, 4, *more, a=room(2, slots=1), b=room(2, slots=1)) == {"p1": "b", "p2": "b"}


def test_a_slot_that_becomes_free_elsewhere_is_better():
    """As many come back as there are slots, the best first."""
    m = two_backends()
    found = m.handle(4, tick(a=room(2, slots=1), b=room(2, slots=2)))
    assert taken_back(found) == [number_of(m, "x1")]


def test_a_target_that_cannot_have_it_now_is_no_better():
    """Though it has a free slot: it has refused this job, or its lane of it is full."""
    m = machine(route("*", "b", "a"), rules={"b": BackendRules(by_queue=True)})
    found = m.handle(0, queued("one"), queued("x"), tick(a=room(0, slots=1), b=1))
    assert {key: each.target.backend for key, each in dispatches(found).items()} == {"one": "b", "x": "a"}
    refused = Rejected(dispatches(found)["one"].number, "no luck")
    full_lane = Room(9, closed={"other": "full"})
    assert launched(m, 1, refused, queued("y", "other"), a=room(2, slots=1), b=full_lane) == {
        "one": "a",
        "y": "a",
    }
    assert taken_back(m.handle(1.5, tick(a=room(2, slots=1), b=Room(8, closed={"other": "full"})))) == []


def test_what_may_overflow_is_taken_back_for_that():
    """As soon as it has waited long enough."""
    m = two_backends(overflow_after=5)
    free = {"a": room(2, slots=1), "b": room(0, slots=3)}
    assert taken_back(m.handle(7, tick(**free))) == []
    assert len(taken_back(m.handle(9, tick(**free)))) == 2


def test_what_is_not_routed_there_any_more_is_taken_back():
    """The routes have changed."""
    m = two_backends()
    found = m.handle(4, settings(route("*", "b")), tick(a=room(2, slots=1), b=room(0, slots=1)))
    assert len(taken_back(found)) == 2


def test_an_equal_does_not_overtake():
    """Who was given ahead is older."""
    m, _, _ = full(1, queued("x"))
    assert taken_back(m.handle(3, queued("y"), tick(a=room(1)))) == []


def test_what_waits_elsewhere_does_not_overtake():
    """A job whose own backend is full takes nobody's place."""
    m = machine(route("q", "a"), route("other", "b"))
    m.handle(0, queued("one"), tick(a=room(0, slots=1), b=0))
    m.handle(1, queued("two"), tick(a=room(1, slots=1), b=0))
    assert taken_back(m.handle(2, queued("three", "other", priority=9), tick(a=room(1, slots=1), b=0))) == []


@pytest.mark.parametrize("number", [0, 1])
def test_what_its_engine_does_not_expect_to_start_any_more_is_taken_back(number):
    """The worst first."""
    m, _, _ = full(2, queued("x", priority=5), queued("y", priority=1))
    expected = [number_of(m, key) for key in ("x", "y")[number:]]
    assert sorted(taken_back(m.handle(3, tick(a=room(number))))) == sorted(expected)


@pytest.mark.parametrize("trouble", [Order(Command.CORDON, "a"), Broken("a", "no fork")])
def test_a_backend_that_takes_nothing_gets_nothing_ahead(trouble):
    """Cordoned, or failed."""
    m, _, _ = full(2)
    assert launched(m, 3, trouble, queued("x"), a=room(2)) == {}


def test_a_cordoned_backend_keeps_nothing_ahead():
    """Also while the database is asked what is still this scheduler's; what has a slot may stay."""
    for command in (Command.CORDON, Command.DRAIN):
        m, _, _ = full(2, queued("x"))
        assert taken_back(m.handle(3, Order(command, "a"))) == [number_of(m, "x")]
    m, _, _ = full(2, queued("x"))
    m.handle(3, queued("y"), tick(a=room(2, slots=4)))
    rules = {"a": BackendRules(cordoned=True)}
    assert taken_back(m.handle(4, settings(route("*", "a"), rules=rules))) == [number_of(m, "x")]


def test_airflow_may_queue_what_can_be_given_ahead():
    """It counts taken slots against its parallelism, and asks each executor for free ones."""
    m, _, _ = full(3)
    assert (m.free_slots(), m.slots_occupied()) == (3, 0)
    m.handle(3, queued("x"), tick(a=room(3)))
    assert (m.free_slots(), m.slots_occupied(), m.slots_used["a"]) == (2, 0, 2)
    m.handle(4, queued("y"), queued("z"), tick(a=room(3)))
    assert (m.free_slots(), m.slots_occupied(), m.slots_used["a"]) == (0, 2, 2)


def test_where_a_slot_is_free_more_could_run_than_airflows_parallelism():
    """So all that is out is occupied."""
    m, _, _ = full(3)
    for b in (1, Room(1, takes=0)):
        m.handle(3, tick(a=room(3), b=b))
        assert m.slots_occupied() == 2
    m.handle(4, Order(Command.CORDON, "b"))
    assert m.slots_occupied() == 0


def test_room_ahead_lets_no_backlog_grow():
    """Only a free slot is worth more than one task in the way of another."""
    m = machine(route("q", "a"), route("other", "b"), max_held=100)
    m.handle(0, queued("one"), queued("two", "other"), tick(a=room(0, slots=1), b=1))
    m.handle(1, *(queued(n, "other") for n in range(5)), tick(a=room(2, slots=1), b=1))
    assert m.free_slots() == 2
