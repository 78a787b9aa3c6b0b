# SPDX-License-Identifier: Apache-2.0
"""The thread that makes all API calls: it goes on, whatever a user's code does to it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes import controller
from airflow_dispatch_provider.engines.kubernetes.controller import Controller, Policy
from airflow_dispatch_provider.engines.kubernetes.ends import Database
from airflow_dispatch_provider.engines.kubernetes.model import Created, Job

from .fakes import NAMESPACE, FakeApi, FakeFactory


class ClosableApi(FakeApi):
    async def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def tested() -> Iterator[Controller]:
    database = Database(lambda: (), lambda keys: {}, lambda keys: None)
    policy = Policy(NAMESPACE, (NAMESPACE,), "7")
    made = Controller(
        "https://kube", ClosableApi(), FakeFactory(), policy, database, lambda workload: workload
    )
    made.start()
    yield made
    made.stop(5)
    assert not made._thread.is_alive()


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def creates(tested: Controller, key: str) -> None:
    seen: list[Any] = []
    tested.submit([Job(key, workload=key)])
    wait(lambda: seen.extend(tested.drain()) or [r for r in seen if isinstance(r, Created) and r.key == key])


@pytest.mark.parametrize("how", ["callback", "task"])
@pytest.mark.parametrize("error", [SystemExit("x"), KeyboardInterrupt(), BaseException("x")])
def test_what_would_end_the_thread_does_not(tested, how, error):
    """`sys.exit()` in a hook, say: asyncio lets it through."""

    def end() -> None:
        raise error

    async def end_as_task() -> None:
        end()

    if how == "callback":
        tested._soon(end)
    else:
        tested._start(end_as_task())
    creates(tested, "a")
    assert tested.problem is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_started_again(tested, monkeypatch):
    """With all that was under way."""
    monkeypatch.setattr(tested, "_keep_running", lambda: sys.exit())
    tested._soon(lambda: sys.exit())
    wait(lambda: not tested._thread.is_alive())
    monkeypatch.undo()
    creates(tested, "a")


def test_a_part_that_has_failed_goes_on(tested, monkeypatch):
    """Whatever the error was."""
    failed = threading.Event()
    run = tested._creator._next

    async def fail() -> None:
        monkeypatch.setattr(tested._creator, "_next", run)
        failed.set()
        raise ValueError("an error of ours")

    creates(tested, "a")
    monkeypatch.setattr(tested._creator, "_next", fail)
    tested._soon(tested._creator.wake)
    wait(failed.is_set)
    creates(tested, "b")


def test_a_thread_that_hangs_in_a_users_code_is_a_problem(tested, monkeypatch):
    """Until it goes on."""
    monkeypatch.setattr(controller, "STUCK_AFTER", 0.2)
    goes_on = threading.Event()
    tested._soon(goes_on.wait)
    wait(lambda: "is stuck" in (tested.problem or ""))
    goes_on.set()
    monkeypatch.setattr(controller, "STUCK_AFTER", 30.0)
    wait(lambda: tested.problem is None)


def test_a_request_that_hangs_alone_is_no_hung_server(tested, monkeypatch):
    """A small list is answered meanwhile."""
    monkeypatch.setattr(controller, "HUNG_AFTER", 0.4)
    api = tested._api
    api.gate.clear()
    tested.submit([Job("a", workload="a")])
    wait(lambda: "has not answered" in (tested.problem or ""))
    wait(lambda: api.names("one"))
    api.answered = time.monotonic() + 60
    assert tested.problem is None
    tested._soon(api.gate.set)
