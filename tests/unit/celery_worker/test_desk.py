# SPDX-License-Identifier: Apache-2.0
"""The loop of a worker's template process; the test is the pool's processes, and stands in for templates of files."""

from __future__ import annotations

import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_dispatch_provider.celery_worker.template import Desk
from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import DagFile, Declined, Reaped, Run, Started
from airflow_dispatch_provider.engines.local.warm import WarmTemplate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no worker has such processes elsewhere")
FILE = DagFile('{"name": "main"}', "a.py")


class Template(WarmTemplate):
    """Of the file; what it would say is put into ``says``."""

    def __init__(self) -> None:
        self.file = FILE
        self.ours, self.theirs = socket.socketpair()
        self.channel = Channel(self.ours)
        self.runs: list[Run] = []
        self.says: list[Any] = []
        self.broken = False

    def fileno(self) -> int:
        return self.channel.fileno()

    def start(self, run: Run, control: socket.socket) -> None:
        if self.broken:
            raise BrokenPipeError
        self.runs.append(run)

    def say(self, *messages: Any) -> None:
        self.says += messages
        self.theirs.send(b"x")


class Warm:
    """In place of ``WarmTemplates``."""

    def __init__(self) -> None:
        self.template = Template()
        self.parsing = False
        self.ready = True
        self.asked: list[DagFile] = []
        self.ended: list[Any] = []
        self.old: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter([self.template])

    def ask(self, file: DagFile, let_go: Callable[[], object]) -> None:
        self.asked.append(file)

    def parses(self, file: DagFile | None) -> bool:
        return self.parsing

    def of(self, file: DagFile | None) -> Any:
        return self.template if self.ready else None

    def hear(self, template: Any) -> list[Any]:
        said, template.says = template.says, []
        template.channel.closed = not template.ours.recv(100)
        return said

    def end(self, template: Any) -> None:
        self.ended.append(template)
        self.ready = False

    def due(self) -> list[Any]:
        old, self.old = self.old, []
        return old


class World:
    def __init__(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"\0test-{secrets.token_hex(16)}")
        self.listener.listen()
        self.warm = Warm()
        self.desk = Desk(self.listener, self.warm)

    def connect(self) -> socket.socket:
        asked = socket.socket(socket.AF_UNIX)
        asked.connect(self.listener.getsockname())
        return asked

    def ask(self) -> Asked:
        asked = Asked(self.connect())
        for _ in range(3):  # to accept it, to hear it, and to act
            self.desk.turn()
        return asked


class Asked:
    """A process of the pool."""

    def __init__(self, connection: socket.socket) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(connection, [b"c"], [theirs.fileno()])
        self.channel = Channel(connection)
        self.channel.send(Run(0, "name", b"workload", file=FILE))

    def answer(self) -> Any:
        """None: none yet."""
        return (self.channel.receive() or [None])[0]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("airflow_dispatch_provider.celery_worker.template.IDLE_WAIT", 0.0)
    before = signal.getsignal(signal.SIGCHLD)
    yield World()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before)


class TestAnswers:
    def test_who_was_forked(self, world: World) -> None:
        """To each who has asked, its own; then they are forgotten."""
        first, second = world.ask(), world.ask()
        one, two = (run.number for run in world.warm.template.runs)
        world.warm.template.say(Started(two, 22, 0.0), Started(one, 11, 0.0), Reaped(11, 0))
        world.desk.turn()
        assert [first.answer().pid, second.answer().pid] == [11, 22]
        assert [first.answer(), second.answer()] == [None, None]
        assert first.channel.closed
        assert world.warm.asked == [FILE, FILE]

    def test_nobody_where_no_process_has_parsed_the_file(self, world: World) -> None:
        """At once: its task is to parse it itself."""
        world.warm.ready = False
        assert isinstance(world.ask().answer(), Declined)
        assert world.warm.asked == [FILE]

    def test_none_while_the_file_is_parsed(self, world: World) -> None:
        """Then it is forked."""
        world.warm.parsing = True
        asked = world.ask()
        assert asked.answer() is None
        assert world.warm.template.runs == []
        world.warm.parsing = False
        world.desk.turn()
        assert len(world.warm.template.runs) == 1

    @pytest.mark.parametrize("how", ["declines", "ends", "is old", "cannot be asked"])
    def test_nobody_where_the_template_of_the_file_is_over(self, world: World, how: str) -> None:
        """None of those that it was asked for is going to run."""
        template = world.warm.template
        template.broken = how == "cannot be asked"
        asked = world.ask()
        if how == "declines":
            template.say(Declined(template.runs[0].number, "it has changed"))
        elif how == "ends":
            template.theirs.close()
        elif how == "is old":
            world.warm.old = [template]
        world.desk.turn()
        assert isinstance(asked.answer(), Declined)
        assert (world.warm.ended == [template]) is (how != "ends")


class TestAskers:
    def test_one_that_is_gone_is_forgotten(self, world: World) -> None:
        """With its end of the control socket, so that who is forked for it runs nothing."""
        asked = world.ask()
        asked.channel.close()
        world.desk.turn()
        assert asked.control.recv(1) == b""

    def test_one_that_sends_in_pieces_is_waited_for(self, world: World) -> None:
        """And delays nobody."""
        connection = world.connect()
        world.desk.turn()
        world.ask()
        assert len(world.warm.template.runs) == 1
        late = Asked(connection)
        for _ in range(2):
            world.desk.turn()
        assert len(world.warm.template.runs) == 2
        assert late.answer() is None

    def test_one_that_sends_no_socket_is_sent_away(self, world: World) -> None:
        """Nothing could be run for it."""
        connection = world.connect()
        connection.send(b"c")
        for _ in range(2):
            world.desk.turn()
        assert connection.recv(1) == b""

    def test_one_of_another_user_is_sent_away(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever it sends: anybody may connect."""
        monkeypatch.setattr("os.getuid", lambda: 4711)
        asked = world.ask()
        with pytest.raises(BrokenPipeError):
            asked.channel._socket.send(b"x")
        assert world.warm.template.runs == []
