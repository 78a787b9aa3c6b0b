# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import warnings

import pytest
from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.sdk.execution_time import comms
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from tests.support import make_callback, make_connection_test, make_task

MAKERS = [make_task]
if AIRFLOW_V_3_2_PLUS:
    MAKERS.append(make_callback)
if AIRFLOW_V_3_3_PLUS:
    MAKERS.append(make_connection_test)


class Executor(BaseExecutor):
    """Takes every workload type of its Airflow version."""

    if AIRFLOW_V_3_4_PLUS:
        supported_workload_types = airflow_api.WORKLOAD_TYPES
        supports_task_instance_uuid = True
    else:
        supports_callbacks = AIRFLOW_V_3_2_PLUS
        supports_connection_test = AIRFLOW_V_3_3_PLUS


class CoordinateExecutor(BaseExecutor):
    """Knows nothing of task instance ids as keys."""


@pytest.mark.parametrize("make", MAKERS)
def test_the_key_is_the_one_that_the_base_class_queues_under(make):
    """Found and forgotten once, in whichever queue, without a deprecation warning."""
    executor = Executor()
    workload = make()
    executor.queue_workload(workload, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        key = airflow_api.workload_key(executor, workload)
        assert sum(key in queue for queue in airflow_api.queues(executor)) == 1
        assert airflow_api.forget_queued(executor, workload)
        assert not airflow_api.forget_queued(executor, workload)
        assert not any(airflow_api.queues(executor))


def test_the_key_depends_on_what_the_executor_supports():
    """From Airflow 3.4 on, an executor class may have task instance ids as keys."""
    workload = make_task()
    key = airflow_api.workload_key(Executor, workload)
    assert (key == workload.ti.key) is not AIRFLOW_V_3_4_PLUS
    assert airflow_api.workload_key(CoordinateExecutor, workload) == workload.ti.key
    assert airflow_api.task_key(Executor, workload.ti) == key


@pytest.mark.parametrize("make", MAKERS)
def test_states(make):
    """Tasks have no running state, the others do; the texts are the ones that the scheduler compares."""
    running, success, failure = airflow_api.workload_states(make())
    assert running == (None if make is make_task else "running")
    assert (success, failure) == ("success", "failed")


def test_task_states_are_airflow_states():
    """The scheduler looks for members of the enumeration."""
    assert airflow_api.workload_states(make_task())[1:] == (
        TaskInstanceState.SUCCESS,
        TaskInstanceState.FAILED,
    )


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({("core", "execution_api_server_url"): "http://x/e/"}, "http://x/e/"),
        ({("api", "base_url"): "http://y/base"}, "http://y/base/execution/"),
        ({("api", "base_url"): "/sub"}, "http://localhost:8080/sub/execution/"),
        ({}, "http://localhost:8080/execution/"),
    ],
)
def test_the_url_comes_from_the_given_configuration(options, url):
    """Its own option first, then the base URL, then the default: of the executor, not the global one."""

    class Conf:
        def get(self, section, key, fallback=None):
            return options.get((section, key), fallback)

        def getint(self, section, key):
            return {("api", "port"): 8080}[section, key]

    assert airflow_api.execution_api_url(Conf()) == url


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS or AIRFLOW_V_3_3_PLUS, reason="3.2 runs callbacks in place")
def test_a_failed_callback_raises_its_reason():
    """Airflow 3.2 returns the error; here it is raised as by the other versions."""
    with pytest.raises(RuntimeError, match="nosuchmodule"):
        airflow_api.run_workload(make_callback("nosuchmodule.f"), None, "title")


class TestWarmUp:
    @pytest.fixture(autouse=True)
    def _restored(self, monkeypatch):
        monkeypatch.setattr(comms, "TypeAdapter", comms.TypeAdapter)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:1/execution/")

    def test_the_decoder_of_messages_to_a_task_is_built_once(self):
        """Every task's process would derive it twice from all classes of messages."""
        airflow_api.warm_up(conf)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            decoder = comms.CommsDecoder(socket=ours)
        assert decoder.body_decoder is decoder.err_decoder
        assert isinstance(
            decoder.body_decoder.validate_python({"type": "OKResponse", "ok": True}), comms.OKResponse
        )

    def test_other_decoders_are_built_as_before(self):
        """Only the one of all messages is kept."""
        airflow_api.warm_up(conf)
        assert comms.TypeAdapter(int, config={"strict": False}).validate_python("5") == 5
