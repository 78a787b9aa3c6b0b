# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from airflow.sdk.api import client

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.local import supervision, worker
from airflow_dispatch_provider.engines.local.messages import Run, Work
from airflow_dispatch_provider.engines.local.worker import Api
from tests.support import make_callback, make_task

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
    ("error", "api"),
    [
        # nobody is answered
        (httpx.ConnectError("refused"), Api.AWAY),
        (httpx.ConnectTimeout("lost"), Api.AWAY),
        (httpx.ProxyError("no way"), Api.AWAY),
        (http_error(503), Api.AWAY),
        (http_error(502), Api.AWAY),  # as a proxy says before a server that is away
        (http_error(429), Api.AWAY),  # too many requests: nobody is answered for the moment
        (caused_by(httpx.ConnectError("refused")), Api.AWAY),
        # reached: maybe the same for all, maybe for this one alone, e.g. since its Dag run is a large one
        (http_error(500), Api.FAILING),
        (http_error(504), Api.FAILING),
        (httpx.ReadTimeout("slow"), Api.FAILING),
        (httpx.RemoteProtocolError("cut"), Api.FAILING),
        (caused_by(httpx.ReadTimeout("slow")), Api.FAILING),
        # an answer to this one
        (http_error(403), Api.REFUSED),  # this token
        (http_error(409), Api.REFUSED),  # this task
        (http_error(422), Api.REFUSED),
        (caused_by(http_error(409)), Api.REFUSED),
        # not the API's
        (ConnectionError("of the user's code"), Api.NOTHING),
        (ValueError("odd"), Api.NOTHING),
    ],
)
def test_an_api_that_answers_nobody_is_told_from_an_answer(error: Exception, api: Api) -> None:
    """The first is no workload's affair, a refusal is that of this one."""
    assert attempt(error, make_task("heavy")).api is api


@pytest.mark.parametrize(
    "result", [worker.Result(), worker.Result("x"), worker.Result("größe" * 2000, Api.FAILING)]
)
def test_a_result_travels(result: worker.Result) -> None:
    """In one piece of bounded size, behind what was said before."""
    said = worker.ASKED + worker.BEGUN + result.encode()
    found = worker.read_report(said).result
    assert len(result.encode()) <= worker.MAX_ERROR
    assert found.api is result.api
    assert result.error.startswith(found.error)
    assert bool(found.error) is bool(result.error)


A, B, GONE = worker.ASKED, worker.BEGUN, b""
REFUSED, AWAY, ODD = (worker.Result("why", api).encode() for api in (Api.REFUSED, Api.AWAY, Api.NOTHING))
WELL = worker.Result().encode()


@pytest.mark.parametrize(
    ("said", "began"),
    [
        # killed, or failed by itself, before it asked
        (GONE, False),
        (ODD, False),
        # it asked, and was killed before the answer came, or none came, or one that it cannot read
        (A, None),
        (A + AWAY, None),
        (A + ODD, None),
        # refused
        (A + REFUSED, False),
        # let start, whatever came then
        (A + B, True),
        (A + B + WELL, True),
        (A + B + AWAY, True),
        (A + B + REFUSED, True),
        # a callback, which has nobody to ask
        (B, True),
        # an error text that begins with letters of ours
        (A + worker.Result("abab", Api.REFUSED).encode(), False),
    ],
)
def test_whether_it_had_begun_follows_from_what_it_has_said(said: bytes, began: bool | None) -> None:
    """None where the database alone can know."""
    assert worker.read_report(said).began is began


def begins_of(workload: Any) -> list[str]:
    said: list[str] = []
    work = Work(runner=lambda *_: said.append("ran"), conf=None, preload=(), warm_up=print, title="title")
    worker.attempt(Run(1, "name", pickle.dumps(workload)), work, lambda: said.append("begun"))
    return said


def test_a_task_begins_when_it_is_let_start_and_not_with_its_process() -> None:
    assert begins_of(make_task()) == ["ran"]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
def test_a_callback_begins_with_its_process() -> None:
    """It asks nobody."""
    assert begins_of(make_callback()) == ["begun", "ran"]


@pytest.fixture
def sdk_start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The method of Airflow's client that asks for leave to start, with an answer of the test's."""
    answers: list[Any] = []

    def start(self: Any, ti_id: Any, pid: int, when: Any) -> Any:
        said.append("the server is asked")
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    said: list[str] = []
    monkeypatch.setattr(client.TaskInstanceOperations, "start", start)
    supervision.report_start(lambda: said.append("asks"), lambda: said.append("begins"))
    operations = client.TaskInstanceOperations(None)  # type: ignore[arg-type]
    return answers, said, lambda: operations.start("id", 1, when=None)  # type: ignore[arg-type]


def test_what_is_let_start_is_reported_and_goes_on(sdk_start: Any) -> None:
    answers, said, start = sdk_start
    answers.append("context")
    assert start() == "context"
    assert said == ["asks", "the server is asked", "begins"]


def test_what_is_refused_has_asked_and_not_begun(sdk_start: Any) -> None:
    answers, said, start = sdk_start
    answers.append(http_error(409))
    with pytest.raises(httpx.HTTPStatusError):
        start()
    assert said == ["asks", "the server is asked"]
