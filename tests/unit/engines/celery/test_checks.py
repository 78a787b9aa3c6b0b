# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from celery.app.defaults import DEFAULTS

from airflow_dispatch_provider.engines.celery.checks import app_problems, conf_problems, option_meant
from airflow_dispatch_provider.engines.celery.libraries import for_driver, for_transport


class Conf:
    """``[celery]`` of one backend."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def get(self, section: str, option: str, fallback: Any = None) -> Any:
        return self._options.get(option, fallback)

    getboolean = get

    def getsection(self, section: str) -> None:
        return None


@pytest.mark.parametrize("option", ["ssl_cacert", "ssl_cert", "ssl_key"])
def test_named_pipe_for_a_certificate_is_not_waited_for(option: str, tmp_path: Path) -> None:
    pem, pipe = tmp_path / "pem", tmp_path / "pipe"
    pem.write_text("")
    os.mkfifo(pipe)
    files = {"ssl_cert": str(pem), "ssl_key": str(pem), option: str(pipe)}
    problems = conf_problems(Conf(ssl_active=True, broker_url="rediss://h", **files))
    found = [(problem.where, problem.found) for problem in problems]
    assert (f"[celery] {option}", "names a file that is a named pipe.") in found


@pytest.mark.parametrize("scheme", ["rediss", "sentinel"])
def test_what_is_missing_is_told_where_it_is_asked_for(scheme: str) -> None:
    """An option that stands nowhere has no place: the finding is at the one that needs it."""
    from celery import Celery

    url = f"{scheme}://h:26379"
    problems = [
        *conf_problems(Conf(ssl_active=scheme == "rediss", broker_url=url)),
        *app_problems(Celery(broker=url, backend="cache+memory://", set_as_current=False)),
    ]
    assert [problem.where for problem in problems] == [
        "[celery] ssl_active" if scheme == "rediss" else "[celery] broker_url"
    ]


def test_module_that_ends_the_process_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dispatch_test_exit.py").write_text("raise SystemExit('hunter2')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (problem,) = conf_problems(Conf(celery_config_options="dispatch_test_exit.CONFIG"))
    assert problem.found == "cannot be imported (SystemExit)."


def test_absent_transport_options_are_no_mistake() -> None:
    """Celery's own way to leave a default alone."""
    from celery import Celery

    app = Celery(broker="redis://h:6379/0", backend="redis://h:6379/1")
    app.conf.broker_transport_options = {
        "socket_timeout": None,
        "max_connections": None,
        "priority_steps": [0, 3],
    }
    assert app_problems(app) == []


@pytest.mark.parametrize(
    ("remedy", "package"),
    [
        (for_transport("sqs"), "kombu[sqs]"),
        (for_transport("sqla"), "kombu[sqlalchemy]"),
        (for_transport("azureservicebus"), "kombu[azureservicebus]"),
        (for_driver("db+mysql://h/d"), "sqlalchemy[mysql]"),
        (for_driver("db+mysql+pymysql://h/d"), "sqlalchemy[pymysql]"),
    ],
)
def test_remedy_names_what_pip_installs(remedy: str, package: str) -> None:
    assert remedy == f'Run: pip install "{package}"'


def test_remedy_for_what_has_no_extra_says_what_it_is_for() -> None:
    assert for_transport("etcd") == "Install what kombu needs for etcd://."
    assert for_driver("db+strange://h/d") == "Install the driver of strange."


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BROKER_URL", "broker_url"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
        ("CELERY_TASK_ACKS_LATE", "task_acks_late"),
        ("CELERY_ACKS_LATE", "task_acks_late"),
        ("CELERYD_CONCURRENCY", "worker_concurrency"),
        ("task_ack_late", "task_acks_late"),
        ("MY_OWN_OPTION", None),
        ("my_own_option", None),
        ("CELERY_URL", None),  # of a broker, or of something else
    ],
)
def test_an_option_of_celery_3_or_misspelt_is_found_under_its_name_of_today(
    name: str, meant: str | None
) -> None:
    """A name that users invented for their own code stands for nothing."""
    assert option_meant(name, DEFAULTS.keys()) == meant
