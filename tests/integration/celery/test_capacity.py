# SPDX-License-Identifier: Apache-2.0
"""Real Celery workers come and go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support import wait_until

from airflow_dispatch_provider.engines.celery.capacity import WorkerCensus

from .publishing import make_app

StartWorker = Callable[[str, int], "subprocess.Popen[bytes]"]


@pytest.fixture(
    params=[
        pytest.param("own_valkey", marks=pytest.mark.integration("redis")),
        pytest.param("rabbitmq", marks=pytest.mark.integration("rabbitmq")),
    ]
)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param).url())


@pytest.fixture
def start_worker(url: str) -> Iterator[StartWorker]:
    """Starts plain Celery workers of threads."""
    with ExitStack() as stack:

        def start(name: str, concurrency: int) -> subprocess.Popen[bytes]:
            options = ["--pool", "threads", "--concurrency", str(concurrency), "--hostname", f"{name}@test"]
            command = [
                sys.executable,
                "-m",
                "celery",
                "-b",
                url,
                "worker",
                "-Q",
                f"queue-of-{name}",
                *options,
            ]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def census(url: str) -> Iterator[WorkerCensus]:
    census = WorkerCensus(make_app(url), timeout=5.0, interval=0.1, answer=0.7)
    census.start()
    yield census
    census.stop()


def test_slots_follow_the_workers(census: WorkerCensus, start_worker: StartWorker) -> None:
    """None, one, two, and one that ends without a word."""
    assert census.slots is None
    wait_until(lambda: census.has_none)
    first = start_worker("first", 3)
    wait_until(lambda: census.slots == 3)
    start_worker("second", 4)
    wait_until(lambda: census.slots == 7)
    first.kill()
    wait_until(lambda: census.slots == 4)


@pytest.mark.integration("redis")
def test_the_last_answer_stands_while_the_broker_is_away(own_valkey, caplog) -> None:
    """And one line says so."""
    app = make_app(own_valkey.url())
    command = [sys.executable, "-m", "celery", "-b", own_valkey.url(), "worker", "--pool", "solo"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    census = WorkerCensus(app, timeout=1.0, interval=0.1, answer=0.7)
    try:
        census.start()
        wait_until(lambda: census.slots == 1)
        own_valkey.kill()
        wait_until(lambda: caplog.text.count("cannot be counted") == 1)
        assert census.slots == 1
        own_valkey.restart()
        wait_until(lambda: not census._failing)
        assert census.slots == 1
    finally:
        census.stop()
        worker.kill()
        worker.wait()
