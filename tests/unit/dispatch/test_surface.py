# SPDX-License-Identifier: Apache-2.0
"""Attributes and methods of the router that Airflow uses besides queueing and heartbeat."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode

import pytest
from airflow.executors import executor_loader

from airflow_dispatch_provider.bridge import workload
from airflow_dispatch_provider.bridge.version_compat import (
    AIRFLOW_V_3_2_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_dispatch_provider.executors.class_attributes import configured_classes
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from airflow_dispatch_provider.executors.surface import FaceSurface
from airflow_dispatch_provider.lifecycle.actions import Dispatch
from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Broken, Command, Order
from airflow_dispatch_provider.routing.model import Target
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.testing import make_callback, make_connection_test, make_task
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY

from .support import child, given, key, queue

LOCAL = {"executor": "LocalExecutor", "slots": 2}
MEMORY = {"executor": IN_MEMORY, "slots": 2}


@pytest.mark.parametrize(
    ("backends", "is_local"), [({"a": LOCAL, "b": MEMORY}, True), ({"b": MEMORY}, False)]
)
def test_class_attributes_follow_from_the_backends(dispatch_config, backends, is_local):
    """Airflow reads them on the class, before there is an instance."""
    dispatch_config(backends=backends, default=next(iter(backends)))
    assert DispatchExecutor.is_local is is_local
    assert DispatchExecutor.serve_logs is True
    assert DispatchExecutor().is_local is is_local


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="teams can be used since Airflow 3.2")
def test_a_teams_router_has_the_abilities_of_its_teams_backends(dispatch_config, monkeypatch):
    """And nothing of those of others; what Airflow reads on the class is true where it is for any team."""
    dispatch_config(backends={"b": MEMORY}, default="b")
    router = f"{DispatchExecutor.__module__}.DispatchExecutor"
    for name, value in {
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__CORE__EXECUTOR": f"{router};blue={router};green={router}",
        "AIRFLOW__BLUE___DISPATCH__BACKENDS": json.dumps({"l": LOCAL}),
        "AIRFLOW__BLUE___DISPATCH__DEFAULT": "l",
        "AIRFLOW__GREEN___DISPATCH__BACKENDS": json.dumps({"m": MEMORY}),
        "AIRFLOW__GREEN___DISPATCH__DEFAULT": "m",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(executor_loader, "_executor_names", [])
    configured_classes.cache_clear()
    teams = {team: DispatchExecutor(team_name=team) for team in (None, "blue", "green")}
    assert {team: each.is_local for team, each in teams.items()} == {
        None: False,
        "blue": True,
        "green": False,
    }
    assert DispatchExecutor.is_local is True


def test_class_attributes_survive_a_wrong_configuration(dispatch_config):
    """Every airflow command reads them; it is ``start`` and ``validate`` that complain."""
    dispatch_config(backends="nonsense")
    assert DispatchExecutor.is_local is False


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.2 assigns ids")
@pytest.mark.parametrize("alone", [True, False])
def test_the_id_that_airflow_has_assigned_goes_with_the_first_dispatch_alone(make_router, alone):
    """Two backends may have one result backend: the second would take the result of the first one's message."""
    router = make_router({"a": 1, "b": 1})
    task = make_task()
    task = task.model_copy(update={"ti": task.ti.model_copy(update={"external_executor_id": "assigned"})})
    for name in "ab":
        child(router, name).pre_assigns_external_executor_id = True
    surface = FaceSurface(router) if alone else router._loop._surface
    first = Dispatch(1, "k", task, Target(backend="a"), "route", Reason.FIRST_CHOICE)
    second = first._replace(number=2, target=Target(backend="b"), again=True)
    assert surface.prepare(first, "a").ti.external_executor_id == "assigned"
    assert surface.prepare(second, "b").ti.external_executor_id is None
    assert task.ti.external_executor_id == "assigned"


def test_it_says_in_short_what_it_has(make_router):
    """Slots in use and slots there are, by backend in the order of the configuration, and how many tasks wait."""
    router = make_router({"b": 1, "a": 16})
    queue(router, *(make_task("b") for _ in range(3)))
    assert repr(DispatchExecutor()) == "DispatchExecutor(not started)"
    router.heartbeat()
    assert repr(router) == "DispatchExecutor(b 1/1, a 0/16, held 2)"
    router._loop.tell(1.0, Order(Command.CORDON, "a"), Broken("b", "no broker"))
    assert repr(router) == "DispatchExecutor(b 1/1 unusable, a 0/16 cordoned, held 2)"
    router._loop.tell(1.0, Broken(EXECUTION_API, "refused"))
    assert repr(router).endswith("a 0/16 cordoned, the Execution API answers nobody, held 2)")


def test_free_slots_are_those_that_a_new_task_could_get(make_router):
    """Slots of usable backends, less what already waits for them."""
    router = make_router({"a": 3, "b": 2}, routes=[{"queue": "b", "to": ["b"]}])
    assert router.slots_available == 5
    queue(router, make_task("a"), make_task("b"))
    assert router.slots_available == 3
    router.heartbeat()
    assert (router.slots_available, router.slots_occupied) == (3, 2)


def test_tasks_for_a_full_backend_do_not_hide_those_for_a_free_one(make_router):
    """While such tasks are in the way, as many more may be queued as may be held."""
    router = make_router({"a": 1, "b": 1}, routes=[{"queue": "b", "to": ["b"]}], max_held="50")
    queue(router, *(make_task("a") for _ in range(4)))
    router.heartbeat()
    assert len(given(router, "a")) == 1
    assert router.slots_available == 50 - 3


def test_at_the_bound_nothing_more_is_taken(make_router):
    """max_held is reached: no slots, free ones or not."""
    router = make_router({"a": 1, "b": 1}, routes=[{"queue": "b", "to": ["b"]}], max_held="2")
    queue(router, *(make_task("a") for _ in range(3)))
    router.heartbeat()
    assert router.slots_available == 0


def test_a_cordoned_backend_offers_no_slots_and_finishes_its_work(make_router, tmp_path):
    """Cordoned while it runs something: no new work, the event still comes."""
    file = tmp_path / "dispatch.yaml"
    text = f"backends: {{a: {{executor: {IN_MEMORY}, slots: 2}}}}\n"
    file.write_text(text)
    router = make_router(None, config_file=str(file))
    task, later = make_task(), make_task()
    queue(router, task)
    router.heartbeat()
    file.write_text(text.replace("slots: 2", "slots: 2, cordoned: true"))
    queue(router, later)
    router.heartbeat()
    assert router.slots_available == 0
    assert len(given(router, "a")) == 1
    child(router, "a").finish(task)
    router.heartbeat()
    router.heartbeat()
    assert list(router.get_event_buffer()) == [key(router, task)]


def test_a_bad_new_file_changes_nothing(make_router, tmp_path, caplog):
    """The last good version stays in use, and the log says so once."""
    file = tmp_path / "dispatch.yaml"
    file.write_text(f"backends: {{a: {{executor: {IN_MEMORY}, slots: 2}}}}\n")
    router = make_router(None, config_file=str(file))
    file.write_text("backends: 7\n")
    for _ in range(3):
        router.heartbeat()
    queue(router, make_task())
    router.heartbeat()
    assert len(given(router, "a")) == 1
    assert caplog.text.count("the file that is there is refused") == 1


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_callbacks_go_to_a_backend_that_can_run_them(make_router):
    """With or without a queue, before any task."""
    router = make_router({"a": 1, "b": 1}, routes=[{"queue": "for-b", "to": ["b"]}])
    queue(router, make_callback("for-b"), make_callback(None))
    router.heartbeat()
    assert (len(child(router, "a").given), len(child(router, "b").given)) == (1, 1)


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="connection tests came with Airflow 3.3")
def test_a_connection_test_that_took_too_long_is_forgotten(make_router):
    """The scheduler gives it up: its slot is free."""
    router = make_router({"a": 1})
    test = make_connection_test()
    queue(router, test)
    router.heartbeat()
    assert router.slots_occupied == 1
    router.fail_connection_test(key(router, test))
    router.heartbeat()
    assert router.slots_occupied == 0


@pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="UUID keys came with Airflow 3.4")
def test_a_backend_without_uuid_keys_works(make_router, monkeypatch):
    """Its events, under coordinate keys, arrive under the UUID keys that the scheduler expects."""
    from airflow_dispatch_provider.testing import InMemoryExecutor

    monkeypatch.setattr(InMemoryExecutor, "supports_task_instance_uuid", False)
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    child(router, "a").finish(task)
    router.heartbeat()
    router.heartbeat()
    events, coordinates = router._drain_events_with_task_ids()
    assert list(events) == [key(router, task)]
    assert coordinates == {key(router, task): task.ti.key}


@pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="the base class wraps adoption since Airflow 3.4")
def test_coordinates_are_forgotten_with_the_task(make_router):
    """The base class's memory of a task does not outlive it."""
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    child(router, "a").finish(task)
    router.heartbeat()
    router.heartbeat()
    router.get_event_buffer()
    assert router._task_coordinates == {}


def test_backends_get_what_the_scheduler_gave_the_router(make_router):
    """job_id, name, and one deque of event-log rows for all."""
    router = make_router({"a": 1})
    executor = child(router, "a")
    assert executor.job_id == 1
    assert executor.name.alias == "a"
    assert executor._task_event_logs is router._task_event_logs
    assert executor.parallelism == executor.conf.getint("core", "parallelism") == 1


def test_a_backend_never_gets_an_old_token(make_router, monkeypatch):
    """A token expires at the age at which Airflow takes a task for stuck, counted from its making."""
    monkeypatch.setattr(workload, "with_new_token", lambda task, _: task.model_copy(update={"token": "new"}))
    router = make_router({"a": 2})
    router.jwt_generator = None
    fresh = token(made=time.time())
    queue(
        router,
        make_task(token=fresh),
        make_task(token=token(made=time.time() - workload.token_lifetime() / 2)),
    )
    router.heartbeat()
    assert [each.token for each in child(router, "a").given] == [fresh, "new"]


def token(made):
    payload = urlsafe_b64encode(json.dumps({"iat": made}).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


def test_a_log_is_shown_where_its_backend_cannot_be_made(make_router, monkeypatch):
    """An API server may lack the provider of a backend; Airflow goes on to what the task has written."""
    router = make_router({"a": 1})

    class Away:
        name = "a"

        @property
        def executor(self):
            raise ImportError("no provider")

    monkeypatch.setattr(router, "_log_backends", type("Of", (), {"of": lambda self, ti, started: Away()})())
    messages, logs = router.get_task_log(None, 1)
    assert ("Backend 'a' cannot be asked for a log here" in messages[0], logs) == (True, [])
    with pytest.raises(NotImplementedError):
        router.get_streaming_task_log(None, 1)


def test_what_a_backend_raises_over_a_log_or_a_dump_is_its_own_affair(make_router, monkeypatch):
    """A log is shown without it; the dump comes from the handler of a signal."""
    router = make_router({"a": 1, "b": 1})
    executor = child(router, "a")

    def fail(*_):
        raise OSError("away")

    monkeypatch.setattr(executor, "get_task_log", fail)
    monkeypatch.setattr(executor, "debug_dump", fail)
    dumped = []
    monkeypatch.setattr(child(router, "b"), "debug_dump", lambda: dumped.append("b"))
    of = type("Of", (), {"of": lambda self, ti, started: router._backends["a"]})()
    monkeypatch.setattr(router, "_log_backends", of)
    messages, logs = router.get_task_log(None, 1)
    assert ("OSError: away" in messages[0], logs) == (True, [])
    router.debug_dump()
    assert dumped == ["b"]
