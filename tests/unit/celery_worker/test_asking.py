# SPDX-License-Identifier: Apache-2.0
"""The body of Airflow's Celery task in a process of the pool; the test is the template process."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from support import make_task

from airflow_dispatch_provider.celery_worker import asking
from airflow_dispatch_provider.celery_worker.asking import StandIn, WarmBody, forwarding
from airflow_dispatch_provider.celery_worker.stand_in import Outcome, Request
from airflow_dispatch_provider.engines.local import worker
from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import Declined, Run, Started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no worker has such processes elsewhere")
MESSAGE = make_task("task").model_dump_json()


class Task:
    """As much of a Celery task as is used."""

    class request:
        id = "its id"

    def __init__(self) -> None:
        self.ran: list[str] = []

    def run(self, message: str) -> str:
        self.ran.append(message)
        return "by itself"


@pytest.fixture
def task() -> Task:
    return Task()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0test-{secrets.token_hex(16)}")
        listener.listen()
        yield listener


@pytest.fixture
def body(listener: socket.socket, task: Task) -> WarmBody:
    return WarmBody("\0" + listener.getsockname().decode().lstrip("\0"), task)


Answer = Callable[[Run, socket.socket], Any]


def answering(listener: socket.socket, answer: Answer) -> threading.Thread:
    """Takes one request, and sends what ``answer`` makes of it and of its control socket."""

    def serve() -> None:
        connection, _ = listener.accept()
        _, (descriptor, *_), _, _ = socket.recv_fds(connection, 1, 1)
        channel = Channel(connection)
        while not (runs := channel.receive()):
            channel.wait()
        with connection, socket.socket(fileno=descriptor) as control:
            said = answer(runs[0], control)
            if said is not None:
                channel.send(said)
                control.settimeout(30)
                if isinstance(said, Started) and control.recv(1) == worker.GO:
                    control.sendall(pickle.dumps(Outcome(value="by another")))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def this_process() -> Started:
    return Started(1, os.getpid(), psutil.Process().create_time())


class TestBody:
    def test_a_process_that_was_forked_runs_the_workload(
        self, body: WarmBody, listener: socket.socket, task: Task
    ) -> None:
        """And is given the message, the id of the Celery task, and the file."""
        asked: list[Run] = []
        thread = answering(listener, lambda run, _: asked.append(run) or this_process())
        assert body(MESSAGE) == "by another"
        thread.join()
        assert task.ran == []
        request: Request = pickle.loads(asked[0].workload)
        assert (request.message, request.celery_id) == (MESSAGE, "its id")
        assert asked[0].file is not None
        assert asked[0].file.path == "dag.py"

    def test_what_no_process_is_forked_for_runs_here(
        self, body: WarmBody, listener: socket.socket, task: Task
    ) -> None:
        """By Airflow's function, as without the option."""
        answering(listener, lambda run, _: Declined(1, "why"))
        assert body(MESSAGE) == "by itself"
        assert task.ran == [MESSAGE]

    def test_a_process_that_has_ended_before_its_word_to_go_has_run_nothing(
        self, body: WarmBody, listener: socket.socket, task: Task
    ) -> None:
        """So the workload runs here."""
        ended = subprocess.Popen(["true"])
        ended.wait()
        answering(listener, lambda run, _: Started(1, ended.pid, 0.0))
        assert body(MESSAGE) == "by itself"

    @pytest.mark.parametrize("message", ["{}", "[]", "no JSON", '{"callback": {}}', '{"ti": {}}'])
    def test_who_parses_no_file_asks_nobody(self, task: Task, message: str) -> None:
        """Callbacks, connection tests, and what Airflow's function is to refuse."""
        assert WarmBody("\0nobody", task)(message) == "by itself"

    def test_a_template_process_that_is_gone_costs_a_line_in_the_log(self, task: Task, caplog: Any) -> None:
        """Its address is free then."""
        assert WarmBody(f"\0{secrets.token_hex(16)}", task)(MESSAGE) == "by itself"
        assert "[its id] The task parses its Dag file itself: ConnectionRefusedError" in caplog.text

    def test_one_that_ends_while_it_is_asked_costs_the_same(
        self, body: WarmBody, listener: socket.socket, caplog: Any
    ) -> None:
        """Nothing has run."""
        answering(listener, lambda run, _: None)
        assert body(MESSAGE) == "by itself"
        assert "the template process has ended" in caplog.text

    def test_one_that_does_not_answer_is_left_alone(
        self, body: WarmBody, task: Task, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        """Else each task would wait for it."""
        monkeypatch.setattr(asking, "ANSWERS_WITHIN", 0.01)
        assert [body(MESSAGE), body(MESSAGE)] == ["by itself"] * 2
        assert caplog.text.count("does not answer") == 1

    def test_a_soft_time_limit_meanwhile_ends_the_task(
        self, body: WarmBody, task: Task, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Celery raises it wherever this process is."""

        def interrupt(*_: Any) -> None:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(asking, "is_own", interrupt)
        with pytest.raises(SoftTimeLimitExceeded):
            body(MESSAGE)
        assert task.ran == []

    def test_handlers_that_cannot_be_passed_on_keep_the_workload_here(
        self, body: WarmBody, handled: list[int], caplog: Any
    ) -> None:
        """Another process could not do the same on a signal."""
        assert body(MESSAGE) == "by itself"
        assert "AttributeError" in caplog.text

    def test_nothing_is_sent_to_a_process_of_another_user(
        self, body: WarmBody, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        """Who may have taken the address of one that has ended."""
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        monkeypatch.setattr(socket, "send_fds", None)
        assert body(MESSAGE) == "by itself"
        assert "another user" in caplog.text


@pytest.fixture
def sleeper() -> Iterator[psutil.Popen]:
    process = psutil.Popen(["sleep", "60"])
    yield process
    with suppress(psutil.NoSuchProcess):
        process.kill()
    process.wait()


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Signals that have reached the handler of this process."""
    came: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGUSR2, before)


class TestSignals:
    def test_they_go_to_the_process_that_runs_the_workload(
        self, sleeper: psutil.Popen, handled: list[int]
    ) -> None:
        """Those that this process handles; afterwards it handles them again."""
        with forwarding(sleeper) as came:
            os.kill(os.getpid(), signal.SIGUSR2)
        assert sleeper.wait(30) == -signal.SIGUSR2
        assert (came, handled) == ([signal.SIGUSR2], [])
        os.kill(os.getpid(), signal.SIGUSR2)
        assert handled == [signal.SIGUSR2]

    def test_one_that_came_when_that_had_ended_harms_nobody(self, handled: list[int]) -> None:
        """Its pid may be another's by now."""
        ended = psutil.Popen(["true"])
        ended.wait()
        with forwarding(ended):
            os.kill(os.getpid(), signal.SIGUSR2)
        assert handled == []

    def test_those_that_are_left_to_the_kernel_stay_so(self, sleeper: psutil.Popen) -> None:
        """They end this process, and the kernel then ends the other one."""
        before = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        try:
            with forwarding(sleeper):
                assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        finally:
            signal.signal(signal.SIGUSR2, before)


class TestEnds:
    """Of the process that runs the workload."""

    def result(self, said: bytes, during: Callable[[], object] = lambda: None) -> Any:
        ours, theirs = socket.socketpair()
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)

        class Process(psutil.Process):
            def send_signal(self, number: int) -> None:
                pass

        class Interrupted(socket.socket):
            def sendall(self, *arguments: Any) -> None:
                super().sendall(*arguments)
                during()

        with theirs:
            return StandIn(Interrupted(fileno=ours.detach()), Process()).result()

    @pytest.fixture(autouse=True)
    def kills(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Signals that this process would have sent itself."""
        kills: list[Any] = []
        monkeypatch.setattr(os, "kill", lambda *arguments: kills.append(arguments))
        return kills

    @pytest.mark.parametrize("said", [b"", pickle.dumps(Outcome(error=ValueError("x" * 100)))[:50]])
    def test_if_that_was_killed_this_process_kills_itself(
        self, said: bytes, kills: list[Any], caplog: Any
    ) -> None:
        """Celery then sees what it would have seen; the log says why."""
        self.result(said)
        assert kills == [(os.getpid(), signal.SIGKILL)]
        assert "was killed; so this one ends, too" in caplog.text

    @pytest.mark.parametrize("said", [b"", pickle.dumps(Outcome(error=SystemExit(-241)))])
    def test_if_a_signal_has_ended_it_this_process_does_what_it_does_on_that(
        self, said: bytes, handled: list[int]
    ) -> None:
        """Celery looks whether its own handler was called."""
        with suppress(SystemExit):
            self.result(said, lambda: signal.raise_signal(signal.SIGUSR2))
        assert handled == [signal.SIGUSR2]

    def test_what_ended_in_spite_of_a_signal_has_its_result(self, handled: list[int]) -> None:
        """A supervisor may pass it on to its task, and go on."""
        said = pickle.dumps(Outcome(value=3))
        assert self.result(said, lambda: signal.raise_signal(signal.SIGUSR2)) == 3
        assert handled == []
