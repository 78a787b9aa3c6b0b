# SPDX-License-Identifier: Apache-2.0
"""What ./dev/demo --with celery starts beside Airflow: for each Celery backend a broker and a plain worker."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from celery import Celery
from demo_layout import WORKER_QUEUE, Layout
from environment import REPO, say

sys.path.insert(0, str(REPO / "tests"))
from airflow_cluster import AirflowCluster, ClusterError
from valkey_server import ValkeyServer

Options = Mapping[str, Mapping[str, str]]
"""``[celery]`` options of each Celery backend."""

_HOSTNAME_MODULE = "demo_hostname"


@contextlib.contextmanager
def brokers(layout: Layout) -> Iterator[Options]:
    """A Valkey server for each Celery backend, with its results in another database of the same server."""
    with contextlib.ExitStack() as stack:
        options = {}
        for backend in layout.workers:
            server = _started(stack, backend)
            options[backend] = {"broker_url": server.url(), "result_backend": server.url(1)}
            say(f"   broker of backend {backend}: {server.url()}")
        yield options


def start_workers(
    airflow: AirflowCluster,
    layout: Layout,
    options: Options,
    on_poll: Callable[[str], None],
    timeout: float = 180,
) -> None:
    """Start an ``airflow celery worker`` for each Celery backend, and wait until each answers at its broker.

    ``on_poll`` is called about once a second with what is being waited for.
    """
    _install_hostname(airflow)
    for backend, worker in layout.workers.items():
        env = _worker_env(worker, options[backend])
        airflow.start_worker(worker, [WORKER_QUEUE], layout.slots[backend], env)
    missing = dict(layout.workers)
    deadline = time.monotonic() + timeout
    while missing:
        on_poll(", ".join(missing.values()))
        airflow.check_running()
        if time.monotonic() > deadline:
            logs = ", ".join(str(airflow.log(worker)) for worker in missing.values())
            raise ClusterError(f"no answer from Celery's workers after {timeout:.0f} s; their output: {logs}")
        missing = {name: worker for name, worker in missing.items() if not _answers(options[name])}


def _started(stack: contextlib.ExitStack, backend: str) -> ValkeyServer:
    try:
        return stack.enter_context(ValkeyServer())
    except RuntimeError as error:
        raise ClusterError(f"the broker of backend {backend} could not be started: {error}") from error


def _install_hostname(airflow: AirflowCluster) -> None:
    """Put the module with the workers' ``[core] hostname_callable`` where Airflow looks for such modules."""
    folder = airflow.home / "config"
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name(f"{_HOSTNAME_MODULE}.py"), folder)


def _worker_env(worker: str, options: Mapping[str, str]) -> dict[str, str]:
    return {
        **{f"AIRFLOW__CELERY__{option.upper()}": value for option, value in options.items()},
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{_HOSTNAME_MODULE}.hostname",
        "DISPATCH_DEMO_WORKER": worker,
    }


def _answers(options: Mapping[str, str]) -> bool:
    """Whether a worker answers at this broker, within a second."""
    with Celery(broker=options["broker_url"], set_as_current=False) as app:
        return bool(app.control.ping(timeout=1))
