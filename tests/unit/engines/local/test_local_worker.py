# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import pickle
import socket
from typing import Any

import pytest
from airflow.sdk.api import client

from airflow_dispatch_provider.engines.local import worker
from airflow_dispatch_provider.engines.local.messages import Run, Work
from tests.support import make_task

httpx: Any = vars(client).get("httpx2") or vars(client)["httpx"]
"""The library that the Task SDK of this version uses."""


class ConnectError(Exception):
    """Named as httpx names it."""


@pytest.fixture(autouse=True)
def own_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "set_title", lambda title: None)
    monkeypatch.setattr(worker, "shorten_last_wait", lambda: None)


def attempt(error: BaseException, workload: Any) -> worker.Result:
    def runner(*_: Any) -> None:
        raise error

    work = Work(runner=runner, conf=None, preload=(), warm_up=print, title="title")
    return worker.attempt(Run(1, "0199-uuid", pickle.dumps(workload)), work)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            RuntimeError("Invalid auth token: Signature verification failed"),
            "the same [api_auth] jwt_secret.",
        ),
        (ConnectError("[Errno 111] Connection refused"), "at [core] execution_api_server_url."),
    ],
)
def test_what_a_new_deployment_meets_first_is_a_sentence_with_its_remedy(caplog, error, remedy) -> None:
    """Not the traceback of Airflow's client; the task is named as the UI names it."""
    reason = attempt(error, make_task("heavy", map_index=2)).error
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"Task dag.heavy[2] of run run, try 1, id 0199-uuid, could not be run to its end: {reason}"
    )
    assert str(error) in reason
    assert reason.endswith(remedy)
    assert not record.exc_info


def test_any_other_error_has_its_traceback(caplog) -> None:
    assert attempt(ValueError("odd"), make_task("heavy")) == worker.Result("ValueError: odd")
    assert caplog.records[0].exc_info[0] is ValueError
    assert caplog.records[0].getMessage().startswith("Task dag.heavy of run run")


def test_a_workload_that_cannot_be_read_goes_by_its_short_name(caplog) -> None:
    work = Work(runner=print, conf=None, preload=(), warm_up=print, title="title")
    assert worker.attempt(Run(1, "0199-uuid", b"no pickle"), work).error.startswith("UnpicklingError")
    assert caplog.records[0].getMessage().startswith("0199-uuid could not be run to its end: UnpicklingError")


def test_a_supervisor_that_exits_with_0_has_not_failed(caplog) -> None:
    assert attempt(SystemExit(0), make_task("heavy")) == worker.Result()
    assert not caplog.records


def http_error(status: int) -> Exception:
    request = httpx.Request("PATCH", "http://api/")
    response = httpx.Response(status, request=request)
    error: Exception = httpx.HTTPStatusError("no", request=request, response=response)
    return error


def caused_by(error: Exception) -> RuntimeError:
    outer = RuntimeError("outer")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "unanswered"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("hangs"), True),
        (httpx.RemoteProtocolError("cut"), True),
        (http_error(500), True),
        (http_error(503), True),
        (http_error(429), True),  # too many requests: nobody is answered for the moment
        (caused_by(httpx.ConnectError("refused")), True),
        (http_error(403), False),  # this token
        (http_error(409), False),  # this task
        (http_error(422), False),
        (ConnectionError("of the user's code"), False),
        (ValueError("odd"), False),
    ],
)
def test_an_api_that_answers_nobody_is_told_from_an_answer(error: Exception, unanswered: bool) -> None:
    """The first is no workload's affair, the second is that of this one."""
    assert attempt(error, make_task("heavy")).unanswered is unanswered


@pytest.mark.parametrize("result", [worker.Result(), worker.Result("x"), worker.Result("größe" * 2000, True)])
def test_a_result_travels(result: worker.Result) -> None:
    """In one piece of bounded size, through what the template process reads after the end."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(result.encode())
    found = read_all(ours)
    assert found.unanswered is result.unanswered
    assert result.error.startswith(found.error)
    assert bool(found.error) is bool(result.error)


def read_all(control: socket.socket) -> worker.Result:
    with control:
        return worker.read_report(control.recv(worker.MAX_ERROR)).result
