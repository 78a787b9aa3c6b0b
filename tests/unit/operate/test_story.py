# SPDX-License-Identifier: Apache-2.0
"""The story of a try, from Airflow's tables and from its scheduler."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_dispatch_provider.bridge import schedulers
from airflow_dispatch_provider.bridge.database.tables import OrderRow, TablesMissing
from airflow_dispatch_provider.bridge.histories import Event, Try
from airflow_dispatch_provider.operate import story, waiting
from airflow_dispatch_provider.operate.past import Given
from airflow_dispatch_provider.operate.story import NoSuchTask, read_story

from .documents import NOW, backend, document, reading, runs, waits

START = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _its_scheduler_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "living", lambda: {"7"})


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(seconds: float, word: str, extra: Any) -> Event:
    return Event(at(seconds), word, None, extra if isinstance(extra, str | None) else json.dumps(extra))


def tell(monkeypatch: pytest.MonkeyPatch, found: Try | None, *rows: Any, **more: Any) -> Any:
    monkeypatch.setattr(story, "find_try", lambda *_: found)
    monkeypatch.setattr(story, "read", lambda: reading(*rows, **more))
    monkeypatch.setattr(waiting, "usual_waits", lambda tasks: dict.fromkeys(tasks, 90.0))
    return read_story("dag", "run", "one")


DISPATCHED = {"backend": "a", "route": "gpu", "reason": "first_choice", "detail": "it has a free slot"}
RAN = Try(1, "success", "gpu", at(0), at(1), 7, at(5), at(9), "host", [event(3, "dispatched", DISPATCHED)])


def test_everything_in_order(monkeypatch):
    """Scheduled, queued, dispatched where and why, started, ended."""
    found = tell(monkeypatch, RAN)
    assert [step.event for step in found.steps] == ["scheduled", "queued", "dispatched", "started", "ended"]
    assert found.steps[2].words == "to backend 'a' by route 'gpu'"
    assert found.steps[2].detail == "first_choice: it has a free slot"
    assert found.waiting is None


def test_a_queueing_time_that_was_moved_is_not_told(monkeypatch):
    """While a task is held its row is kept fresh: that is no event of its story."""
    found = tell(monkeypatch, RAN._replace(queued=at(4)))
    assert "queued" not in [step.event for step in found.steps]


BLOCKED = {"detail": "every target fails"}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "all that it depends on is done (Airflow keeps only the last such time)"),
        ([event(11, "dispatched", DISPATCHED)], "all that it depends on is done"),
        (
            [event(3, "dispatched", DISPATCHED)],
            "again, in the same try: it had not begun, and its scheduler had died",
        ),
        (
            [event(3, "waits_blocked", BLOCKED)],
            "again, in the same try: it had not begun, and its scheduler had died",
        ),
        ([event(3, "dispatched", DISPATCHED), event(4, "recalled", BLOCKED)], "an operator had recalled it"),
        (
            [event(3, "dispatched", DISPATCHED), event(4, "running", None)],
            "it had deferred, or nothing of it had run",
        ),
        # A row of a person's.
        ([event(3, "patch_task_instance", {"method": "PATCH"})], "all that it depends on is done"),
    ],
)
def test_why_it_was_scheduled_last(monkeypatch, rows, why):
    """Airflow overwrites the time when a task is set back: rows before it say that it was not the first."""
    steps = tell(monkeypatch, RAN._replace(scheduled=at(10), queued=None, events=rows)).steps
    assert why in next(step.words for step in steps if step.event == "scheduled")


def test_when_it_was_queued_the_last_time(monkeypatch):
    """After it was set back, that is the time since then; rows from before do not contradict it."""
    rows = [event(3, "dispatched", DISPATCHED), event(20, "dispatched", DISPATCHED)]
    again = RAN._replace(scheduled=at(10), started=at(21), ended=at(29), events=rows)
    for moment, events in {
        at(12): ["dispatched", "scheduled", "queued", "dispatched", "started", "ended"],
        at(25): ["dispatched", "scheduled", "dispatched", "started", "ended"],
    }.items():
        assert [step.event for step in tell(monkeypatch, again._replace(queued=moment)).steps] == events


def test_who_looks_after_it(monkeypatch):
    """The row has whoever adopted it last, who may not have lived when it was queued."""
    queued = RAN._replace(state="queued", started=None, ended=None, events=[])
    (_, waits), (_, over, *_) = tell(monkeypatch, queued).steps, tell(monkeypatch, RAN).steps
    assert (waits.detail, over.detail) == ("scheduler 7 has it now", "scheduler 7 had it last")
    assert waits.words.endswith("(while it waits, this time is renewed)")
    assert "renewed" not in over.words


def test_sentences_of_others_are_told_as_they_are(monkeypatch):
    """Whatever is in them."""
    rows = [event(3, "odd", "no { json"), event(4, "list", [1]), event(5, "empty", None)]
    found = tell(monkeypatch, RAN._replace(events=rows))
    assert [step.words for step in found.steps[2:5]] == ["no { json", "[1]", "empty"]


def test_json_of_airflow_is_told_in_words(monkeypatch):
    """The deed, by whom where it was a person, and each fact that says something."""
    asked = {"method": "POST", "dry_run": False, "task_ids": ["one"], "note": None}
    rows = [
        event(3, "post_clear_task_instances", asked)._replace(owner="ann"),
        event(4, "running", {"host_name": "worker"})._replace(owner="airflow"),
    ]
    cleared, running = tell(monkeypatch, RAN._replace(events=rows)).steps[2:4]
    assert (cleared.event, cleared.words) == ("post_clear_task_instances", "post clear task instances by ann")
    assert cleared.detail == 'method: POST, dry run: false, task ids: ["one"]'
    assert (running.words, running.detail) == ("running", "host name: worker")


def test_what_it_waits_for_now(monkeypatch):
    """The scheduler that has it says so; of the very try that was asked for."""
    held = RAN._replace(state="queued", started=None, ended=None, events=[])
    rows = [waits("one", try_number=2), waits("one", position=4), waits("two")]
    found = tell(monkeypatch, held, document("1", waiting=rows))
    assert found.waiting is not None
    assert found.waiting.position == 4


@pytest.mark.parametrize("state", ["running", "success", "scheduled"])
def test_what_airflow_says_runs_or_is_over_waits_for_nothing(state, monkeypatch):
    """Whatever its scheduler wrote seconds ago."""
    row = document("1", waiting=[waits("one")], running=[runs("one", has_begun=False)])
    found = tell(monkeypatch, RAN._replace(state=state), row)
    assert (found.waiting, found.given) == (None, None)


SENT = RAN._replace(state="queued", started=None, ended=None)


def test_a_backend_has_it_and_has_not_begun(monkeypatch):
    """Since when, by the scheduler that watches it, and what to look at once that is long ago."""
    farm = backend("a", used=1, not_begun=1, not_begun_since=NOW - 480, hint="No worker answers.")
    there = [runs("one", has_begun=False, since=NOW - 480), runs("two", has_begun=False)]
    found = tell(monkeypatch, SENT, document("1", backends=[farm], running=there))
    assert (found.given.backend, found.given.hint) == ("a", "No worker answers.")
    assert found.given.since.timestamp() == NOW - 480
    new = [runs("one", has_begun=False, since=NOW - 9)]
    found = tell(monkeypatch, SENT, document("1", backends=[farm], running=new))
    assert (found.waiting, found.given.hint) == (None, None)


def test_a_backend_that_has_it_as_the_event_log_says(monkeypatch):
    """Its scheduler lists the first of each backend alone; not where it has come back since, or was scheduled anew."""
    row = document("1", backends=[backend("a")])
    pending = SENT._replace(events=[*SENT.events, event(4, "waits_start", {"detail": "no node has room"})])
    for sent in (SENT, pending):
        assert tell(monkeypatch, sent, row).given == Given("a", at(3), None)
    back = SENT._replace(events=[*SENT.events, event(4, "withdrawn", {"detail": "drained"})])
    assert tell(monkeypatch, back, row).given is None
    assert tell(monkeypatch, SENT._replace(scheduled=at(4)), row).given is None
    assert tell(monkeypatch, SENT._replace(events=[]), row).given is None


@pytest.mark.parametrize(
    ("since", "team", "words"),
    [
        (-5, "", "a: It is drained by ann: disks."),
        # Ordered later: nobody knows who cordoned it then. Backends of a team are another's.
        (5, "", "a: It is cordoned."),
        (-5, "red", "a: It is cordoned."),
    ],
)
def test_who_kept_its_backend_from_work(since, team, words, monkeypatch):
    """As long as that order is in force, and it is known whose backend it is."""
    rows = [event(3, "waits_blocked", {"detail": "a: It is cordoned."})]
    order = OrderRow("", "a", "drain", "ann", "disks.", at(3 + since).timestamp(), None)
    found = tell(monkeypatch, RAN._replace(events=rows), document("1", team=team), orders=[order])
    assert [step.words for step in found.steps if step.event == "waits_blocked"] == [words]


def test_a_task_whose_scheduler_has_died(monkeypatch):
    """Queued or running it waits for another one; of what is over nobody needs to take care."""
    monkeypatch.setattr(schedulers, "living", lambda: {"8"})
    queued = RAN._replace(state="queued", started=None, ended=None)
    for found in (queued, RAN._replace(state="running", ended=None)):
        assert tell(monkeypatch, found).orphaned.startswith(
            "Scheduler 7, which looked after it, has ended or died, and no other one has taken it over yet."
        )
    for found in (RAN, queued._replace(queued_by=8), queued._replace(queued_by=None)):
        assert tell(monkeypatch, found).orphaned is None


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        (
            [document("1", held=7), document("2", held=2)],
            "no backend has a free slot but for the 9 that it holds",
        ),
        ([document("1", takes=3), document("2", held=2)], "the executor would take 3 more tasks"),
        ([document("1", written=NOW - 900)], "No scheduler lives"),
    ],
)
def test_why_a_scheduled_task_is_not_queued(documents, words, monkeypatch):
    """By what its executor takes: the limits of Airflow are told only where they may be the reason."""
    scheduled = RAN._replace(
        state="scheduled", queued=None, started=None, ended=None, queued_by=None, events=[]
    )
    assert words in tell(monkeypatch, scheduled, *documents).unqueued
    assert tell(monkeypatch, RAN, *documents).unqueued is None
    assert tell(monkeypatch, scheduled, *documents, document("3", team="red")).unqueued is None


def test_what_airflows_audit_log_says_can_be_left_out(monkeypatch):
    """Rows of this package stay, and what those of Airflow tell of its times."""
    rows = [
        event(2, "clear", {"method": "POST", "note": "secret"}),
        event(2, "running", None),
        *RAN.events,
        event(4, "state mismatch", "a sentence"),
    ]
    monkeypatch.setattr(story, "find_try", lambda *_: RAN._replace(scheduled=at(2.5), events=rows))
    monkeypatch.setattr(story, "read", lambda: reading())
    found = read_story("dag", "run", "one", with_audit_log=False)
    assert {step.event for step in found.steps} == {"scheduled", "dispatched", "started", "ended", "queued"}
    assert "it had deferred" in next(step.words for step in found.steps if step.event == "scheduled")


def test_nobody_writes_a_step_of_this_package_by_a_parameter(monkeypatch):
    """Airflow logs the parameters of every request, whatever they are called, with who has made it."""
    forged = event(4, "patch_task_instance", {"detail": "it runs on b", "method": "PATCH"})
    found = tell(monkeypatch, RAN._replace(events=[*RAN.events, forged._replace(owner="eve")]))
    (step,) = (step for step in found.steps if step.event == "patch_task_instance")
    assert step.words == "patch task instance by eve"
    waits_there = RAN._replace(state="queued", started=None, ended=None, events=[*RAN.events, forged])
    assert tell(monkeypatch, waits_there).given is not None


def test_no_such_task(monkeypatch):
    """The part that is missing is said."""
    monkeypatch.setattr(story, "missing", lambda *asked: f"None of {asked}.")
    with pytest.raises(NoSuchTask, match=r"None of \('dag', 'run', 'one', -1, None\)"):
        tell(monkeypatch, None)


def test_without_tables_the_past_is_told(monkeypatch):
    """Airflow's own tables have it."""

    def missing() -> Any:
        raise TablesMissing

    monkeypatch.setattr(story, "find_try", lambda *_: RAN)
    monkeypatch.setattr(story, "read", missing)
    found = read_story("dag", "run", "one")
    assert found is not None
    assert len(found.steps) == 5
