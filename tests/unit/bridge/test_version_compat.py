# SPDX-License-Identifier: Apache-2.0
"""An Airflow that is newer than those that have been tested runs, with a warning."""

from __future__ import annotations

import logging

import pytest

from airflow_dispatch_provider.bridge import version_compat
from airflow_dispatch_provider.bridge.version_compat import (
    NEWEST_TESTED,
    OLDEST_TESTED,
    untested,
    warn_if_untested,
)
from airflow_dispatch_provider.executors.local_executor import LocalExecutor
from devkit.environment import AIRFLOW_VERSIONS


@pytest.mark.parametrize("version", ["3.5.0", "3.5.0b1", "3.10.0", "4.0.0"])
def test_a_newer_version_is_named_with_those_that_are_known(version: str):
    words = untested(version)
    assert words is not None
    assert words.startswith(f"Airflow {version} has not been tested")
    assert f"{OLDEST_TESTED} to {NEWEST_TESTED}" in words


@pytest.mark.parametrize("version", ["3.1.2", "3.4.0b2", "3.4.0", "3.4.9"])
def test_tested_versions_and_their_patches_are_not(version: str):
    assert untested(version) is None


def test_the_installed_version_is_tested():
    assert untested() is None


def test_the_versions_that_are_called_tested_are_those_with_a_lock():
    minors = [".".join(version.split(".")[:2]) for version in AIRFLOW_VERSIONS]
    assert (minors[0], minors[-1]) == (OLDEST_TESTED, NEWEST_TESTED)


def test_an_executor_that_starts_warns_once_in_a_process(monkeypatch, caplog):
    monkeypatch.setattr(version_compat, "untested", lambda: "Airflow 9 has not been tested.")
    warn_if_untested.cache_clear()
    for _ in range(2):
        executor = LocalExecutor(parallelism=1)
        executor.start()
        executor.end()
    lines = [record for record in caplog.records if "has not been tested" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.WARNING]
    warn_if_untested.cache_clear()
