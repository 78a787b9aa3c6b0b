# SPDX-License-Identifier: Apache-2.0
"""The template process's side of the templates of Dag files; the test is the other side."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import Cold, DagFile, Ready, Reaped, Run, Work
from airflow_dispatch_provider.engines.local.warm import WarmTemplate, WarmTemplates

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no Dag file has a template elsewhere")
FILE = DagFile('{"name": "main", "version": "4ae"}', "a.py")
WORK = Work(runner=print, conf=None, preload=(), warm_up=print, title="title")
NOBODY = 2**22 + 1
"""A pid that no process has."""

Parse = Callable[[], tuple[WarmTemplate, Channel, socket.socket]]


@pytest.fixture
def x() -> WarmTemplates:
    return WarmTemplates(1, lambda: 0.0, WORK)


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


def test_no_process_could_be_started(x, monkeypatch, caplog) -> None:
    """The tasks parse their file, and the log says why."""

    def refuse() -> int:
        raise OSError("too many")

    monkeypatch.setattr(os, "fork", refuse)
    for _ in range(2):
        x.ask(FILE, lambda: None)
    assert "no process could be started: too many" in caplog.text
    assert (list(x), x.parses(FILE)) == ([], False)
