# SPDX-License-Identifier: Apache-2.0
"""A task that does nothing, told to Airflow's execution API without the Task SDK, which takes seconds to import.

Stands in for Airflow's supervisor where thousands of tasks are needed and what runs them is not what is measured.
As a program it takes the arguments of a pod of the KubernetesExecutor; only the standard library is imported.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

JSON_ARGUMENT = "--json-string"
_PATIENCE = 60.0
"""Seconds for which a request is repeated."""

T = TypeVar("T")


class Refused(Exception):
    """The API has answered with an error."""

    def __init__(self, error: urllib.error.HTTPError) -> None:
        super().__init__(f"{error.code}: {error.read().decode(errors='replace')}")
        self.status = error.code


class AlreadyRunning(Exception):
    """Another worker has it."""


def begin(server: str, token: str, task_id: str) -> tuple[dict[str, Any], str]:
    """Tell that it runs; returns what the API says of it, and the token for what follows. Raises AlreadyRunning."""
    body = {
        "state": "running",
        "hostname": socket.gethostname(),
        "unixname": getpass.getuser(),
        "pid": os.getpid(),
        "start_date": _now(),
    }
    try:
        return _patch(server, token, f"task-instances/{task_id}/run", body)
    except Refused as error:
        if error.status == HTTPStatus.CONFLICT:
            raise AlreadyRunning(str(error)) from error
        raise


def succeed(server: str, token: str, task_id: str) -> None:
    body = {"state": "success", "end_date": _now(), "task_outlets": [], "outlet_events": []}
    _patch(server, token, f"task-instances/{task_id}/state", body)


def main() -> None:
    workload = json.loads(sys.argv[sys.argv.index(JSON_ARGUMENT) + 1])
    server, task_id = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"], workload["ti"]["id"]
    context, token = _patiently(lambda: begin(server, workload["token"], task_id))
    if "CHAOS_QUEUES" in os.environ:
        _record(workload["ti"], context["dag_run"]["conf"]["first"])
    _patiently(lambda: succeed(server, token, task_id))


def _record(ti: dict[str, Any], first: int) -> None:
    """As the tasks of ``two_schedulers.DAG`` do it themselves.

    :param first: the number of the first task of the run
    """
    queues = os.environ["CHAOS_QUEUES"].split(",")
    number = first + queues.index(ti["queue"]) + ti["map_index"] * len(queues)
    trace = os.path.join(
        os.environ["CHAOS_RECORDS"], f"{number}.{ti['try_number']}.{ti['queue']}.{uuid.uuid4().hex}"
    )
    open(f"{trace}.start", "w").close()
    time.sleep(0.5)
    open(f"{trace}.end", "w").close()


def _patiently(call: Callable[[], T]) -> T:
    """As Airflow's supervisor, it asks again where nobody answers."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return call()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(1)


def _patch(server: str, token: str, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"{server.rstrip('/')}/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="PATCH")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            text, token = answer.read(), answer.headers.get("Refreshed-API-Token", token)
    except urllib.error.HTTPError as error:
        raise Refused(error) from None
    return (dict(json.loads(text)) if text else {}), token


def _now() -> str:
    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    main()
