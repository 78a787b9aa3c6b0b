# SPDX-License-Identifier: Apache-2.0
"""The process that runs a workload in place of one of the pool; the test is that one."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Ignore, SoftTimeLimitExceeded

from airflow_dispatch_provider.celery_worker import stand_in
from airflow_dispatch_provider.celery_worker.stand_in import Outcome, Request, StandInError
from airflow_dispatch_provider.engines.local import worker
from airflow_dispatch_provider.engines.local.messages import Run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no worker has such processes elsewhere")


class UnpickleableError(ValueError):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.socket = socket.socket()
        self.socket.close()


class TestOutcome:
    def after_its_journey(self, action: Callable[[], Any]) -> Outcome:
        return pickle.loads(pickle.dumps(Outcome.of(action)))

    def test_a_value_is_returned(self) -> None:
        """By whoever has asked."""
        assert self.after_its_journey(lambda: 7).result() == 7

    @pytest.mark.parametrize(
        "error", [Ignore("twice"), SystemExit(-241), SoftTimeLimitExceeded(), KeyError("x")]
    )
    def test_an_exception_is_raised_and_has_its_traceback(self, error: BaseException) -> None:
        """Of the same class, with the same arguments: Celery acts on some of them."""

        def fail() -> None:
            raise error

        with pytest.raises(type(error)) as raised:
            self.after_its_journey(fail).result()
        assert raised.value.args == error.args
        assert isinstance(raised.value.__cause__, StandInError)
        assert "in fail" in str(raised.value.__cause__)

    def test_of_an_exception_that_cannot_be_pickled_its_nearest_base_is_raised(self) -> None:
        """With the traceback of what was there."""

        def fail() -> None:
            raise UnpickleableError("why")

        with pytest.raises(ValueError, match="why") as raised:
            self.after_its_journey(fail).result()
        assert "UnpickleableError" in str(raised.value.__cause__)


Start = Callable[..., tuple[socket.socket, int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Forks a process that may run a body: its control socket, and its pid."""
    app = Celery(set_as_current=False)

    @app.task(name="execute_workload")
    def task(message: str) -> None:
        raise AssertionError("Airflow's function is called by itself.")

    app.finalize()
    started: list[int] = []

    def fork(body: Callable[[str], Any], handlers: dict[int, Any] | None = None) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        request = Request("its id", "its message", handlers or {})
        pid = os.fork()
        if pid == 0:
            ours.close()
            stand_in.main(
                theirs, Run(0, "name", pickle.dumps(request)), task, lambda message: body(message, app)
            )
        theirs.close()
        started.append(pid)
        return ours, pid

    yield fork
    for pid in started:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(control: socket.socket) -> Outcome:
    said = b""
    while chunk := control.recv(4096):
        said += chunk
    return pickle.loads(said)


class TestMain:
    def test_it_calls_airflows_function_as_celery_does(self, start: Start) -> None:
        """With the message, while the task with its id is the current one."""
        control, pid = start(lambda message, app: (message, app.current_task.request.id))
        control.sendall(worker.GO)
        assert outcome(control).value == ("its message", "its id")
        assert ended(pid) == 0

    def test_it_runs_nothing_unless_it_is_told_to(self, start: Start, tmp_path: Any) -> None:
        """Who has asked runs the workload itself by then."""
        control, pid = start(lambda *_: (tmp_path / "run").touch())
        control.close()
        assert ended(pid) == 1
        assert not (tmp_path / "run").exists()

    def test_it_does_on_a_signal_what_who_has_asked_would_do(self, start: Start) -> None:
        """By the same functions."""

        def body(message: str, app: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

        control, _ = start(body, {signal.SIGTERM: exit_with_7, signal.SIGINT: signal.SIG_IGN})
        control.sendall(worker.GO)
        assert outcome(control).error.args == (7,)

    def test_it_is_killed_when_who_has_asked_ends(self, start: Start) -> None:
        """Even where a child of it has the socket, too."""

        def body(message: str, app: Any) -> None:
            if os.fork() == 0:
                os.read(held, 1)
                os._exit(0)
            os.write(write, b"x")
            time.sleep(60)

        read, write = os.pipe()
        held, holding = os.pipe()
        control, pid = start(body)
        control.sendall(worker.GO)
        assert os.read(read, 1) == b"x"
        control.close()
        assert ended(pid) == -signal.SIGKILL
        os.write(holding, b"x")

    def test_its_end_shows_while_its_children_live(self, start: Start) -> None:
        """They have no copy of the socket."""

        def body(message: str, app: Any) -> None:
            if os.fork() == 0:
                os.read(held, 1)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

        held, holding = os.pipe()
        control, _ = start(body)
        control.sendall(worker.GO)
        control.settimeout(30)
        assert control.recv(1) == b""
        os.write(holding, b"x")


def exit_with_7(*_: Any) -> None:
    raise SystemExit(7)


def test_a_request_has_the_handlers_that_are_set() -> None:
    """Those that are left to the kernel need not be set again."""
    before = signal.signal(signal.SIGUSR2, exit_with_7)
    try:
        request = Request.of_this_process("id", "message")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert request.handlers[signal.SIGUSR2] is exit_with_7
    assert signal.SIGKILL not in request.handlers
    assert pickle.loads(pickle.dumps(request)) == request
    assert "message" not in repr(request)
