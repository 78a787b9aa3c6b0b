# SPDX-License-Identifier: Apache-2.0
"""Before Airflow is imported: a home folder of the test run's own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator

if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
# Read when the Task SDK is imported: with the default, a task that finds no API server tries for half a minute.
os.environ.setdefault("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "1")

import hypothesis
import pytest

# How long examples take says more of the machine than of the code.
hypothesis.settings.register_profile(
    "dispatch", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("dispatch")

VERSION_INDEPENDENT = (
    "integration/celery/test_capacity",
    "integration/celery/test_dropped_messages",
    "integration/celery/test_engine_in_loop",
    "integration/celery/test_engine_rabbitmq",
    "integration/celery/test_engine_valkey",
    "integration/celery/test_engine_worker",
    "integration/celery/test_publish",
    "integration/celery/test_results_database",
    "integration/celery/test_results_redis",
    "integration/celery/test_results_rpc",
    "integration/celery/test_servers",
    "integration/docs",
    "integration/kubernetes/test_access",
    "integration/kubernetes/test_engine",
    "integration/kubernetes/test_kube_server",
    "integration/kubernetes/test_node_agent",
    "integration/local/test_local_ends",
    "integration/local/test_local_engine",
    "integration/local/test_local_loop",
    "integration/operate/test_pictures",
    "integration/operate/test_replica",
    "integration/provider/test_migrate",
    "integration/router/test_autoscaling",
    "unit/docs",
    "unit/engines/celery/test_publisher",
    "unit/engines/celery/test_result",
    "unit/engines/kubernetes/test_answers",
    "unit/engines/kubernetes/test_finisher",
    "unit/engines/kubernetes/test_judgement",
    "unit/engines/kubernetes/test_watcher",
    "unit/lifecycle",
    "unit/literal",
    "unit/migration",
    "unit/routing",
    "unit/settings",
    "unit/test_masking",
)
"""Next to nothing of Airflow is under test in these, and every lock pins the same Celery, kombu, redis-py and
Kubernetes clients."""

EXHAUSTIVE = ("unit/simulation/test_scenario", "unit/simulation/test_world")
"""Our own code alone, for long."""

RECENT = (
    "integration/celery/test_warm",
    "integration/hybrids",
    "integration/local/test_warm_dags",
    "integration/operate/test_live_answers",
)
"""Beside the engines' own threads and processes, these have little of Airflow under test that conformance, whole
deployments and the tests of each executor do not have on every version."""

ENDS = (
    "integration/conformance",
    "integration/operate/test_page",
    "integration/simulation",
    "integration/validate",
)
"""Longer ones, of which a version between others that pass has little to add to its own unit tests, and to the tests of
its database, commands, rights, executors and a whole deployment."""

pytest_plugins = ["airflow_dispatch_provider.testing.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``./dev/test --all-versions`` does not run with every Airflow version."""
    for item in items:
        path = item.path.as_posix()
        if any(part in path for part in EXHAUSTIVE):
            item.add_marker(pytest.mark.exhaustive)
        if any(part in path for part in VERSION_INDEPENDENT):
            item.add_marker(pytest.mark.once)
        elif any(part in path for part in RECENT):
            item.add_marker(pytest.mark.recent)
        elif any(part in path for part in ENDS):
            item.add_marker(pytest.mark.ends)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to skip, where pytest's own summary has one for each place in the tests."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[-1].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section("tests skipped, by reason")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:>5}  {reason}")


@pytest.fixture(autouse=True)
def no_swallowed_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Errors that the router keeps from the scheduler must not be kept from the tests."""
    yield
    guard = "airflow_dispatch_provider.bridge.guard"
    for phase in ("setup", "call", "teardown"):
        errors = [record for record in caplog.get_records(phase) if record.name == guard]
        assert not errors, "\n".join(record.getMessage() for record in errors)
