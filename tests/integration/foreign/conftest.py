# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from airflow_dispatch_provider.lifecycle.states import GONE
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk
from devkit.servers.faulty_proxy import FaultyProxy

if IS_COMPLETE := find_spec("moto") is not None:
    from .aws import SERVICES, Aws, Service, serving

collect_ignore = (
    [] if IS_COMPLETE else ["test_aws.py", "test_aws_outages.py", "test_edge.py", "test_edge_jobs.py"]
)
"""Modules that need ``./dev/test --airflow-version 3.3.2-foreign``."""

Events = dict[Any, Any]
Start = Callable[..., "Hand"]


class Hand:
    """The scheduler's side of a router."""

    def __init__(self, router: Any, clerk: InMemoryClerk) -> None:
        self.router, self.clerk = router, clerk
        self.events: Events = {}

    def queue(self, *tasks: Any) -> None:
        for task in tasks:
            self.router.queue_workload(task, None)

    def succeeded(self, *tasks: Any) -> None:
        """Their rows say so, which the task's own process sees to before it ends."""
        self.clerk.rows |= {task.ti.key: GONE for task in tasks}

    def beat_until(self, done: Callable[[], Any], timeout: float = 15) -> Any:
        """Heartbeat and drain, as the scheduler's loop does, until it is so."""
        deadline = time.monotonic() + timeout
        while not (value := done()):
            assert time.monotonic() < deadline, f"only {self.events}; {self.stories}; {self.router!r}"
            self.router.heartbeat()
            self.drain()
            time.sleep(0.01)
        return value

    @property
    def stories(self) -> list[str]:
        machine = self.router._loop.machine
        return [str(machine.story(key)) for key in machine]

    def drain(self) -> None:
        self.events |= self.router.get_event_buffer()

    def state(self, task: Any) -> str:
        """The state of the last event about it."""
        value = self.events.get(task.ti.key, ("",))[0]
        return str(getattr(value, "value", value))

    def is_ended(self, *tasks: Any) -> bool:
        return all(self.state(task) in ("success", "failed") for task in tasks)


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with serving() as aws:
        yield aws


@pytest.fixture
def proxy(server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between the executors and AWS."""
    with FaultyProxy("127.0.0.1", server.port) as proxy:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", server.connection(f"http://127.0.0.1:{proxy.port}"))
        yield proxy


@pytest.fixture(params=["ecs", "batch", "lambda"])
def service(request: pytest.FixtureRequest, server: Aws, proxy: FaultyProxy) -> Service:
    server.reset()
    return SERVICES[request.param](server)


@pytest.fixture
def start(
    service: Service,
    proxy: FaultyProxy,
    make_router: Callable[..., Any],
    they_run: Callable[[], InMemoryClerk],
) -> Iterator[Start]:
    """Starts routers with the service as the backend ``aws``; what is left there at the end has ended well."""

    def started(clerk: InMemoryClerk | None = None, others: Any = None, **options: Any) -> Hand:
        backends = {"aws": service.backend(), **(others or {})}
        asked = clerk or they_run()
        return Hand(make_router(backends, clerk=asked, **options), asked)

    yield started
    proxy.mode = "forward"
    service.end(0)
