# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin of ./dev/peer-tests: puts another class in the place of Airflow's executor before the tests of the
provider import it, stands in for the few names of ``tests_common`` that they use, and writes down each outcome.

``tests_common`` is part of Airflow's source tree. The package of it on the package index is older than these tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow import __version__
from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.session import create_session
from packaging.version import Version

PLACE, CHOICE, OUTCOMES = "PEER_PLACE", "PEER_CHOICE", "PEER_OUTCOMES"
"""Environment variables: ``module:Class`` to replace, what with (AIRFLOW, EMPTY or ``module:Class``), and the file for
the outcomes."""

AIRFLOW, EMPTY = "airflow", "empty"
BUNDLE = "testing"

_outcomes: dict[str, tuple[str, str]] = {}
"""Outcome and message by node id."""


def _replace_executor() -> None:
    module, _, name = os.environ[PLACE].partition(":")
    choice = os.environ[CHOICE]
    if choice == AIRFLOW:
        return
    if choice == EMPTY:
        # With the one attribute that a fixture of all the tests of Airflow's class sets.
        chosen: Any = type(name, (BaseExecutor,), {"supports_task_instance_uuid": False})
    else:
        # Imported first: it takes some attributes from the class that it is to replace.
        ours, _, attribute = choice.partition(":")
        chosen = getattr(import_module(ours), attribute)
    setattr(import_module(module), name, chosen)


@contextlib.contextmanager
def conf_vars(options: Mapping[tuple[str, str], str | None]) -> Iterator[None]:
    """Set options, in the Task SDK's configuration too. None removes one."""
    from airflow.providers.common.compat.sdk import conf as sdk_conf

    parsers: list[Any] = list({id(each): each for each in (conf, sdk_conf)}.values())
    before = [
        (parser, place, parser.get(*place) if parser.has_option(*place) else None)
        for parser in parsers
        for place in options
    ]
    for parser, place, _ in before:
        _set(parser, place, options[place])
    try:
        yield
    finally:
        for parser, place, value in before:
            _set(parser, place, value)


def _set(parser: Any, place: tuple[str, str], value: str | None) -> None:
    section, option = place
    if value is None:
        parser.remove_option(section, option)
    else:
        if not parser.has_section(section):
            parser.add_section(section)
        parser.set(section, option, value)


def _clear(*models: str) -> None:
    """Delete all rows of these models, each given as ``module:Class``."""
    with create_session() as session:
        for module, name in (each.split(":") for each in models):
            session.query(getattr(import_module(f"airflow.{module}"), name)).delete()


def clear_db_runs() -> None:
    _clear("models.taskinstance:TaskInstance", "models.dagrun:DagRun")


def clear_db_jobs() -> None:
    _clear("jobs.job:Job")


def _clear_dags() -> None:
    clear_db_runs()
    _clear("models.dag_version:DagVersion", "models.dag:DagModel", "models.dagbundle:DagBundleModel")


def sync_dag_to_db(dag: Any) -> None:
    """The rows that a version of a Dag needs."""
    from airflow.models.dag import DagModel
    from airflow.models.dag_version import DagVersion

    row: Any = DagModel
    with create_session() as session:
        session.add(row(dag_id=dag.dag_id, bundle_name=BUNDLE))
        session.flush()
        DagVersion.write_dag(dag_id=dag.dag_id, bundle_name=BUNDLE, session=session)


def create_task_instance(task: Any, run_id: str | None, dag_version_id: Any) -> Any:
    from airflow.models.taskinstance import TaskInstance

    return TaskInstance(task=task, run_id=run_id, dag_version_id=dag_version_id)


@pytest.fixture
def clean_dags_dagruns_and_dagbundles() -> Iterator[None]:
    _clear_dags()
    yield
    _clear_dags()


@pytest.fixture
def testing_dag_bundle(clean_dags_dagruns_and_dagbundles: None) -> None:
    from airflow.models.dagbundle import DagBundleModel

    with create_session() as session:
        session.add(DagBundleModel(name=BUNDLE))


def is_at_least(name: str, version: str) -> bool:
    """The value of a constant such as ``AIRFLOW_V_3_2_PLUS``. A pre-release counts as the release.

    :raises AttributeError: there is no such constant
    """
    found = re.fullmatch(r"AIRFLOW_V_(\d+(?:_\d+)+)_PLUS", name)
    if found is None:
        raise AttributeError(name)
    return Version(Version(version).base_version) >= Version(found[1].replace("_", "."))


def _stand_in() -> None:
    def module(name: str, **members: Any) -> None:
        made = ModuleType(name)
        made.__path__ = []
        vars(made).update(members)
        sys.modules[name] = made

    utils = "tests_common.test_utils"
    module("tests_common")
    module("tests_common.pytest_plugin")
    db = {"clear_db_runs": clear_db_runs, "clear_db_jobs": clear_db_jobs}
    module(f"{utils}.db", **db)
    module(utils, db=sys.modules[f"{utils}.db"])
    module(f"{utils}.config", conf_vars=conf_vars)
    module(f"{utils}.dag", sync_dag_to_db=sync_dag_to_db)
    module(f"{utils}.taskinstance", create_task_instance=create_task_instance)
    module(f"{utils}.version_compat", __getattr__=lambda name: is_at_least(name, __version__))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before the ``conftest.py`` of the tests names ``tests_common`` as a plugin."""
    _stand_in()
    _replace_executor()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of setup, call and teardown."""
    before, _ = _outcomes.get(report.nodeid, ("", ""))
    if before != "failed" and (report.when == "call" or report.outcome != "passed"):
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash else str(report.longrepr or "")
        _outcomes[report.nodeid] = report.outcome, message.strip()


def pytest_sessionfinish() -> None:
    Path(os.environ[OUTCOMES]).write_text(json.dumps(_outcomes))
