# SPDX-License-Identifier: Apache-2.0
"""Tasks that wait in all schedulers, and why."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.bridge.database.tables import OrderRow
from airflow_dispatch_provider.operate import waiting
from airflow_dispatch_provider.operate.waiting import first_of, waiting_of, with_usual

from .documents import NOW, backend, document, group, reading, waits


def of(*rows, backend=None, reason=None, dag_id=None, limit=10):
    return first_of(waiting_of(reading(*rows), backend, reason, dag_id), limit)


def test_groups_of_two_schedulers_are_one():
    """Of one backend and one reason; the largest group comes first."""
    one = document("1", held=3, groups=[group("a", "waits_full", 3, oldest=NOW - 9)])
    two = document("2", held=9, groups=[group("a", "waits_full", 2), group("b", "waits_blocked", 7)])
    found = of(one, two)
    assert [(each.backend, each.held) for each in found.groups] == [("b", 7), ("a", 5)]
    assert found.groups[1].oldest.timestamp() == NOW - 9
    assert found.total == 12


def test_a_reason_that_is_an_order_says_whose_it_is():
    """Of tasks and of groups; a backend whose name ends alike, another one's, and one without an order stay as they
    are."""
    detail = "aa: It is cordoned. a: It is cordoned. b: It is cordoned."
    row = {"waiting": [waits("t", detail=detail)], "groups": [group("a", "waits_blocked", 1, detail=detail)]}
    order = OrderRow("", "a", "drain", "ann", r"\1 disks", NOW - 5, None)
    found = waiting_of(
        reading(document("1", **row), document("2", team="red", **row), orders=[order]), None, None, None
    )
    words = r"aa: It is cordoned. a: It is drained by ann: \1 disks. b: It is cordoned."
    assert [task.detail for task in found.tasks] == [words, detail]
    assert {each.team: each.detail for each in found.groups} == {None: words, "red": detail}


def test_the_best_come_first_and_no_more_than_are_wanted():
    """By place, then by age."""
    rows = [waits("late", position=1, since=NOW - 1), waits("third", position=3), waits("old", position=1)]
    found = of(document("1", waiting=rows), limit=2)
    assert [task.task_id for task in found.tasks] == ["old", "late"]


def test_each_team_has_a_total_of_its_own():
    """So that nobody is told how much waits for others; of a backend it is of that. Each task says whose it is."""
    row = {"waiting": [waits("t")], "groups": [group("a", "waits_full", 3), group("b", "waits_full", 2)]}
    red = document("2", team="red", held=70, groups=[group("a", "waits_full", 70)])
    everything = reading(document("1", held=5, **row), red)
    assert waiting_of(everything, None, None, None).totals == {None: 5, "red": 70}
    found = waiting_of(everything, "a", None, None)
    assert found.totals == {None: 3, "red": 70}
    assert [(task.team, task.task_id) for task in found.tasks] == [(None, "t")]


def test_filters():
    """By first target, by reason, by Dag; a target that is not the first does not count."""
    rows = [
        waits("one", targets=["a", "b"]),
        waits("two", targets=["b"], reason="waits_blocked"),
        waits("three", targets=["b"], dag_id="other"),
    ]
    row = document("1", waiting=rows, groups=[group("a", "waits_full", 1), group("b", "waits_blocked", 2)])
    assert [task.task_id for task in of(row, backend="b").tasks] == ["two", "three"]
    assert [task.task_id for task in of(row, reason="waits_blocked").tasks] == ["two"]
    assert [task.task_id for task in of(row, dag_id="other").tasks] == ["three"]
    assert [each.backend for each in of(row, backend="b").groups] == ["b"]
    assert [each.backend for each in of(row, reason="waits_full").groups] == ["a"]


PACE = [[NOW - 120, 0, 10], [NOW - 60, 0, 10]]
"""Twenty in two minutes."""


def test_when_it_may_start():
    """The fifth, where ten a minute go, in half a minute. Nobody can tell of a backend that fails, of one where so few
    have ended that they are no pace, however many it was given, and of a task that may go elsewhere before."""
    backends = [
        backend("a", minutes=PACE),
        backend("b", minutes=PACE, state="failing"),
        backend("c", minutes=[[NOW - 60, 0, 2], [NOW - 5000, 0, 99]]),
        backend("d", minutes=[[NOW - 60, 99, 0]]),
    ]
    rows = [
        waits("one", position=5),
        waits("two", targets=["b"]),
        waits("three", targets=["c"]),
        waits("four", reason="waits_overflow"),
        waits("five", targets=["d"]),
    ]
    found = {task.task_id: task.expected for task in of(document("1", backends=backends, waiting=rows)).tasks}
    first = found.pop("one")
    assert first is not None
    assert first.timestamp() == NOW + 30
    assert list(found.values()) == [None] * 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"full": [["a", ""]]}, "it is full: a 4/4"),
        ({"full": [["a", ""], ["b", ""]]}, "it is full: a 4/4, b 0/2 (it takes no more at this moment)"),
        ({"full": [["b", "no memory"]]}, "it is full: b 0/2 (no memory)"),
        (
            {"full": [["a", ""]], "left_out": ["b", "c"]},
            "it is full: a 4/4; b, c are left out (overflow_after: never)",
        ),
        (
            {"full": [["a", ""]], "left_out": ["b"], "reason": "waits_overflow"},
            "it is full: a 4/4, then b",
        ),
        ({}, "it is full"),
    ],
)
def test_how_full_its_targets_are(values, words):
    """Which are full and how, and which the route leaves out."""
    backends = [backend("a", slots=4, used=4), backend("b", slots=2)]
    found = of(document("1", backends=backends, waiting=[waits("one", words="it is full", **values)]))
    assert found.tasks[0].words == words


@pytest.mark.parametrize(
    ("since", "hint"),
    [(NOW - 480, "a: nothing that it has has begun for a while. Is a worker there?"), (NOW - 9, None)],
)
def test_what_to_look_at_where_nothing_begins_at_its_full_target(since, hint):
    """Said of the task and of its group: the slots will not become free."""
    entry = backend("a", slots=4, used=4, not_begun=4, not_begun_since=since, hint="Is a worker there?")
    full = {"full": [["a", ""]]}
    row = document(
        "1", backends=[entry], waiting=[waits("one", **full)], groups=[group("a", "waits_full", 1, **full)]
    )
    found = of(row)
    assert [found.tasks[0].detail, found.groups[0].detail] == [hint, hint]


@pytest.mark.parametrize(
    ("values", "others"),
    [
        ({}, False),
        ({"targets": ["a", "b"]}, True),
        ({"targets": ["a", "b"], "left_out": ["b"]}, False),
    ],
)
def test_another_target_may_take_it_sooner(values, others):
    """Unless the route leaves all others out."""
    assert of(document("1", waiting=[waits("one", **values)])).tasks[0].others is others


def test_a_group_says_how_full_its_targets_are_for_all_who_have_it():
    """Over the schedulers that have such tasks, and not those where a slot is free; another target is another group."""
    full = {"full": [["a", ""]], "words": "it is full"}
    rows = [
        document(str(n), backends=[backend("a", used=4)], groups=[group("a", "waits_full", n, **full)])
        for n in (1, 2)
    ]
    other = document("3", backends=[backend("a", used=1)], groups=[group("a", "waits_full", 9)])
    assert [(each.words, each.held) for each in of(*rows, other).groups] == [
        ("waits_full", 9),
        ("it is full: a 8/8", 3),
    ]


def test_how_long_a_task_usually_waits(monkeypatch):
    """By its Dag, name and map index; of a workload without a Dag nothing is asked."""
    rows = [
        waits("one"),
        waits("two", map_index=3),
        waits("", dag_id="", kind="TestConnection"),
        waits("new"),
    ]
    asked = []

    def usual(tasks):
        asked.extend(tasks)
        return {("dag", "one", -1): 60.0, ("dag", "two", 3): 5.0}

    monkeypatch.setattr(waiting, "usual_waits", usual)
    found = with_usual(of(document("1", waiting=rows)).tasks)
    assert {task.task_id: task.usual for task in found} == {"one": 60.0, "two": 5.0, "": None, "new": None}
    assert ("", "", -1) not in asked


def test_what_a_dead_scheduler_wrote_is_not_shown():
    """Its tasks are another's by now."""
    dead = document("1", held=5, waiting=[waits("one")])
    found = waiting_of(reading(dead, living=set()), None, None, None)
    assert (found.totals, found.tasks) == ({}, [])
    assert "the last to do so was scheduler 1 on host1, 1 s ago" in str(found.problem)


def test_nobody_can_tell_when(monkeypatch):
    """While the execution API answers nobody, and of what waits for something other than a slot; that comes last."""
    backends = [backend("a", minutes=PACE)]
    rows = [waits("apart", position=0, reason="waits_launch"), waits("one")]
    found = of(document("1", backends=backends, waiting=rows)).tasks
    assert [(task.task_id, task.expected is None) for task in found] == [("one", False), ("apart", True)]
    away = of(document("1", backends=backends, waiting=rows, api_trouble="HTTP 502")).tasks
    assert [task.expected for task in away] == [None, None]
