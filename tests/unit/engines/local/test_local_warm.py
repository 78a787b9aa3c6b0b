# SPDX-License-Identifier: Apache-2.0
"""The template process's side of the templates of Dag files; the test is the other side."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from airflow_dispatch_provider.engines.local import warm
from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import (
    Alive,
    Cold,
    DagFile,
    Probe,
    Ready,
    Reaped,
    Run,
)
from airflow_dispatch_provider.engines.local.warm import (
    ANSWERS_WITHIN,
    PROBED_AFTER,
    Forked,
    WarmTemplate,
    WarmTemplates,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no Dag file has a template elsewhere")
FILE = DagFile('{"name": "main", "version": "4ae"}', "a.py")
NOBODY = 2**22 + 1
"""A pid that no process has."""


def never(control: socket.socket, run: Run) -> NoReturn:
    raise AssertionError("Nothing is forked here.")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


Parse = Callable[[], tuple[WarmTemplate, Channel, socket.socket]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def x(clock) -> WarmTemplates:
    return WarmTemplates(1, clock, Forked("title", never))


@pytest.fixture
def parse(x: WarmTemplates, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parse]:
    """Has the file parsed: its template, and the ends that its process, which is not forked, would have."""
    pairs = [socket.socketpair(), socket.socketpair()]
    kept = [theirs.dup() for _, theirs in pairs]
    given = iter(pairs)

    def ask() -> tuple[WarmTemplate, Channel, socket.socket]:
        for _ in range(2):
            x.ask(FILE, lambda: None)
        (template,) = x
        return template, Channel(kept[0]), kept[1]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", lambda: next(given))
        patch.setattr(os, "fork", lambda: NOBODY)
        yield ask
    for each in (*kept, *(end for pair in pairs for end in pair)):
        each.close()


def test_tasks_wait_until_it_is_ready(x, parse) -> None:
    """Then they are forked from it."""
    template, process, _ = parse()
    assert (x.parses(FILE), x.of(FILE)) == (True, None)
    process.send(Ready())
    assert (x.hear(template), x.parses(FILE), x.of(FILE)) == ([], False, template)


def test_a_file_that_cannot_be_shared_is_logged_with_its_reason(x, parse, caplog) -> None:
    """Its tasks do not wait any longer."""
    template, process, _ = parse()
    process.send(Cold("it sleeps"))
    x.hear(template)
    (record,) = caplog.records
    assert record.getMessage() == (
        "Tasks of a.py in bundle main, version 4ae parse it themselves, because it sleeps"
    )
    assert (list(x), x.parses(FILE), x.of(FILE)) == ([], False, None)


def test_one_that_ends_by_itself_is_logged(x, parse, caplog) -> None:
    """Its earlier words count."""
    template, process, _ = parse()
    process.send(Ready())
    process.send(Reaped(7, 0))
    process.close()
    assert x.hear(template) == [Reaped(7, 0)]
    assert "The process that had parsed a.py in bundle main, version 4ae has ended" in caplog.text
    assert list(x) == []


def test_one_that_is_ended_is_heard_to_its_end(x, parse) -> None:
    """It may have collected processes of which it has not told yet: their slots would stay taken."""
    template, process, _ = parse()
    process.send(Ready())
    x.hear(template)
    x.end(template)
    assert (process.receive(), process.closed, x.of(FILE)) == ([], True, None)
    process.send(Reaped(7, 0))
    process.close()
    assert list(x) == [template]
    assert (x.hear(template), list(x)) == ([Reaped(7, 0)], [])


def test_a_task_is_handed_over_with_its_socket(x, parse) -> None:
    """The descriptor comes first, so that it is there when the task is read."""
    template, process, hand = parse()
    control = socket.socket(fileno=os.dup(hand.fileno()))
    with control:
        template.start(Run(1, "t", b""), control)
        _, (descriptor, *_), _, _ = socket.recv_fds(hand, 1, 1)
        assert os.fstat(descriptor).st_ino == os.fstat(control.fileno()).st_ino
    os.close(descriptor)
    assert process.receive() == [Run(1, "t", b"")]


@pytest.mark.parametrize(("module", "name"), [(os, "fork"), (socket, "socketpair")])
def test_no_process_could_be_started(x, monkeypatch, caplog, module, name) -> None:
    """The tasks parse their file, and the log says why, once."""

    def refuse() -> int:
        raise OSError("too many")

    monkeypatch.setattr(module, name, refuse)
    for _ in range(4):
        x.ask(FILE, lambda: None)
    assert caplog.text.count("no process could be started: too many") == 1
    assert (list(x), x.parses(FILE)) == ([], False)


class TestSilence:
    @pytest.fixture(autouse=True)
    def killed(self, monkeypatch) -> list[tuple[int, int]]:
        killed: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
        return killed

    def test_one_that_gives_no_sign_of_life_is_killed(self, x, parse, clock, killed, caplog) -> None:
        """Whether or not it is asked for anything: it would have to tell of ends, too."""
        template, process, _ = parse()
        process.send(Ready())
        x.hear(template)
        clock.advance(PROBED_AFTER)
        assert (x.due(), process.receive()) == ([], [Probe()])
        clock.advance(ANSWERS_WITHIN - 1)
        assert (x.due(), process.receive(), killed) == ([], [], [])
        clock.advance(1)
        assert (x.due(), killed, x.of(FILE)) == ([template], [(NOBODY, signal.SIGKILL)], None)
        assert "is killed: it says nothing" in caplog.text
        assert list(x) == [template]  # it is heard to its end

    def test_one_that_is_ending_is_killed_as_well(self, x, parse, clock, killed) -> None:
        """Slots of processes of which it does not tell would stay taken."""
        template, process, _ = parse()
        process.send(Ready())
        x.hear(template)
        x.end(template)
        for seconds in (PROBED_AFTER, ANSWERS_WITHIN):
            clock.advance(seconds)
            ended = x.due()
        assert (ended, killed) == ([template], [(NOBODY, signal.SIGKILL)])

    def test_anything_that_it_says_is_a_sign(self, x, parse, clock, killed) -> None:
        """Its answer to the question is nobody else's business."""
        template, process, _ = parse()
        process.send(Ready())
        x.hear(template)
        for _ in range(3):
            clock.advance(PROBED_AFTER)
            assert x.due() == []
            clock.advance(ANSWERS_WITHIN - 1)
            process.send(Alive())
            assert x.hear(template) == []
        assert (x.due(), killed, x.of(FILE)) == ([], [], template)

    def test_a_parse_is_not_asked(self, x, parse, clock, killed) -> None:
        """It may take as long as it may take."""
        _, process, _ = parse()
        clock.advance(PROBED_AFTER)
        assert (x.due(), process.receive()) == ([], [])


def test_what_a_full_socket_did_not_take_is_sent_later(x, parse) -> None:
    """Tasks that were not told of would keep their slots."""
    template, process, _ = parse()
    process.send(Ready())
    x.hear(template)
    sent = Run(1, "t", bytes(1_000_000))
    template.channel.send(sent)
    assert template.channel.pending
    came: list[Any] = []
    while not came:
        came = process.receive()
        assert came or template.channel.pending
        x.due()
    assert came == [sent]


def test_a_task_finds_no_token_of_others(monkeypatch) -> None:
    """Not of those that came with it, nor of one of which only a part has come."""

    class ExitError(BaseException):
        pass

    def leave(_: int) -> None:
        raise ExitError

    found: list[Any] = []

    def look(control: socket.socket, run: Run) -> NoReturn:
        found.extend(
            each.name for each in gc.get_objects() if type(each) is Run and each.workload == b"its token"
        )
        found.append(forker._channel._inbox)
        raise ExitError

    pair, (hand, taken), control = socket.socketpair(), socket.socketpair(), socket.socket()
    forker = warm._Forker(FILE, Channel(pair[0]), taken, Forked("title", look))
    sender = Channel(pair[1])
    socket.send_fds(hand, [b"c"], [control.fileno()])
    for name in ("mine", "other", "another"):
        sender.send(Run(1, name, b"its token"))
    pair[1].send(b"\0\0\1\0token")
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(warm, "leave_sigchld", lambda pipe: None)
    forker._receive()

    class Fresh:
        def outdated(self) -> bool:
            return False

    with pytest.raises(ExitError):
        forker._fork(forker._runs.popleft(), Fresh(), (0, 0))
    assert found == ["mine", b""]
    for each in (control, hand, pair[1]):
        each.close()
