# SPDX-License-Identifier: Apache-2.0
"""Servers of ./dev/demo --with celery: for each Celery backend a broker and a plain worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from celery import Celery

from devkit.demo.extra import Extra, started, worker_env
from devkit.demo.layout import WITH_CELERY, Layout, Options
from devkit.deployments.airflow_api import ClusterError
from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.environment import say, variables_of
from devkit.servers.valkey import ValkeyServer

_TIMEOUT = 180.0


@contextlib.contextmanager
def brokers(layout: Layout) -> Iterator[Options]:
    """A Valkey server for each Celery backend, with its results in another database of the same server."""
    with contextlib.ExitStack() as stack:
        options = {}
        for backend in layout.workers:
            server = started(stack, ValkeyServer(), f"the broker of backend {backend}")
            options[backend] = {"celery": {"broker_url": server.url(), "result_backend": server.url(1)}}
            say(f"   broker of backend {backend}: {server.url()}")
        yield options


@contextlib.contextmanager
def workers(
    airflow: AirflowCluster, layout: Layout, options: Options, on_poll: Callable[[str], None]
) -> Iterator[None]:
    """An ``airflow celery worker`` for each Celery backend, each of which answers at its broker. Airflow stops them."""
    for backend, worker in layout.workers.items():
        env = {**variables_of(options[backend]), **worker_env(worker)}
        airflow.start_worker(worker, [str(layout.queue)], layout.slots[backend], env)
    missing = dict(layout.workers)
    deadline = time.monotonic() + _TIMEOUT
    while missing:
        on_poll(", ".join(missing.values()))
        airflow.check_running()
        if time.monotonic() > deadline:
            logs = ", ".join(str(airflow.log(worker)) for worker in missing.values())
            raise ClusterError(
                f"no answer from Celery's workers after {_TIMEOUT:.0f} s; their output: {logs}"
            )
        missing = {name: worker for name, worker in missing.items() if not _answers(options, name)}
    yield


EXTRA = Extra(WITH_CELERY, brokers, workers, "two Valkey servers", "a Celery worker for each broker")


def _answers(options: Options, backend: str) -> bool:
    """Whether a worker answers at this backend's broker, within a second."""
    with Celery(broker=options[backend]["celery"]["broker_url"], set_as_current=False) as app:
        return bool(app.control.ping(timeout=1))
