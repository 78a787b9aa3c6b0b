# SPDX-License-Identifier: Apache-2.0
"""The hybrids of Airflow 2 as routers: what Airflow reads on the class, and where tasks go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from airflow.executors import executor_loader
from airflow.executors.executor_loader import ExecutorLoader

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.executors.celery_kubernetes_executor import CeleryKubernetesExecutor
from airflow_dispatch_provider.executors.class_attributes import configured_classes
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from airflow_dispatch_provider.executors.local_kubernetes_executor import LocalKubernetesExecutor
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY

from .support import given, queue

HYBRIDS = (CeleryKubernetesExecutor, LocalKubernetesExecutor)
OTHER = {CeleryKubernetesExecutor: "celery", LocalKubernetesExecutor: "local"}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    configured_classes.cache_clear()
    yield
    configured_classes.cache_clear()


@pytest.fixture
def started(dispatch_config):
    """Starts a hybrid whose backends run nothing."""
    made = []

    def start(cls, **options):
        memory = {"executor": IN_MEMORY}
        backends = {name: {**memory, **options.pop(name, {})} for name in (OTHER[cls], "kubernetes")}
        dispatch_config(backends=backends, **options)
        executor = cls(parallelism=32)
        executor.job_id = 1
        executor.start()
        made.append(executor)
        return executor

    yield start
    for executor in made:
        executor.end()


def path_of(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


@pytest.mark.parametrize(("cls", "is_local"), list(zip(HYBRIDS, (False, True), strict=True)))
def test_class_attributes_follow_from_the_preset(cls, is_local):
    """Nothing under [dispatch]: what the backends of the preset have, not those of another router."""
    assert cls.is_local is cls.serve_logs is is_local
    assert DispatchExecutor.is_local is False
    assert cls.supports_multi_team


@pytest.mark.parametrize("cls", HYBRIDS)
def test_one_line_is_enough(cls, monkeypatch):
    """`[core] executor` alone: Airflow loads it, and its settings are complete."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", path_of(cls))
    # Airflow remembers for the life of a process which executors are configured.
    monkeypatch.setattr(executor_loader, "_executor_names", [])
    (name,) = ExecutorLoader.get_executor_names()
    loaded = ExecutorLoader.load_executor(name)
    assert type(loaded) is cls
    assert loaded._source.load().default.to[0].backend == OTHER[cls]


@pytest.mark.parametrize("cls", HYBRIDS)
def test_tasks_go_where_their_queue_says(cls, started, monkeypatch):
    """The queue of the old option goes to Kubernetes, the others do not."""
    section = "celery_kubernetes_executor" if cls is CeleryKubernetesExecutor else "local_kubernetes_executor"
    monkeypatch.setenv(f"AIRFLOW__{section.upper()}__KUBERNETES_QUEUE", "pods")
    router = started(cls)
    queue(
        router, make_task("pods", task_id="a"), make_task("kubernetes", task_id="b"), make_task(task_id="c")
    )
    router.heartbeat()
    assert given(router, "kubernetes") == ["a"]
    assert given(router, OTHER[cls]) == ["b", "c"]


def test_a_full_kubernetes_does_not_starve_celery(started):
    """Slots for Kubernetes of its own: what it has no room for waits, Celery goes on."""
    router = started(CeleryKubernetesExecutor, kubernetes={"slots": 1})
    queue(router, *(make_task("kubernetes") for _ in range(5)), make_task("default", task_id="c"))
    router.heartbeat()
    assert len(given(router, "kubernetes")) == 1
    assert given(router, "celery") == ["c"]
    assert router.slots_available > 0


def test_options_that_airflow_2_still_took_are_warned_of(dispatch_config, monkeypatch, caplog):
    """At the start, as pods would otherwise silently go to another namespace."""
    monkeypatch.setenv("AIRFLOW__KUBERNETES__NAMESPACE", "tasks")
    dispatch_config(backends={"celery": {"executor": IN_MEMORY}, "kubernetes": {"cordoned": True}})
    executor = CeleryKubernetesExecutor()
    executor.start()
    executor.end()
    assert (
        "[kubernetes]: Airflow 3 reads nothing of this section. Move its options to [kubernetes_executor]"
        in caplog.text
    )


def test_slots_that_share_parallelism_are_no_reason_to_warn(started, caplog):
    """As in Airflow 2 each backend may use all of it."""
    started(CeleryKubernetesExecutor)
    assert "parallelism" not in caplog.text


@pytest.mark.skipif(AIRFLOW_V_3_2_PLUS, reason="since Airflow 3.2 commands come from the providers")
@pytest.mark.parametrize(
    ("cls", "groups"),
    [(CeleryKubernetesExecutor, {"celery", "kubernetes"}), (LocalKubernetesExecutor, {"kubernetes"})],
)
def test_commands_of_the_backends_are_there_once(cls, groups):
    """A second group of one name would end every airflow command."""
    names = [command.name for command in cls.get_cli_commands()]
    assert sorted(names) == sorted({"dispatch", *groups})
