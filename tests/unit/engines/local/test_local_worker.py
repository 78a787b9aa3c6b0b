# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest

from airflow_dispatch_provider.engines.local import worker
from airflow_dispatch_provider.engines.local.messages import Run, Work
from tests.support import make_task


class ConnectError(Exception):
    """Named as httpx names it."""


@pytest.fixture(autouse=True)
def own_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "set_title", lambda title: None)
    monkeypatch.setattr(worker, "shorten_last_wait", lambda: None)


def attempt(error: BaseException, workload: Any) -> str:
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
    reason = attempt(error, make_task("heavy", map_index=2))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"Task dag.heavy[2] of run run, try 1, id 0199-uuid, could not be run to its end: {reason}"
    )
    assert str(error) in reason
    assert reason.endswith(remedy)
    assert not record.exc_info


def test_any_other_error_has_its_traceback(caplog) -> None:
    assert attempt(ValueError("odd"), make_task("heavy")) == "ValueError: odd"
    assert caplog.records[0].exc_info[0] is ValueError
    assert caplog.records[0].getMessage().startswith("Task dag.heavy of run run")


def test_a_workload_that_cannot_be_read_goes_by_its_short_name(caplog) -> None:
    work = Work(runner=print, conf=None, preload=(), warm_up=print, title="title")
    assert worker.attempt(Run(1, "0199-uuid", b"no pickle"), work).startswith("UnpicklingError")
    assert caplog.records[0].getMessage().startswith("0199-uuid could not be run to its end: UnpicklingError")


def test_a_supervisor_that_exits_with_0_has_not_failed(caplog) -> None:
    assert attempt(SystemExit(0), make_task("heavy")) == ""
    assert not caplog.records
