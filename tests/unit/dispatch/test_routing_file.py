# SPDX-License-Identifier: Apache-2.0
"""``config_file`` in a scheduler: what is logged, which metric is set, and what a restart goes on with."""

from __future__ import annotations

import logging
import os
import stat

import pytest
from unit.settings.fakes import FakeConf

from airflow_dispatch_provider.bridge.event_log import CHANGED_FILE, REFUSED_FILE
from airflow_dispatch_provider.dispatch import routing_file
from airflow_dispatch_provider.dispatch.routing_file import REMIND, RoutingFile
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.settings.source import SettingsSource

GOOD = "backends: {a: {executor: LocalExecutor, slots: 4}}\n"
WRONG = GOOD.replace("4", "0")


@pytest.fixture
def gauge(monkeypatch):
    """The values that the gauge was set to."""
    values = []
    monkeypatch.setattr(routing_file, "gauge_refused_file", values.append)
    return values


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text(GOOD)
    return path


def scheduler(file, on_refused_file="stop", copies="copies"):
    """A scheduler that starts; what is returned is called in its heartbeats."""
    options = {"config_file": str(file), "on_refused_file": on_refused_file}
    started = RoutingFile(SettingsSource(FakeConf(options), copies=file.parent / copies))
    return started, started.start(0.0)


def use(running, now):
    """As the executor does it: new settings are in use at once."""
    settings = running.changed(now)
    if settings is not None:
        running.accept(settings)
    return settings


def lines(caplog):
    found = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return found


@pytest.fixture(autouse=True)
def _info(caplog):
    caplog.set_level(logging.INFO, routing_file.__name__)


def test_nothing_is_said_of_a_file_that_does_not_change(file, gauge, caplog):
    running, _ = scheduler(file)
    assert running.changed(1.0) is None
    assert (gauge, lines(caplog)) == ([False], [])


def test_changes_are_logged_as_they_are_taken_over(file, gauge, caplog):
    running, _ = scheduler(file)
    file.write_text(GOOD.replace("4", "5"))
    assert use(running, 1.0).backends["a"].slots == 5
    assert lines(caplog) == [f"INFO {file} has changed and is in use: backends.a changed: slots 4 -> 5."]


def test_several_changes_are_lines_of_the_event_log_and_one_of_the_log(file, caplog):
    """For tables and for a console."""
    told = []
    running = RoutingFile(
        SettingsSource(FakeConf({"config_file": str(file)})), lambda event, detail: told.append(detail)
    )
    running.start(0.0)
    file.write_text(GOOD.replace("4", "5") + "routes: [{queue: q, to: [a]}]\n")
    assert use(running, 1.0)
    assert told[0].count("\n") == 1
    assert lines(caplog)[-1].endswith(told[0].replace("\n", "; ") + ".")


def test_refused_file_is_an_error_now_and_then_until_it_is_accepted(file, gauge, caplog):
    running, _ = scheduler(file)
    file.write_text(WRONG)
    times = [1.0, 2.0, REMIND + 0.5, REMIND + 1.0, REMIND + 2.0]
    assert [use(running, now) for now in times] == [None] * 5
    assert [line.split(": ")[0] for line in lines(caplog)] == [
        f"ERROR Going on with the last good version of {file}",
        f"ERROR Still going on with the last good version of {file}",
    ]
    assert gauge == [True] * 5
    file.write_text(GOOD)
    assert use(running, REMIND + 3.0)
    assert lines(caplog)[0] == f"INFO {file} is accepted again."
    use(running, 3 * REMIND)
    assert gauge[-1] is False
    assert lines(caplog) == []


def test_file_that_is_right_by_itself_may_be_refused(file, gauge, caplog):
    """Over what the executor finds: it is spoken of like any other that is refused, and told once."""
    told = []
    running = RoutingFile(SettingsSource(FakeConf({"config_file": str(file)})), lambda *row: told.append(row))
    running.start(0.0)
    assert (running.path, running.refusal) == (str(file), None)
    file.write_text(GOOD.replace("4", "5"))
    assert running.changed(1.0)
    running.refuse([Problem("b", "clashes with a.", "Give each its own.")], 1.0)
    running.changed(2.0)
    running.changed(REMIND + 1.0)
    assert gauge == [False, True, True]
    assert [line.split(": ")[0] for line in lines(caplog)] == [
        f"ERROR Going on with the last good version of {file}",
        f"ERROR Still going on with the last good version of {file}",
    ]
    assert told == [(REFUSED_FILE, running.refusal)]
    assert "clashes with a." in running.refusal
    file.write_text(GOOD.replace("4", "6"))
    use(running, REMIND + 2.0)
    assert running.refusal is None
    assert [event for event, _ in told[1:]] == [CHANGED_FILE]


def test_a_file_that_is_written_anew_as_it_was_is_no_news(file, gauge, caplog):
    """Tools do that every minute: neither the log nor the event log grows by it, be the file right or wrong."""
    told = []
    running = RoutingFile(
        SettingsSource(FakeConf({"config_file": str(file)})), lambda event, detail: told.append(event)
    )
    running.start(0.0)
    for number in range(3):
        file.write_text(f"{GOOD}# version {number}\n")
        assert use(running, 1.0 + number)
    assert (told, lines(caplog)) == ([], [])
    for number in range(3):
        file.write_text(f"{WRONG}# version {number}\n")
        use(running, 5.0 + number)
    assert (told, len(lines(caplog))) == ([REFUSED_FILE], 1)
    for number in range(3):
        file.write_text(f"{GOOD}# version {number}\n")
        use(running, 10.0 + number)
    assert told == [REFUSED_FILE, CHANGED_FILE]
    assert lines(caplog) == [
        f"INFO {file} is accepted again.",
        f"INFO {file} has changed and is in use: no difference in backends, routes or default.",
    ]


def test_start_goes_on_with_what_passes_all_checks(file, gauge):
    """Not with a file that is right by itself and is refused by the executor."""
    scheduler(file, "last_good")
    file.write_text(GOOD.replace("4", "5"))
    source = SettingsSource(
        FakeConf({"config_file": str(file), "on_refused_file": "last_good"}), copies=file.parent / "copies"
    )
    running, asked = RoutingFile(source), []

    def check(settings):
        asked.append(settings.backends["a"].slots)
        return [Problem("a", "has 5.", "Take 4.")] if asked[-1] == 5 else []

    assert running.start(0.0, check).backends["a"].slots == 4
    assert asked == [5, 4]
    assert "has 5." in running.refusal


def test_start_with_a_wrong_file_ends_the_scheduler(file, gauge):
    """Unless the operator chose otherwise; a copy is kept for nobody else."""
    scheduler(file)
    file.write_text(WRONG)
    with pytest.raises(DispatchConfigError, match="found 0"):
        scheduler(file)
    assert not (file.parent / "copies").exists()


def test_start_with_a_wrong_file_goes_on_with_the_last_good_one(file, gauge, caplog):
    """Where the operator chose that: with an error that names the mistake, and the metric."""
    scheduler(file, "last_good")
    file.write_text(WRONG)
    lines(caplog)
    running, settings = scheduler(file, "last_good")
    assert settings.backends["a"].slots == 4
    (line,) = lines(caplog)
    assert line.startswith(f"ERROR Starting with the last good version of {file}")
    assert "found 0" in line
    assert running.changed(1.0) is None
    assert gauge == [True]
    file.write_text(GOOD.replace("4", "7"))
    assert running.changed(2.0).backends["a"].slots == 7


def test_last_good_one_is_the_one_taken_over_last(file, gauge):
    running, _ = scheduler(file, "last_good")
    file.write_text(GOOD.replace("4", "6"))
    use(running, 1.0)
    file.unlink()
    assert scheduler(file, "last_good")[1].backends["a"].slots == 6


def test_first_start_with_a_wrong_file_has_nothing_to_go_on_with(file, gauge):
    file.write_text(WRONG)
    with pytest.raises(DispatchConfigError, match="found 0"):
        scheduler(file, "last_good")


def test_option_that_is_wrong_ends_the_scheduler_in_any_case(file, gauge):
    """The copy replaces the file, not the options beside it."""
    scheduler(file, "last_good")
    file.write_text(WRONG)
    options = {"config_file": str(file), "on_refused_file": "last_good", "max_held": "0"}
    source = SettingsSource(FakeConf(options), copies=file.parent / "copies")
    with pytest.raises(DispatchConfigError, match="max_held"):
        RoutingFile(source).start(0.0)


def test_copy_is_for_its_owner_only(file, gauge):
    """It may hold passwords."""
    scheduler(file, "last_good")
    (copy,) = (file.parent / "copies").iterdir()
    assert (stat.S_IMODE(copy.stat().st_mode), copy.read_text()) == (0o600, GOOD)
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700


def test_copy_that_cannot_be_written_is_a_warning(file, gauge, caplog):
    """A disk that is full or read-only keeps no scheduler from its work."""
    (file.parent / "copies").write_text("in the way")
    running, settings = scheduler(file, "last_good")
    assert settings.backends["a"].slots == 4
    (line,) = lines(caplog)
    assert line.startswith(f"WARNING No copy of {file} can be kept")
    file.write_text(GOOD + "# again\n")
    running.changed(1.0)
    assert not any("No copy" in line for line in lines(caplog))


def test_reload_asks_for_no_option(file, gauge):
    """A command or a secrets backend could keep the scheduler waiting."""
    conf = FakeConf({"config_file": str(file)})
    running = RoutingFile(SettingsSource(conf))
    running.start(0.0)
    conf.options = {"config_file": RuntimeError(), "backends": RuntimeError(), "max_held": RuntimeError()}
    file.write_text(GOOD.replace("4", "5"))
    assert running.changed(1.0).backends["a"].slots == 5


def test_error_that_nobody_foresaw_refuses_the_file_like_any_other(file, gauge, caplog, monkeypatch):
    running, _ = scheduler(file)
    file.write_text(GOOD.replace("4", "5"))
    monkeypatch.setattr("airflow_dispatch_provider.settings.source.parse", lambda raw: 1 / 0)
    assert running.changed(1.0) is None
    assert gauge == [True]
    assert "cannot be checked (ZeroDivisionError)" in lines(caplog)[0]


def bomb():
    rows = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)]
    return "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(rows) + GOOD


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a named pipe"),
        (os.mkdir, "is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"# x\n" * 8_000_000), "is larger than 1000000 bytes"),
        (lambda path: path.write_text(bomb()), "has more than 30000 values"),
        (lambda path: path.write_text("a: " + "[" * 400_000), "is nested too deeply"),
        (lambda path: path.write_text("- {x: " * 100_000), "is not YAML"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not text in UTF-8"),
        (lambda path: path.write_bytes(b"a: \x00"), "control characters"),
        (lambda path: path.write_text("a: !!python/object/apply:os.getpid []"), "tag"),
        (lambda path: None, "No such file"),
    ],
)
@pytest.mark.timeout(30)
def test_what_no_routing_file_is_does_not_stop_a_heartbeat(make, said, file, gauge, caplog):
    """Refused whatever it is, before it is read, built or expanded."""
    running, _ = scheduler(file)
    file.unlink()
    make(file)
    assert running.changed(1.0) is None
    (line,) = lines(caplog)
    assert said in line
    assert gauge == [True]
