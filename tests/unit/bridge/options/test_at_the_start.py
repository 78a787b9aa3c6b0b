# SPDX-License-Identifier: Apache-2.0
"""Findings of ``validate`` are found at the start, too, and nothing is run or connected to find them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import conf
from celery import Celery
from kubernetes_files import POD_TEMPLATE, kubeconfig

from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.dispatch.option_check import OptionCheck
from airflow_dispatch_provider.engines.celery.checks import app_problems, conf_problems
from airflow_dispatch_provider.engines.kubernetes.cluster import Cluster
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.routing.model import Route, Target
from airflow_dispatch_provider.settings.model import BackendSettings, Limits, Settings

DEFAULT = Route(queue="*", to=(Target(backend="x"),))


def settings(executor: str, **config: Any) -> Settings:
    return Settings({"x": BackendSettings(executor, 1, config=config)}, (), DEFAULT)


@pytest.fixture
def kubernetes(tmp_path: Path) -> dict[str, Any]:
    """Options of a cluster whose kubeconfig has a plugin that leaves a trace."""
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    plugin.chmod(0o755)
    logs_in = f"{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: {plugin}}}}}"
    (tmp_path / "kubeconfig").write_text(kubeconfig("https://k.example:6443/", logs_in))
    (tmp_path / "pod.yaml").write_text(POD_TEMPLATE)
    files = {"config_file": f"{tmp_path}/kubeconfig", "pod_template_file": f"{tmp_path}/pod.yaml"}
    return {"in_cluster": False, **files}


def test_a_plugin_for_credentials_is_not_run(kubernetes, tmp_path):
    """To name the server needs none, and it may take long, or open a browser."""
    cluster = Cluster(BackendConf("x", {"kubernetes_executor": kubernetes}, conf))
    assert cluster.problems() == []
    assert cluster.server() == "https://k.example:6443"
    assert not (tmp_path / "was-run").exists()


def start(backend: Backend, check: Any = tuple) -> None:
    """As the router starts it; it does not."""
    engine = backend.engine(Limits(), lambda executor: None, check, time.monotonic)
    engine.start("1")
    assert engine.room().unavailable


def test_a_start_says_what_validate_says(kubernetes, caplog):
    """In the circuit and in the log; no bare KeyError."""
    options = {**kubernetes, "delete_option_kwargs": '{"gracePeriodSeconds": 1}'}
    given = BackendSettings("KubernetesExecutor", 1, config={"kubernetes_executor": options})
    with caplog.at_level(logging.ERROR):
        start(Backend("x", given, conf, None))
    assert "has 'gracePeriodSeconds', which V1DeleteOptions does not." in caplog.text
    assert "KeyError" not in caplog.text


def test_a_value_that_cannot_be_read_keeps_its_backend_from_being_made(caplog):
    """Before the executor's constructor would raise in words of its own."""
    given = settings("CeleryExecutor", celery={"operation_timeout": "hunter2"})
    check = OptionCheck(given, "[dispatch] ")
    backend = Backend("x", given.backends["x"], conf, None)
    start(backend, lambda: check.values("x", backend.conf))
    assert backend.made is None
    assert "backends.x.config.celery.operation_timeout: is not a number of 0 or more." in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(("several", "number"), [("True", 0), ("False", 1)])
def test_with_several_teams_a_variable_may_be_of_another_teams_backend(several, number, monkeypatch):
    """One environment serves them all."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", several)
    monkeypatch.setenv("AIRFLOW_DISPATCH__OTHER__CELERY__BROKER_URL", "redis://h")
    assert len([*OptionCheck(settings("LocalExecutor"), "").mistakes()]) == number


def test_queues_that_are_handed_on_as_text_are_a_mistake():
    """Older versions of the provider make a text of predefined_queues; kombu would look up keys in it, for good."""
    app = Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.broker_transport_options = {"predefined_queues": '{"default": {}}'}
    (problem,) = app_problems(app)
    assert (problem.where, problem.found) == (
        "[celery_broker_transport_options] predefined_queues",
        "is text for this version of the Celery provider, and not an object.",
    )


def test_a_router_refuses_to_start_over_a_name_that_does_not_exist(monkeypatch):
    """Its tasks would go to everybody's broker. Waiting does not help, so the scheduler is told at once."""
    from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor

    monkeypatch.setenv(
        "AIRFLOW__DISPATCH__BACKENDS",
        '{"x": {"executor": "CeleryExecutor", "slots": 1, "config": {"celry": {"broker_url": "redis://h"}}}}',
    )
    with pytest.raises(
        DispatchConfigError, match=r"backends\.x\.config\.celry: names a section.*Did you mean \"celery\""
    ):
        DispatchExecutor().start()


@pytest.mark.parametrize(
    ("broker", "result"),
    [
        ("redis://:p%2Fw@h:6379/0", "db+postgresql+psycopg2://u:p/w#x@h:5432/db?sslmode=require"),
        ("rediss://user:p:w@h/", "rediss://h/0?ssl_cert_reqs=required"),
        ("redis+socket:///run/redis.sock?virtual_host=1", "cache+memcached://a:1;b:2/"),
        ("sentinel://:p@a:26379;sentinel://:p@b:26379/0", "rpc://"),
        ("amqp://u:p@h:5672//vhost;amqp://u:p@i//", "db+sqlite:////tmp/r.db"),
        ("pyamqp://[fe80::1]:5672//\n", "mongodb://u:p@a:1,b:2/db"),
        ("sqs://", "db+mysql://h/db"),
        ("azureservicebus://policy:a/key+with=@namespace", "db+postgresql://u@h/db"),
        ("sqla+postgresql://u:p/w@h/db", "s3://bucket"),
        ("filesystem://", "disabled"),
        ("memory://", "db+sqlite://"),
    ],
)
def test_urls_of_every_kind_are_right(broker, result):
    """Values written as the documentation of kombu, Celery and SQLAlchemy has them."""
    assert (
        conf_problems(BackendConf("x", {"celery": {"broker_url": broker, "result_backend": result}}, conf))
        == []
    )
