# SPDX-License-Identifier: Apache-2.0
"""Tasks that say ``executor=`` beside a router: Airflow knows the names, the router has the tasks."""

from __future__ import annotations

import time

import pytest
from airflow.executors import executor_loader
from airflow.executors.executor_loader import ExecutorLoader

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.dispatch.rules import machine_settings
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.executors import by_name
from airflow_dispatch_provider.executors.dispatch_executor import STARTED, DispatchExecutor
from airflow_dispatch_provider.testing import make_callback, make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

from .support import child, given, key

NAMED = "unit.dispatch.named_backends"
BACKENDS = {
    "celery": {"executor": f"{NAMED}.CeleryExecutor", "slots": 4},
    "near": {"executor": f"{NAMED}.KubernetesExecutor", "slots": 1},
    "far": {"executor": f"{NAMED}.KubernetesExecutor", "slots": 4},
}
ROUTES = [{"queue": "far", "to": [{"backend": "far", "queue": "other"}, "celery"]}]
ROUTER = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
ENTRIES = {
    name: f"{name}:airflow_dispatch_provider.executors.by_name.{name}"
    for name in ("CeleryExecutor", "KubernetesExecutor", "LocalExecutor")
}


@pytest.fixture
def executors(monkeypatch, dispatch_config):
    """The executors of `[core] executor`, as the scheduler makes and starts them, by alias."""
    made = []
    monkeypatch.setattr(DispatchExecutor, "_make_clerk", lambda *_: InMemoryClerk())

    def start(*entries, backends=BACKENDS):
        dispatch_config(backends=backends, routes=ROUTES, default="celery")
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", ",".join(entries))
        # Airflow remembers for the life of a process which executors are configured.
        monkeypatch.setattr(executor_loader, "_executor_names", [])
        STARTED.clear()
        made.extend(ExecutorLoader.load_executor(name) for name in ExecutorLoader.get_executor_names())
        for executor in made:
            executor.job_id = 1
            executor.start()
        return list(made)

    yield start
    for executor in made:
        executor.end()


@pytest.fixture
def three(executors):
    return executors(ROUTER, ENTRIES["CeleryExecutor"], ENTRIES["KubernetesExecutor"])


def beat(*executors):
    for executor in executors:
        executor.heartbeat()


@pytest.mark.parametrize("name", ["CeleryExecutor", "KubernetesExecutor"])
def test_airflow_finds_both_names(name, three):
    """By alias, as Dags are checked, and as the scheduler of each version looks executors up."""
    found = ExecutorLoader.lookup_executor_name_by_str(name)
    assert (found.alias, found) == (name, next(e.name for e in three if type(e).__name__ == name))


def test_a_task_goes_to_a_backend_of_the_executor_that_it_names(three):
    """Whatever its queue: to those on its route, with the queue that the route says, else to any, in their order."""
    router, celery, kubernetes = three
    kubernetes.queue_workload(make_task("far", task_id="a"), None)
    kubernetes.queue_workload(make_task("default", task_id="b"), None)
    kubernetes.queue_workload(make_task("default", task_id="c"), None)
    celery.queue_workload(make_task("far", task_id="d"), None)
    celery.queue_workload(make_task("default", task_id="e"), None)
    router.queue_workload(make_task("far", task_id="f"), None)
    beat(*three)
    assert given(router, "near") == ["b"]
    assert given(router, "far") == ["a", "c", "f"]
    assert given(router, "celery") == ["d", "e"]
    assert child(router, "far").given[0].ti.queue == "other"


def test_what_is_held_keeps_its_executor(three):
    """A slot that becomes free is not given to a task that names another executor."""
    router, _, kubernetes = three
    for _ in range(7):
        kubernetes.queue_workload(make_task("default"), None)
    beat(*three)
    router._loop.tell(time.monotonic(), machine_settings(router._settings, router._limits))
    beat(*three)
    assert (len(given(router, "near")), len(given(router, "far")), given(router, "celery")) == (1, 4, [])
    assert router._loop.machine.held == 2


def test_the_router_answers_for_all(three):
    """Slots, events and what runs are counted once; every question is answered by whoever is asked."""
    router, celery, _ = three
    task = make_task()
    celery.queue_workload(task, None)
    beat(*three)
    assert [executor.slots_occupied for executor in three] == [1, 0, 0]
    assert {executor.slots_available for executor in three} == {router.slots_available}
    assert all(executor.has_task(task.ti) for executor in three)
    child(router, "celery").finish(task)
    beat(*three)
    beat(*three)
    assert [list(executor.get_event_buffer()) for executor in three] == [[key(router, task)], [], []]
    assert not any(executor.has_task(task.ti) for executor in three)


def test_airflow_leaves_nothing_behind_in_a_name(three):
    """Airflow 3.4 remembers tasks in the executor that it gives them to: that must be the router."""
    router, celery, _ = three
    task = make_task()
    celery.queue_workload(task, None)
    beat(*three)
    child(router, "celery").finish(task)
    beat(*three)
    beat(*three)
    for executor in three:
        executor.get_event_buffer()
        assert not getattr(executor, "_task_coordinates", None)
        assert list(executor.running) == []


def test_revoking_and_failing_reach_the_backend(three):
    """The scheduler asks the executor that the task names."""
    router, celery, _ = three
    held, sent = make_task(), make_task()
    celery.queue_workload(sent, None)
    beat(*three)
    celery.queue_workload(held, None)
    celery.revoke_task(ti=held.ti)
    assert not router.has_task(held.ti)
    _, _, failure = airflow_api.workload_states(sent)
    celery.change_state(key(router, sent), failure)
    beat(*three)
    assert router.get_event_buffer()[key(router, sent)][0] == failure


def test_orphans_are_offered_to_the_router(three, monkeypatch):
    """A task that a dead scheduler had given to a name is adopted like any other."""
    router, celery, _ = three
    asked = []
    monkeypatch.setattr(type(router), "try_adopt_task_instances", lambda self, tis: asked.append(tis) or tis)
    assert celery.try_adopt_task_instances(["ti"]) == ["ti"]
    assert asked == [["ti"]]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_a_callback_may_go_elsewhere(three):
    """Where the named executor has no slot for it, as for any callback."""
    router, _, kubernetes = three
    for _ in range(6):
        kubernetes.queue_workload(make_callback(), None)
    beat(*three)
    assert [len(child(router, name).given) for name in ("near", "far", "celery")] == [1, 4, 1]


def test_attributes_are_those_of_the_router(three):
    """Airflow reads them on class and instance, to decide what it may send."""
    router, celery, _ = three
    names = ["is_local", "serve_logs", "pre_assigns_external_executor_id", "supports_task_instance_uuid"]
    names.append(
        "supported_workload_types" if hasattr(router, "supported_workload_types") else "supports_callbacks"
    )
    for name in names:
        assert getattr(celery, name, None) == getattr(type(celery), name, None) == getattr(router, name, None)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (
            [ENTRIES["CeleryExecutor"]],
            "lists .*by_name.CeleryExecutor without a router before it. Put .*Dispatch",
        ),
        (
            [ENTRIES["CeleryExecutor"], ROUTER],
            f"lists .*by_name.CeleryExecutor before the router. Put {ROUTER} first",
        ),
        (
            [ROUTER, ENTRIES["LocalExecutor"]],
            "no backend has an executor of that name. Give a backend the Local",
        ),
    ],
)
def test_names_without_a_meaning_are_refused_at_the_start(entries, says, executors):
    """Not when the first task comes; with what to do."""
    with pytest.raises(DispatchConfigError, match=says):
        executors(*entries)


def test_logs_are_read_where_nothing_was_started(three, monkeypatch):
    """As in the API server: by a router that is made once, and not started."""
    STARTED.clear()
    asked = []
    monkeypatch.setattr(
        DispatchExecutor, "get_task_log", lambda self, ti, number: asked.append(self) or ([], ["text"])
    )
    reader = by_name.CeleryExecutor()
    assert reader.get_task_log("ti", 1) == reader.get_task_log("ti", 1) == ([], ["text"])
    assert asked[0] is asked[1]
    assert asked[0]._loop is None
