# SPDX-License-Identifier: Apache-2.0
"""What the log says of a workload that could not be run."""

from __future__ import annotations

import logging
import pickle

from airflow_dispatch_provider.executors import airflow_api
from airflow_dispatch_provider.executors.local.messages import Run, Work
from airflow_dispatch_provider.executors.local.worker import attempt
from tests.support import make_task


class ServerResponseError(Exception):
    """As the client of the execution API raises it."""


def refuse(workload, conf, title):
    raise ServerResponseError("Invalid auth token: Signature verification failed")


def test_task_is_named_and_the_reason_stands_in_the_sentence(caplog):
    """Not an id alone above a traceback; a token that is refused has one common cause."""
    task = make_task("load", map_index=3)
    run = Run(1, airflow_api.workload_name(task), pickle.dumps(task))
    with caplog.at_level(logging.ERROR):
        error = attempt(run, Work(refuse, None, (), refuse, "airflow dispatch local"))
    assert error == "ServerResponseError: Invalid auth token: Signature verification failed"
    assert caplog.records[-1].getMessage() == (
        f"dag.load[3] of run, try 1 ({task.ti.id}) could not be run to its end: {error}."
        " Have the scheduler and the API server the same [api_auth] jwt_secret?"
    )
