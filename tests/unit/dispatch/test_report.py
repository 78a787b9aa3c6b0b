# SPDX-License-Identifier: Apache-2.0
"""The status of a scheduler as a document."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from unit.lifecycle.builders import machine, number, queued, route, tick

from airflow_dispatch_provider.dispatch.report import FIRST, Facts, Pace, Report
from airflow_dispatch_provider.lifecycle import _backend
from airflow_dispatch_provider.lifecycle.events import (
    BackendRules,
    Began,
    Broken,
    Command,
    Offered,
    Order,
    Room,
    Tick,
)
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.routing.model import TaskRef

AHEAD = 1_000_000.0
"""Seconds from the machine's clock to the wall's."""


def report(file: tuple[str | None, str | None] = (None, None)) -> Report:
    return Report(Facts("host", "DispatchExecutor", "", lambda: {"a": "LocalExecutor"}, lambda: file))


def document(m: Machine, made: Report | None = None, now: float = 100.0) -> dict[str, Any]:
    return (made or report()).document(m.overview(), now, AHEAD)


def backend(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in found["backends"] if entry["name"] == name)


def test_it_is_plain_json():
    """Whatever is in it can be written and read again."""
    m = machine()
    m.handle(1, queued(1), queued(2), tick(a=1))
    found = document(m)
    assert json.loads(json.dumps(found)) == found


def test_a_backend_with_its_slots_and_what_waits_for_it():
    """Used, free, held, the oldest, who uses it; times are the wall's."""
    m = machine(route("q", "a"))
    m.handle(1, queued(1), queued(2), tick(a=1))
    found = backend(document(m), "a")
    assert (found["slots"], found["used"], found["free"], found["held"]) == (1, 1, 0, 1)
    assert (found["oldest"], found["dags"]) == (1 + AHEAD, {"dag": 1})
    assert (found["executor"], found["state"], found["trouble"]) == ("LocalExecutor", "open", None)


@pytest.mark.parametrize(
    ("runs", "began", "since"),
    [(True, datetime(2026, 11, 29, tzinfo=UTC), 1795910400.0), (True, None, AHEAD), (False, None, AHEAD)],
)
def test_a_task_that_was_taken_over_is_there_since_it_began(runs, began, since):
    """Not since the death of its scheduler was noticed; one that had not begun is there since it was found."""
    m, subject = machine(), SimpleNamespace(start_date=began)
    m.handle(0, tick(a=1), Offered(1, TaskRef("q"), runs=runs, evidence="a", subject=subject))
    (found,) = document(m)["running"]
    assert found["since"] == since


def test_a_task_that_was_given_again_is_there_since_then():
    """Its row may have begun before, and deferred since."""
    m = machine()
    m.handle(1, queued(1)._replace(subject=SimpleNamespace(start_date=datetime(2026, 11, 29, tzinfo=UTC))))
    m.handle(2, tick(a=1))
    assert document(m)["running"][0]["since"] == 2 + AHEAD


def test_a_state_is_known_since_it_was_first_seen():
    """It counts from the first document that has it, and anew after another state."""
    m, made = machine(), report()
    m.handle(1, tick(a=1, b=1))
    assert backend(document(m, made, 100), "a")["since"] == 100 + AHEAD
    assert backend(document(m, made, 105), "a")["since"] == 100 + AHEAD
    m.handle(2, Order(Command.CORDON, "a"))
    assert backend(document(m, made, 110), "a")["state"] == "cordoned"
    assert backend(document(m, made, 115), "a")["since"] == 110 + AHEAD


def test_trouble_and_the_next_try():
    """A backend that fails says why, and when it is tried again."""
    m = machine()
    m.handle(1, tick(a=1, b=1), Broken("a", "amqp://me:secret@host refuses"))
    found = backend(document(m), "a")
    assert (found["state"], "secret" in found["trouble"]) == ("failing", False)
    assert "refuses" in found["trouble"]
    assert found["next_try"] > 1 + AHEAD


def test_the_next_try_of_an_engine():
    """One that cannot be started, or connected, says itself when it tries again; the later of both counts."""
    m = machine()
    m.handle(1, Tick({"a": Room(0, unavailable="no pool", retry_at=9.0), "b": Room(2, retry_at=9.0)}))
    found = document(m)
    assert (backend(found, "a")["state"], backend(found, "a")["next_try"]) == ("failing", 9 + AHEAD)
    assert backend(found, "b")["next_try"] is None


def test_groups_count_everything_and_the_list_is_bounded():
    """So many are named for each backend, best first, with their place; the groups count all."""
    m = machine(route("q", "a"))
    m.handle(1, *(queued(key, priority=key) for key in range(3 * FIRST)), tick(a=0, b=0))
    found = document(m)
    assert [(group["backend"], group["reason"], group["held"]) for group in found["groups"]] == [
        ("a", "waits_full", 3 * FIRST)
    ]
    assert found["held"] == 3 * FIRST
    assert [entry["position"] for entry in found["waiting"]] == list(range(1, FIRST + 1))


def test_places_are_those_of_the_backend_whatever_the_route():
    """Two routes to one backend share its queue: the better one comes first."""
    m = machine(route("q", "a"), route("p", "a"))
    m.handle(1, queued(1, "q", priority=1), queued(2, "p", priority=9), tick(a=0, b=0))
    found = document(m)["waiting"]
    assert [(entry["queue"], entry["position"], entry["targets"]) for entry in found] == [
        ("p", 1, ["a"]),
        ("q", 2, ["a"]),
    ]


def test_what_nobody_has_decided_about_says_so():
    """A job that came after the last heartbeat is not said to wait for a slot that is free."""
    m = machine()
    m.handle(1, tick(a=5, b=5))
    m.handle(2, queued(1))
    assert [entry["reason"] for entry in document(m)["waiting"]] == ["next"]


def test_how_much_it_takes_from_airflow():
    """Free slots that nothing held waits for."""
    m = machine()
    m.handle(1, tick(a=5, b=0))
    assert document(m)["takes"] == m.free_slots() > 0
    m.handle(2, *map(queued, range(9)), tick(a=0, b=0))
    assert document(m)["takes"] == 0


def test_a_file_in_use_or_refused():
    """Its path and why it is refused."""
    found = document(machine(), report(("/etc/dispatch.yaml", "2 mistakes")))
    assert (found["file"], found["refused"]) == ("/etc/dispatch.yaml", "2 mistakes")


@pytest.mark.parametrize(
    ("adds", "per_minute"),
    [
        ([], (0, 0)),
        ([(0, 0, 0)], (0, 0)),
        ([(0, 0, 0), (30, 10, 5)], (10, 5)),
        ([(0, 0, 0), (60, 60, 0), (120, 60, 60)], (0, 60)),
        # Only the last minute counts.
        ([(0, 0, 0), (50, 500, 0), (110, 500, 0)], (0, 0)),
    ],
)
def test_paces(adds: list[tuple[float, int, int]], per_minute: tuple[int, int]) -> None:
    """Dispatches of the last minute, whatever the distance of two documents; of less than a minute as many as there
    were."""
    pace = Pace()
    for at, given, done in adds:
        pace.add(at, at, given, done)
    assert pace.per_minute == per_minute


def test_minutes():
    """Dispatches that came out and ended in each minute, and no more of them than are shown."""
    pace = Pace()
    for at in range(0, 3600, 5):
        pace.add(at, at, at, at // 5)
    assert len(pace.minutes) == 30
    assert pace.minutes[-1] == [3540, 60, 12]


def test_a_dispatch_is_counted_where_it_went():
    """The pace of one backend says nothing of another."""
    m, made = machine(route("q", "a")), report()
    m.handle(0, tick(a=9, b=9))
    document(m, made, 0)
    number(m, 1, 1, a=9)
    found = document(m, made, 60)
    assert [backend(found, name)["submitted_per_minute"] for name in "ab"] == [1, 0]


def test_a_backend_that_was_replaced_begins_anew():
    """The work of the one before is not taken away again."""
    pace = Pace()
    pace.add(0, 0, 900, 900)
    pace.add(60, 60, 3, 1)
    assert pace.minutes[-1] == [60, 3, 1]
    pace.add(120, 120, 63, 1)
    assert pace.per_minute == (60, 0)


def test_a_clock_that_is_set_back():
    """The pace goes by a clock that nobody sets."""
    pace = Pace()
    pace.add(0, 10_000, 0, 0)
    pace.add(60, 6_400, 60, 0)
    assert pace.per_minute == (60, 0)


def test_the_oldest_is_one_that_still_waits():
    """On a queue that is never empty, too: not the first that ever stood there."""
    m = machine(route("q", "a"))
    m.handle(1, queued(1), queued(2), tick(a=1, b=0))
    for at in range(10, 100, 10):
        m.handle(at, queued(at, priority=-at), tick(a=at // 10 + 1, b=0))
    held = [job.since for job in next(m.overview().lines(99)).first]
    assert backend(document(m), "a")["oldest"] == min(held) + AHEAD


def test_a_backend_that_nobody_has_tried_since_it_failed():
    """Its next try is due, but as long as nothing comes for it, nobody knows."""
    m = machine()
    m.handle(1, tick(a=1, b=1), Broken("a", "no route"))
    m.handle(1000, tick(a=1, b=1))
    found = backend(document(m), "a")
    assert (found["state"], found["trouble"]) == ("failing", "no route")


def test_many_backends_cost_little():
    """The reasons of a document are found with one view of the backends: of 100 of them, once."""
    m = machine(
        *(route(f"q{n}", f"b{n}") for n in range(100)), rules={f"b{n}": BackendRules() for n in range(100)}
    )
    m.handle(1, *(queued((n, k), f"q{n}") for n in range(100) for k in range(60)), tick())
    views: list[int] = []
    backend_view = _backend.Backend.view

    def counted(self: Any, now: float) -> Any:
        views.append(1)
        return backend_view(self, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_backend.Backend, "view", counted)
        document(m)
    assert len(views) <= 3 * 102


def test_since_when_a_backend_has_what_has_not_begun():
    """The oldest of those in its slots; what was given ahead of one waits for that."""
    m = machine(route("q", "a"))
    room = Room(1, ahead=1, hint="see redis://me:secret@host")
    m.handle(1, queued(1), Tick({"a": room, "b": Room(0)}))
    m.handle(2, queued(2), Tick({"a": room, "b": Room(0)}))
    found = backend(document(m), "a")
    assert (found["used"], found["ahead"], found["not_begun"]) == (1, 1, 2)
    assert (found["not_begun_since"], "secret" in found["hint"]) == (1 + AHEAD, False)
    m.handle(3, Began(1))
    assert backend(document(m), "a")["not_begun_since"] is None


@pytest.mark.parametrize(
    ("overflow_after", "rooms", "expected"),
    [
        (0.0, {"a": 0, "b": 0}, ("waits_full", ["a", "b"], [])),
        ("never", {"a": 0, "b": 3}, ("waits_full", ["a"], ["b"])),
        (60.0, {"a": 0, "b": 3}, ("waits_overflow", ["a"], ["b"])),
        # What takes no work is neither.
        (0.0, {"a": Room(3, unavailable="no broker"), "b": 0}, ("waits_full", ["b"], [])),
        ("never", {"a": 0, "b": Room(3, unavailable="no broker")}, ("waits_full", ["a"], [])),
        (0.0, {name: Room(3, unavailable="no broker") for name in "ab"}, ("waits_blocked", [], [])),
        (0.0, {"a": 0, "b": 3}, None),
    ],
)
def test_which_targets_are_full_and_which_are_left_out(
    overflow_after: Any, rooms: dict[str, Any], expected: tuple[str, list[str], list[str]] | None
) -> None:
    """Of each task that waits for a slot, and of its group, as it was decided."""
    m = machine(route("q", "a", "b", overflow_after=overflow_after))
    m.handle(1, queued(1), tick(**rooms))
    found = document(m)
    told = [
        (entry["reason"], [name for name, _ in entry["full"]], entry["left_out"])
        for entry in (*found["waiting"], *found["groups"])
    ]
    assert told == ([] if expected is None else [expected, expected])


def test_a_target_of_which_a_lane_is_full_says_why():
    """Its slots are free; the reason is text of a server."""
    m = machine(route("q", "a"), rules={"a": BackendRules(by_queue=True)})
    m.handle(1, queued(1), Tick({"a": Room(3, closed={"q": "redis://me:secret@host has no memory"})}))
    ((name, why),) = document(m)["waiting"][0]["full"]
    assert (name, "has no memory" in why, "secret" in why) == ("a", True, False)
