# SPDX-License-Identifier: Apache-2.0
"""An engine that cannot be made, or raises, stays its own trouble."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.engines.guarded import GuardedEngine
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.lifecycle.events import Adopted, Returned, Room, Sent
from tests.unit.engines.foreign_executors import Clock

JOB = Job(1, "key", "workload")
FOUND = Found(2, "other key", "ti", True)


class Engine:
    """Does what it is told; ``failing`` has the methods that raise."""

    slots, has_lanes = 0, True

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.calls: list[Any] = []

    def _call(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        if name in self.failing:
            raise ValueError(f"no {name}")

    def start(self, scheduler_id: str) -> None:
        self._call("start", scheduler_id)

    def room(self) -> Room:
        self._call("room")
        return Room(self.slots)

    def submit(self, jobs: Any) -> None:
        self._call("submit", *jobs)

    def withdraw(self, dispatches: Any) -> set[int]:
        self._call("withdraw")
        return set(dispatches)

    def revoke(self, dispatch: int, over: bool = False) -> None:
        self._call("revoke", dispatch, over)

    def forget(self, dispatch: int) -> None:
        self._call("forget", dispatch)

    def adopt(self, found: Any) -> None:
        self._call("adopt", *found)

    def poll(self) -> list[Any]:
        self._call("poll")
        return [Sent(7)]

    def stop(self, deadline: float) -> set[int]:
        self._call("stop", deadline)
        return {1}

    def terminate(self) -> None:
        self._call("terminate")

    def lane(self, workload: Any) -> str:
        self._call("lane", workload)
        return f"lane of {workload}"

    def tidy(self, living: Any) -> None:
        self._call("tidy", living)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def x(engine: Engine, clock: Clock) -> GuardedEngine:
    made = GuardedEngine("a", lambda: engine, 3, Backoff(4.0, 60.0), clock)
    made.start("77")
    return made


def test_what_it_is_told_reaches_the_engine(x, engine) -> None:
    x.submit([JOB])
    x.revoke(1, True)
    x.forget(1)
    x.adopt([FOUND])
    assert (x.room(), x.withdraw([1]), x.poll()) == (Room(3), {1}, [Sent(7)])
    x.slots = 5
    assert (x.room(), x.lane("job"), x.stop(9.0)) == (Room(5), "lane of job", {1})
    x.tidy({"77"})
    x.terminate()
    named = [call for call in engine.calls if call[0] not in ("room", "withdraw", "poll")]
    assert named == [
        ("start", "77"),
        ("submit", JOB),
        ("revoke", 1, True),
        ("forget", 1),
        ("adopt", FOUND),
        ("lane", "job"),
        ("stop", 9.0),
        ("tidy", {"77"}),
        ("terminate",),
    ]


def test_an_engine_may_have_neither_lanes_nor_anything_to_tidy(clock) -> None:
    """Nor is there one before it could be made."""

    class Plain(Engine):
        lane = tidy = None  # type: ignore[assignment]  # as if its base had them not

    x = GuardedEngine("a", Plain, 3, Backoff(4.0, 60.0), clock)
    assert (x.has_lanes, x.lane("job")) == (False, None)
    x.start("77")
    x.tidy({"77"})
    assert (x.has_lanes, x.lane("job"), x.room()) == (False, None, Room(3))


def test_a_workload_without_a_lane_to_be_found_is_no_trouble_of_the_backend(x, engine) -> None:
    """A user may have written anything into it."""
    engine.failing.add("lane")
    with pytest.raises(ValueError, match="no lane"):
        x.lane("job")
    assert x.room() == Room(3)


def test_one_that_cannot_be_made_is_tried_again_later(engine, clock, caplog) -> None:
    """Until then it takes nothing, and gives back what it is given all the same; said once."""
    tries: list[float] = []

    def make() -> Engine:
        tries.append(clock())
        if len(tries) < 3:
            raise ImportError("no such module")
        return engine

    x = GuardedEngine("a", make, 3, Backoff(4.0, 60.0), clock)
    x.start("77")
    x.submit([JOB])
    x.adopt([FOUND])
    assert x.room().unavailable == "ImportError: no such module"
    assert x.room().retry_at is not None
    assert x.poll() == [Returned(1, "ImportError: no such module")]
    for _ in range(12):
        clock.now += 1
        x.poll()
    assert (len(tries), x.room()) == (3, Room(3))
    assert ("adopt", FOUND) in engine.calls
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


@pytest.mark.parametrize(
    "method", ["submit", "withdraw", "revoke", "adopt", "poll", "room", "stop", "terminate", "tidy"]
)
def test_whatever_raises_is_left_alone_for_a_while(x, engine, clock, method) -> None:
    """And is used again once that has passed and it works."""
    engine.failing.add(method)

    def use() -> list[Any]:
        x.submit([JOB])
        x.withdraw([1])
        x.revoke(1)
        x.adopt([FOUND])
        x.room()
        return x.poll()

    events = use()
    assert (Returned(1, "ValueError: no submit") in events) is (method == "submit")
    if method == "stop":
        x.stop(0.0)
    if method == "terminate":
        x.terminate()
    if method == "tidy":
        x.tidy({"77"})
    assert x.room().unavailable == f"ValueError: no {method}"
    engine.failing.clear()
    clock.now += 60
    use()
    if method not in ("stop", "terminate", "tidy"):
        assert x.room() == Room(3)


def test_what_an_engine_took_before_it_raised_is_taken_back(x, engine, monkeypatch) -> None:
    """Or it would be launched there once more. What may be sent is no longer waited for."""
    taken: list[Any] = []

    def submit(jobs: Any) -> None:
        taken.extend(job.dispatch for job in jobs[:2])
        raise ValueError("the third")

    def withdraw(dispatches: Any) -> Any:
        taken.remove(1)
        return [1, 99]  # more than was asked for, and no set

    monkeypatch.setattr(engine, "submit", submit)
    monkeypatch.setattr(engine, "withdraw", withdraw)
    x.submit([JOB._replace(dispatch=number) for number in (1, 2, 3)])
    assert taken == [2]
    assert {call for call in engine.calls if call[0] == "forget"} == {("forget", 2), ("forget", 3)}
    assert x.poll()[:3] == [Returned(number, "ValueError: the third") for number in (1, 2, 3)]


def test_what_could_not_be_looked_for_is_looked_for_again(x, engine) -> None:
    """Unless it was taken back, or nobody waits for it any more."""
    engine.failing.add("adopt")
    x.adopt([FOUND, Found(3, "third", "ti", True), Found(4, "fourth", "ti", True)])
    x.poll()
    x.revoke(3)
    x.forget(4)
    engine.failing.clear()
    engine.calls.clear()
    x.poll()
    assert ("adopt", FOUND) in engine.calls
    assert Adopted(2) not in x.poll()


def test_ctrl_c_ends_the_process(x, engine, monkeypatch) -> None:
    def interrupted(deadline: float) -> set[int]:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        x.stop(0.0)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("room", Room("4")),  # type: ignore[arg-type]
        ("room", Room(1, closed=None)),  # type: ignore[arg-type]
        ("room", Room(1, kinds=None)),  # type: ignore[arg-type]
        ("room", Room(1, retry_at=float("inf"))),
        ("room", Room(1, retry_at=float("nan"))),
        ("room", Room(1, retry_at=1e30)),
        ("room", Room(1, hint=None)),  # type: ignore[arg-type]
        ("room", 4),
        ("poll", [Sent(7), "ended"]),
        ("poll", [None]),
        ("poll", None),
    ],
)
def test_an_answer_that_is_none_is_the_backends_own_trouble(x, engine, method, answer, monkeypatch) -> None:
    """The router would calculate with it, and every backend would wait."""
    monkeypatch.setattr(engine, method, lambda: answer)
    assert x.poll() == ([] if method == "poll" else [Sent(7)])
    room = x.room()
    assert f"TypeError: {method}() gives" in (room.unavailable or "") or "NoneType" in (
        room.unavailable or ""
    )
    assert isinstance(room.slots, int)


def test_events_may_come_as_any_iterable(x, engine, monkeypatch) -> None:
    monkeypatch.setattr(engine, "poll", lambda: (each for each in [Sent(7), Sent(8)]))
    assert x.poll() == [Sent(7), Sent(8)]


def test_one_whose_start_failed_is_ended(engine, clock) -> None:
    """It may have started something by then."""
    engine.failing.add("start")
    x = GuardedEngine("x", lambda: engine, 4, clock=clock)
    x.start("1")
    assert [call[0] for call in engine.calls] == ["start", "stop"]


def test_an_engine_that_is_empty_is_an_engine(x, engine, monkeypatch) -> None:
    """One of somebody else's may have a length, of what it has."""
    monkeypatch.setattr(Engine, "__len__", lambda self: 0, raising=False)
    assert x.room().unavailable is None
    assert x.withdraw([1]) == {1}
