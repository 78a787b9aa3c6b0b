# SPDX-License-Identifier: Apache-2.0
"""Commands about a running deployment: what they show, and with which exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from sqlalchemy.exc import OperationalError
from unit.operate.documents import NOW, backend, document, group, reading, runs, waits

from airflow_dispatch_provider.bridge.database.tables import OrderRow
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.cli import looking, operating, telling
from airflow_dispatch_provider.operate.documents import moment
from airflow_dispatch_provider.operate.past import Change, Given, StoryStep, TaskStory
from airflow_dispatch_provider.operate.story import NoSuchTask
from airflow_dispatch_provider.operate.waiting import waiting_of
from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]


def test_status_in_a_table(run: Run, say: Callable[..., None]) -> None:
    """A row for each backend with its state, slots, waits and paces; then each scheduler."""
    say(
        document(
            "7",
            backends=[
                backend("small", slots=2, used=2, held=3, oldest=NOW - 300, ended_per_minute=12, ahead=1),
                backend("large", state="failing", trouble="no route", next_try=NOW + 60, slots=16),
            ],
            file="/etc/dispatch.yaml",
        ),
        orders=[OrderRow("", "small", "cordon", "ann", "new disks", NOW, None)],
    )
    found = run("status")
    small, large = (
        next(line for line in found.out.splitlines() if name in line) for name in ("small", "large")
    )
    assert [cell.strip() for cell in small.split("|")] == [
        "small",
        "open 100 s",
        "2/2 +1 ahead",
        "4",
        "3",
        "5 min",
        "0",
        "12",
    ]
    assert "failing 100 s" in large
    next_try = moment(NOW + 60).astimezone()
    assert f"large: no route Next try at {next_try:%Y-%m-%d %H:%M:%S %Z}." in found.out
    assert "small: cordon by ann since " in found.out
    assert (
        "Scheduler 7 on host7 (DispatchExecutor): last heartbeat 1 s ago, file /etc/dispatch.yaml."
        in found.out
    )
    assert found.code == 1


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"backends": [backend("a")]}, 0),
        # Ordered, so nothing is wrong.
        ({"backends": [backend("a", state="cordoned")]}, 0),
        ({"backends": [backend("a", state="failing")]}, 1),
        ({"backends": [backend("a")], "refused": "2 mistakes"}, 1),
        ({"backends": [backend("a")], "api_trouble": "HTTP 502"}, 1),
        ({"backends": [backend("a")], "written": NOW - 900}, 1),
        # Nothing is known of it here.
        ({"version": 99}, 1),
    ],
)
def test_exit_codes_of_status(values: Any, code: int, run: Run, say: Callable[..., None]) -> None:
    """For scripts: whatever keeps tasks from running that nobody has ordered."""
    say(document("7", **values))
    assert run("status", "--output", "json").code == run("status").code == code


@pytest.mark.parametrize("command", ["status", "waiting", "running", "drain small --dry-run"])
def test_texts_of_others_move_no_cursor(command: str, run: Run, say: Callable[..., None]) -> None:
    """Reasons, names of users, run ids, and what servers answer: in sentences as in tables."""
    nasty = "\x1b[2J\x1b]0;title\x07\nScheduler 8 lives"
    say(
        document(
            "7",
            backends=[backend("small", state="failing", trouble=nasty, used=1, held=1)],
            groups=[group("small", "waits_full", 1, detail=nasty)],
            waiting=[waits("t", run_id=nasty, targets=["small"])],
            running=[runs("t", run_id=nasty, backend="small")],
            held=1,
        ),
        orders=[OrderRow("", "small", "drain", nasty, nasty, NOW - 5, None)],
    )
    found = run(*command.split())
    assert "title" in found.out
    assert "\nScheduler 8 lives" not in found.out
    assert [each for each in found.out if not each.isprintable() and each != "\n"] == []


def test_status_names_orders_about_backends_that_are_gone(run: Run, say: Callable[..., None]) -> None:
    """Else nobody would know why the next one of that name takes no work."""
    rows = [OrderRow("", "gone", "drain", "ann", "disks", NOW - 5, None)]
    say(document("7", backends=[backend("a")]), orders=rows)
    assert "gone, of which no scheduler tells: drain by ann since " in run("status").out
    assert run("status", "-o", "json").json["other_orders"][0]["by"] == "ann"


def test_status_says_what_is_wrong_with_a_scheduler(run: Run, say: Callable[..., None]) -> None:
    """The Execution API, a refused file, one that is gone, and one of another version of this package."""
    say(
        document("7", api_trouble="HTTP 502", refused="2 mistakes:\n  - one\n  - two"),
        document("8", written=NOW - 900),
        document("9", version=99, package="9.1"),
        living={"7", "9"},
    )
    found = " ".join(run("status").out.split())
    assert "Nothing is launched: the execution API answers nobody. HTTP 502" in found
    assert "the last good version is in use. 2 mistakes: - one - two" in found
    assert (
        "Scheduler 8 on host8 (DispatchExecutor) has not written for 15 min: it is not counted above."
        in found
    )
    assert "Scheduler 9 on host9 runs version 9.1 of this package" in found


def test_a_scheduler_that_has_just_ended_is_not_called_silent(run: Run, say: Callable[..., None]) -> None:
    """Its status is a second old, and Airflow knows that it has ended."""
    say(document("7", backends=[backend("a")]), document("8"), living={"7"})
    found = " ".join(run("status").out.split())
    assert "Scheduler 8 on host8 (DispatchExecutor) has ended or died: it is not counted above." in found


@pytest.mark.parametrize("command", ["status", "running", "waiting", "drain small --dry-run"])
def test_tasks_that_nobody_has_taken_over_are_spoken_of(
    command: str, run: Run, say: Callable[..., None]
) -> None:
    """Whoever asks after a crash is never told "nothing" alone; for programs that read lines it is on stderr."""
    dead = document("7", written=NOW - 45, held=6, backends=[backend("small", used=2)])
    say(dead, document("8", backends=[backend("small")]), living={"8"}, unfinished={"7": 8})
    found = run(*command.split())
    said = " ".join(found.out.split())
    assert "8 of its tasks have not been taken over yet" in said
    assert "45 s ago, 6 waited, small had 2." in said
    assert not {"No backend has anything.", "Nothing waits."} & {
        line.strip() for line in found.out.splitlines()
    }
    assert found.code == 0
    if "drain" not in command:
        plain = run(command, "--output", "plain")
        assert ("8 of its tasks" in plain.out, "8 of its tasks" in " ".join(plain.err.split())) == (
            False,
            True,
        )


def test_nothing_is_known(run: Run, say: Callable[..., None]) -> None:
    """The error says where to look; for programs it is in the answer."""
    say()
    found = run("status")
    assert (found.code, found.out) == (1, "")
    assert "No scheduler with an executor of this package" in found.err
    assert "No scheduler" in run("status", "--output", "json").json["problem"]


@pytest.mark.parametrize("command", ["waiting", "running", "drain small --dry-run"])
@pytest.mark.parametrize("format_", ["table", "json"])
def test_the_code_where_nothing_is_known_is_that_of_every_format(
    command: str, format_: str, run: Run, say: Callable[..., None]
) -> None:
    """A script that reads JSON would else take an empty list for nothing that waits."""
    say()
    assert run(*command.split(), "--output", format_).code == 1


@pytest.mark.parametrize("arguments", ["waiting -b gone", "waiting --reason odd", "running -b gone"])
@pytest.mark.parametrize("format_", ["table", "plain", "json", "yaml"])
def test_what_there_is_not_is_wrong_usage_in_every_format(
    arguments: str, format_: str, run: Run, say: Callable[..., None]
) -> None:
    """A misspelt name has nothing that waits for it."""
    say(document("7", backends=[backend("small")]))
    found = run(*arguments.split(), "--output", format_)
    assert (found.code, found.out) == (2, "")


@pytest.mark.parametrize("limit", ["0", "-1", "x"])
def test_a_limit_is_a_number_from_1_on(limit: str, run: Run, say: Callable[..., None]) -> None:
    """A negative one would list all but the last."""
    say(document("7", backends=[backend("small")]))
    assert run("waiting", f"--limit={limit}").code == 2


@pytest.mark.parametrize("filter_", ["--backend=a", "--reason=waits_full"])
def test_how_many_wait_for_what_was_asked(filter_: str, run: Run, say: Callable[..., None]) -> None:
    """And not how many wait at all."""
    groups = [group("a", "waits_full", 2), group("b", "waits_blocked", 10)]
    say(document("7", held=12, backends=[backend("a"), backend("b")], groups=groups))
    assert run("waiting", filter_).out.startswith("2 tasks wait.")
    assert run("waiting", filter_, "-o", "json").json["total"] == 2
    assert run("waiting").out.startswith("12 tasks wait.")


def test_nothing_that_people_or_servers_say_moves_the_cursor(run: Run, say: Callable[..., None]) -> None:
    """Reasons of orders and troubles of backends stand in sentences, not only in cells of tables."""
    order = OrderRow("", "small", "cordon", "ann", "new\x1b[2Jdisks", NOW, None)
    say(document("7", backends=[backend("small", trouble="\x1b[H503")]), orders=[order])
    found = run("status").out
    assert "\x1b" not in found
    assert "[H503" in found


@pytest.mark.parametrize("name", ["cordon small --reason", "story dag run"])
def test_bytes_that_are_no_text_are_refused(name: str, run: Run) -> None:
    """No database takes them; Python gives them to a program as half of a character."""
    found = run(*name.split(), "bad\udcff")
    assert found.code == 2
    assert "is not text in UTF-8" in found.err


def test_watching_goes_on_while_the_database_is_away(
    run: Run, say: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has been seen; a first look that fails ends it as it ends any command."""
    say(document("7", backends=[backend("small")]))
    ask, looks = operating.read_status, [0]

    def fail_now_and_then(team: Any = None) -> Any:
        looks[0] += 1
        if looks[0] == 2:
            raise OperationalError("select", {}, Exception("server closed the connection"))
        if looks[0] == 4:
            raise KeyboardInterrupt
        return ask(team)

    monkeypatch.setattr(operating, "read_status", fail_now_and_then)
    monkeypatch.setattr(operating, "LOOK_EVERY", 0)
    found = run("status", "--watch")
    assert (found.code, looks, found.out.count("0/4")) == (0, [4], 2)
    assert "The database cannot be asked: " in found.out
    looks[0] = 1
    assert run("status", "--watch").code == 1


def test_each_mistake_of_a_refused_file_has_a_line(run: Run, say: Callable[..., None]) -> None:
    """However many there are."""
    say(document("7", backends=[backend("a")], refused="2 mistakes:\n  - one\n  - two"))
    assert {"- one", "- two"} <= {line.strip() for line in run("status").out.splitlines()}


def test_the_run_of_a_task_is_in_its_table(run: Run, say: Callable[..., None]) -> None:
    """Without it nobody can ask for its story; queue and further targets are left out of a narrow one."""
    named = {"run_id": "manual__2026-11-29T12:00:00.123456+00:00", "targets": ["a", "second_choice"]}
    task = waits("t", **named)
    one = runs("t", run_id=named["run_id"])
    say(document("7", held=1, waiting=[task], backends=[backend("a", used=1)], running=[one]))
    for command in ("waiting", "running"):
        found = run(command).out
        assert named["run_id"] in found
        assert "queue" in found
    assert "second_choice" in run("waiting").out


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_tables_of_tasks_fit_and_name_the_run(
    columns: str, run: Run, say: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many columns as there is room for."""
    run_id = "scheduled__2026-11-29T12:00:00+00:00"
    say(
        document(
            "7",
            held=1,
            waiting=[waits("t", run_id=run_id)],
            backends=[backend("a", used=1)],
            running=[runs("t", run_id=run_id)],
        )
    )
    monkeypatch.setenv("COLUMNS", columns)
    for command in ("waiting", "running"):
        found = run(command).out
        assert run_id in found
        assert max(len(line.rstrip()) for line in found.splitlines()) <= int(columns)
        assert (" | " in run("running").out) is (int(columns) >= 80)


def test_plain_has_one_column_for_each_field(run: Run, say: Callable[..., None]) -> None:
    """For ``awk``: only the last field of a status may have blanks."""
    task, one = waits("t", map_index=3, targets=["a", "b", "c"]), runs("t", map_index=3, has_begun=False)
    say(document("7", held=1, waiting=[task], backends=[backend("a", used=1, oldest=NOW)], running=[one]))
    for command in ("waiting", "running", "status"):
        header, row = run(command, "--output", "plain").out.splitlines()
        assert len(row.split()) == len(header.split()), command
    fields = dict(
        zip(*(line.split() for line in run("waiting", "-o", "plain").out.splitlines()), strict=True)
    )
    assert (fields["task_id"], fields["map_index"], fields["run_id"], fields["then"]) == (
        "t",
        "3",
        "run",
        "b,c",
    )
    assert fields["since"] == "2027-01-15T07:59:50Z"


def test_watching_is_for_people(run: Run, say: Callable[..., None]) -> None:
    """A program asks again and again."""
    say(document("7"))
    found = run("status", "--watch", "--output", "json")
    assert found.code == 2
    assert "--watch" in found.err


def test_a_backend_that_has_not_begun_what_it_has(run: Run, say: Callable[..., None]) -> None:
    """How much and for how long, and what to look at where that is all and has been for long."""
    late = {"used": 4, "not_begun": 4, "not_begun_since": NOW - 480, "hint": "No Celery worker answers."}
    say(document("7", backends=[backend("farm", **late), backend("small")]))
    found = run("status")
    assert "4 for 8 min" in found.out
    assert "farm: Nothing that it has has begun. No Celery worker answers." in found.out
    assert found.code == 0
    say(document("7", backends=[backend("small", used=4)]))
    assert "not begun" not in run("status").out


def test_waiting_says_what_is_with_backends_and_has_not_begun(run: Run, say: Callable[..., None]) -> None:
    """In one line, with the command that lists it; also where nothing waits."""
    backends = [
        backend("farm", used=4, not_begun=4, not_begun_since=NOW - 480),
        backend("small", used=2, not_begun=1, not_begun_since=NOW - 1),
    ]
    say(document("7", backends=backends))
    assert " ".join(run("waiting").out.split()) == (
        "Nothing waits. 5 more have been given to a backend (farm 4, small 1) and have not begun,"
        " the oldest for 8 min: airflow dispatch running"
    )
    one = " ".join(run("waiting", "--backend", "small").out.split())
    assert "1 more has been given to a backend (small 1) and has not begun, the oldest for 1 s" in one
    assert "more" not in run("waiting", "--reason", "waits_full").out


def test_waiting_in_tables(run: Run, say: Callable[..., None]) -> None:
    """How many wait for which backend and why, then the first of them with their place."""
    say(
        document(
            "7",
            held=41,
            backends=[backend("a", submitted_per_minute=60)],
            groups=[group("a", "waits_full", 41)],
            waiting=[waits("one", map_index=3), waits("two", position=2)],
        )
    )
    found = run("waiting")
    assert found.code == 0
    assert "41 tasks wait. Listed are the first of each backend: 2." in found.out
    assert "dag one [3]" in found.out
    assert [task["position"] for task in run("waiting", "--output", "json").json["tasks"]] == [1, 2]


@pytest.mark.parametrize(("flag", "value"), [("--backend", "nope"), ("--reason", "nonsense")])
def test_a_filter_that_finds_nothing_ever(flag: str, value: str, run: Run, say: Callable[..., None]) -> None:
    """Wrong usage, which names what there is."""
    say(document("7", backends=[backend("a")]))
    found = run("waiting", flag, value)
    assert found.code == 2
    assert "Known: " in found.err


def test_a_number_says_that_it_counts_other_dags(run: Run, say: Callable[..., None]) -> None:
    """Where only tasks of one Dag are listed, and there may be none."""
    say(document("7", held=2, waiting=[waits("one")], backends=[backend("a", used=2)], running=[runs("two")]))
    for command, total in (("waiting", "2 tasks wait"), ("running", "2 tasks are with backends")):
        assert f"{total}, of whatever Dag." in run(command, "--dag-id", "other").out
        assert "that are of the Dag 'other': 0." in " ".join(run(command, "--dag-id", "other").out.split())
        assert f"{total}." in run(command).out


def test_no_scheduler_lives(run: Run, say: Callable[..., None]) -> None:
    """An answer that is not known is not said to be nothing."""
    say(document("7", written=NOW - 900))
    found = run("waiting")
    assert (found.code, found.out) == (1, "")
    assert "the last to do so was scheduler 7 on host7, 900 s ago" in " ".join(found.err.split())
    assert "No scheduler lives" in run("status").out


def test_the_story_of_no_task(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as what is missing."""
    monkeypatch.setattr(telling, "read_story", mock.Mock(side_effect=NoSuchTask("There is no Dag 'dag'.")))
    found = run("story", "dag", "run", "t")
    assert (found.code, "There is no Dag 'dag'." in found.err) == (2, True)


def test_nothing_waits(run: Run, say: Callable[..., None]) -> None:
    """In a sentence, without an empty table."""
    say(document("7"))
    assert run("waiting").out == "Nothing waits.\n"


def test_names_are_shown_as_they_are(run: Run, say: Callable[..., None]) -> None:
    """Markup of a console or a page in a name is text; so is a very long one."""
    names = ["[bold]x[/bold]", "<b>x</b>", "x" * 250]
    say(document("7", held=3, waiting=[waits(name) for name in names]))
    found = run("waiting", "--output", "plain")
    assert all(name in found.out for name in names)


def test_a_story(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step; of a task that waits also its place and what for."""
    steps = [StoryStep(moment(NOW), "dispatched", "to backend 'a' by route 'q'", "a", "first_choice: free")]
    held = next(
        iter(waiting_of(reading(document("7", waiting=[waits("t", position=4)])), None, None, None).tasks)
    )
    told = TaskStory("dag", "t", "run", -1, 2, "queued", steps, replace(held, usual=300.0))
    monkeypatch.setattr(telling, "read_story", lambda *arguments: told)
    monkeypatch.setenv("COLUMNS", "200")
    found = run("story", "dag", "run", "t", "--try", "2")
    assert "Try 2 of dag t: queued." in found.out
    assert "to backend 'a' by route 'q'" in found.out
    assert "It waits at place 4 for a (waits_full: every target that it may use is full)." in found.out
    assert "In its last runs it started 5 min after it was scheduled." in " ".join(found.out.split())


def test_the_story_of_what_a_backend_has_not_begun(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one, for how long, and what to look at."""
    since = datetime.now(UTC) - timedelta(minutes=8)
    there = Given("farm", since, "No Celery worker answers.")
    told = TaskStory("dag", "t", "run", -1, 1, "queued", [], None, there)
    monkeypatch.setattr(telling, "read_story", lambda *arguments: told)
    found = run("story", "dag", "run", "t")
    words = "farm has had it for 8 min, and it has not begun. No Celery worker answers."
    assert words in " ".join(found.out.split())


def test_who_uses_the_slots(run: Run, say: Callable[..., None]) -> None:
    """The tasks of one backend, those that it has had for longest first."""
    rows = [
        runs("new", since=NOW - 1, has_begun=False),
        runs("old", since=NOW - 999, map_index=3),
        runs("offered", since=NOW, has_begun=None),
    ]
    say(document("1", backends=[backend("a", used=3), backend("b")], running=rows))
    found = run("running", "--backend", "a")
    assert found.code == 0
    assert "3 tasks are with backends." in found.out
    old, new, offered = (line for line in found.out.splitlines() if "| dag " in line)
    assert "dag old [3]" in old
    assert "16 min" in old
    assert "has begun" in old
    assert "has not begun" in new
    assert "is being taken over" in offered
    assert "No backend has anything." in run("running", "--backend", "b").out
    assert run("running", "--backend", "c").code == 2


def test_what_has_been_changed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders by whom, files by the scheduler that has read them."""
    at = datetime(2026, 11, 29, tzinfo=UTC)
    rows = [
        Change(at, "dispatch_drain", "drain a: nodes", "ann", "a", None, None),
        Change(at, "config_file_changed", "/x is in use: slots 1 -> 2", None, None, "red", "host1"),
    ]
    monkeypatch.setattr(
        looking, "read_changes", lambda since, concerns: [*filter(lambda row: concerns(row.team), rows)]
    )
    monkeypatch.setenv("COLUMNS", "200")
    found = run("changes", "--since", "2d")
    assert found.code == 0
    assert "drain a: nodes" in found.out
    assert "host1" in found.out
    if AIRFLOW_V_3_2_PLUS:
        assert "drain a: nodes" not in run("changes", "--team", "red").out
    monkeypatch.setattr(looking, "read_changes", lambda since, concerns: [])
    assert "Nothing has been changed since" in run("changes").out
    assert "Nothing has been changed since" in run("changes", "--since", "99999999d").out


def test_status_says_what_is_left_of_a_recall(run: Run, say: Callable[..., None]) -> None:
    """Which schedulers that live have not done it, and how much is on its way back."""
    rows = [OrderRow("", "a", "recall", "ann", "", NOW - 5, None)]
    say(document("7", backends=[backend("a")], returning={"a": 3}), orders=rows)
    words = "Recall is still to be done by scheduler 7. 3 are being set back to scheduled."
    assert words in " ".join(run("status").out.split())
    (found,) = run("status", "--output", "json").json["backends"]
    assert (found["not_recalled"], found["returning"]) == (["7"], 3)
    say(document("7", backends=[backend("a")], recalls={"a": NOW - 5}), orders=rows)
    assert "Recall" not in run("status").out


def test_a_database_that_is_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error and no traceback."""

    def away(team: Any) -> Any:
        raise OperationalError("SELECT", {}, OSError("no such host"))

    monkeypatch.setattr(operating, "read_status", away)
    found = run("status")
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("error: The database cannot be asked: ")


def test_a_text_moves_no_cursor(run: Run, say: Callable[..., None]) -> None:
    """Reasons are written by users, troubles by servers."""
    say(document("7", backends=[backend("a", trouble="\x1b[2Jall is well\nb | open")]))
    assert "all is well b | open" in run("status", "--output", "plain").out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7260, "2 h 1 min"),
        (90_000, "25 h"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    """For people, no finer than anybody needs."""
    assert operating.duration(seconds) == words
