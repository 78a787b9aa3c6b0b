# SPDX-License-Identifier: Apache-2.0
"""Failures of one backend do not reach the scheduler or the other backends."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import ModuleType

import pytest

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.protocols import Claim
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.testing import InMemoryExecutor, make_callback, make_task
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY
from tests.known_places import SECRET, TEXTS

from .support import child, given, key, queue

TO_B = [{"queue": "b", "to": ["b"]}]
A_THEN_B = [{"queue": "q", "to": ["a", "b"], "overflow_after": "never"}]


def test_a_backend_whose_heartbeat_raises_stops_nobody(make_router):
    """The others get their work in the same heartbeat, and nothing is raised."""
    router = make_router({"a": 1, "b": 1}, routes=TO_B)
    child(router, "a").failing["heartbeat"] = ConnectionError("no broker")
    queue(router, make_task("a"), make_task("b", task_id="mine"))
    router.heartbeat()
    assert given(router, "b") == ["mine"]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
def test_a_backend_whose_class_comes_late_gets_what_it_can_run(make_router, clock, monkeypatch):
    """Before that, nobody could know that it runs callbacks."""
    router = make_router({"a": {"executor": "late_executor.Late", "slots": 1}})
    callback = make_callback()
    queue(router, callback)
    assert router.get_event_buffer()[key(router, callback)][0] == "failed"
    module = ModuleType("late_executor")
    module.Late = type("Late", (InMemoryExecutor,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    clock.now += 60
    router.heartbeat()
    router.heartbeat()
    queue(router, again := make_callback())
    router.heartbeat()
    assert router.get_event_buffer() == {}
    assert key(router, again) in router.running


def test_a_backend_that_cannot_count_its_workers_harms_only_itself(make_router, clock):
    """It gets no more work, as after any other failure, and is back when it can count again."""
    router = make_router(
        {"a": {"executor": IN_MEMORY, "slots": "workers", "fallback_slots": 1}, "b": 1}, routes=TO_B
    )
    child(router, "a").failing["worker_slots"] = ConnectionError("no broker")
    router.heartbeat()
    queue(router, make_task("a", task_id="theirs"), make_task("b", task_id="mine"))
    router.heartbeat()
    assert (given(router, "a"), given(router, "b")) == ([], ["mine"])
    child(router, "a").failing.clear()
    clock.now += 2
    router.heartbeat()
    router.heartbeat()
    assert given(router, "a") == ["theirs"]


def test_a_failing_backend_is_logged_once_and_again_when_it_is_back(make_router, clock, caplog):
    """One error line with the reason, however often it fails; one line on recovery."""
    caplog.set_level(logging.INFO)
    router = make_router({"a": 1})
    child(router, "a").failing["heartbeat"] = ConnectionError("no broker")
    for _ in range(5):
        router.heartbeat()
        clock.now += 120
    child(router, "a").failing.clear()
    router.heartbeat()
    lines = [record.getMessage() for record in caplog.records if "'a'" in record.getMessage()]
    assert len(lines) == 2
    assert "ConnectionError: no broker" in lines[0]
    assert lines[1] == "Backend 'a' works again."


def test_a_failure_keeps_the_backend_from_being_called(make_router, clock):
    """After a failure it is left alone until its delay is over."""
    router = make_router({"a": 1})
    child(router, "a").failing["heartbeat"] = ConnectionError()
    router.heartbeat()
    calls = child(router, "a").calls.count("heartbeat")
    router.heartbeat()
    assert child(router, "a").calls.count("heartbeat") == calls
    clock.now += 2
    router.heartbeat()
    assert child(router, "a").calls.count("heartbeat") == calls + 1


def test_work_fails_over_while_a_backend_fails_and_returns_after(make_router, clock):
    """The route's next target is used for as long as the first one is not usable."""
    router = make_router({"a": 5, "b": 5}, routes=A_THEN_B)
    child(router, "a").failing["heartbeat"] = ConnectionError()
    router.heartbeat()
    queue(router, make_task("q", task_id="during"))
    router.heartbeat()
    child(router, "a").failing.clear()
    clock.now += 2
    router.heartbeat()
    queue(router, make_task("q", task_id="after"))
    router.heartbeat()
    assert (given(router, "b"), given(router, "a")) == (["during"], ["after"])


def test_a_backend_that_is_tried_again_gets_nothing_before_it_works(make_router, clock):
    """Its heartbeat is the first thing that is tried."""
    router = make_router({"a": 5})
    child(router, "a").failing["heartbeat"] = ConnectionError()
    router.heartbeat()
    queue(router, *(make_task() for _ in range(3)))
    clock.now += 2
    child(router, "a").failing.clear()
    router.heartbeat()
    assert len(given(router, "a")) == 0
    router.heartbeat()
    assert len(given(router, "a")) == 3


def test_what_a_backend_hands_back_is_held_again_and_goes_elsewhere(make_router):
    """Unsent work costs nothing: no event, no slot; its backend is left alone, so it fails over."""
    router = make_router({"a": 1, "b": 1}, routes=A_THEN_B)
    child(router, "a").failing["heartbeat"] = ConnectionError("the broker is down")
    task = make_task("q", task_id="mine")
    queue(router, task)
    router.heartbeat()
    assert router.slots_occupied == 0
    assert router.has_task(task.ti)
    router.heartbeat()
    assert given(router, "b") == ["mine"]
    assert router.get_event_buffer() == {}


@pytest.mark.parametrize(
    ("parts", "refused"),
    [
        # One namespace of one cluster.
        (("x", "x"), True),
        # A backend that watches all of them wants the others', too.
        (("x", None), True),
        (("x", "y"), False),
    ],
)
def test_two_backends_that_want_the_same_refuse_to_start(make_router, monkeypatch, parts, refused):
    """The message names both, and what they want."""
    claims = iter([[Claim("https://cluster", part)] for part in parts])
    monkeypatch.setattr(InMemoryExecutor, "claims", lambda self: next(claims), raising=False)
    if refused:
        with pytest.raises(DispatchConfigError, match=r"backends.b: uses .* of https://cluster, .* 'a' does"):
            make_router({"a": 1, "b": 1})
    else:
        make_router({"a": 1, "b": 1})


def test_queue_workload_that_raises_leaves_the_task_held(make_router, clock):
    """A backend that does not accept a workload has not got it."""
    router = make_router({"a": 1})
    child(router, "a").failing["queue_workload"] = RuntimeError("full")
    queue(router, make_task(task_id="mine"))
    router.heartbeat()
    assert (router.slots_occupied, router._loop.machine.held) == (0, 1)
    child(router, "a").failing.clear()
    clock.now += 2
    router.heartbeat()
    assert given(router, "a") == ["mine"]


def test_a_backend_that_does_not_start_is_started_later(make_router, clock, dispatch_config, monkeypatch):
    """start() raising costs this backend alone; it is tried again when its delay is over."""
    from airflow_dispatch_provider.testing import InMemoryExecutor

    broken = True
    start = InMemoryExecutor.start

    def start_unless_broken(self):
        if broken and self.parallelism == 3:
            raise ConnectionError("no API server")
        start(self)

    monkeypatch.setattr(InMemoryExecutor, "start", start_unless_broken)
    router = make_router({"a": 3, "b": 1}, routes=TO_B)
    queue(router, make_task("a", task_id="waits"), make_task("b", task_id="goes"))
    router.heartbeat()
    assert given(router, "b") == ["goes"]
    broken = False
    clock.now += 2
    router.heartbeat()
    router.heartbeat()
    assert given(router, "a") == ["waits"]


def test_a_missing_dependency_costs_one_backend(make_router, caplog):
    """The log names what is missing; the other backends work."""
    router = make_router({"a": 1, "b": {"executor": "no.such.module.Executor", "slots": 1}}, routes=TO_B)
    queue(router, make_task("a", task_id="mine"), make_task("b"))
    router.heartbeat()
    assert given(router, "a") == ["mine"]
    assert "cannot be imported (ModuleNotFoundError: no)" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("method", ["conf_problems", "__init__", "start", "claims"])
def test_a_backend_that_would_end_the_process_costs_itself_alone(
    make_router, monkeypatch, caplog, method, error
):
    """Also when it is made; in the scheduler, what it cannot say of itself is left to its start."""

    class Ends(InMemoryExecutor):
        pass

    def ends(*args, **kwargs):
        raise error

    monkeypatch.setattr(
        Ends, method, staticmethod(ends) if method == "conf_problems" else ends, raising=False
    )
    monkeypatch.setattr("airflow_dispatch_provider.testing.in_memory.Ends", Ends, raising=False)
    path = "airflow_dispatch_provider.testing.in_memory.Ends"
    router = make_router({"a": 1, "b": {"executor": path, "slots": 1}}, routes=TO_B)
    queue(router, make_task("a", task_id="mine"), make_task("b"))
    router.heartbeat()
    assert given(router, "a") == ["mine"]
    assert method == "claims" or "'b' failed in start" in caplog.text


@pytest.mark.parametrize("text", TEXTS)
def test_no_secret_of_a_known_place_that_an_executor_raises_at_its_start_is_logged(
    make_router, monkeypatch, caplog, text
):
    """Neither in the line, nor in the traceback below it, that of the cause included."""

    def fail(self):
        try:
            raise ConnectionError(text)
        except ConnectionError as error:
            raise RuntimeError(text) from error

    monkeypatch.setattr(InMemoryExecutor, "start", fail)
    make_router({"a": 1})
    assert "failed in start" in caplog.text
    assert "ConnectionError" in caplog.text
    assert SECRET not in caplog.text


def test_a_signal_at_the_start_of_a_backend_ends_the_scheduler(make_router, monkeypatch):
    """Airflow's handler of SIGTERM raises SystemExit wherever the scheduler is at that moment."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    monkeypatch.setattr(InMemoryExecutor, "start", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(SystemExit):
            make_router({"a": 1})
    finally:
        signal.signal(signal.SIGTERM, before)


def test_bad_configuration_refuses_to_start(make_router):
    """start() names every mistake."""
    with pytest.raises(DispatchConfigError) as error:
        make_router({"a": 0, "b": 1}, routes=[{"queue": "x", "to": ["nowhere"]}])
    assert len(error.value.problems) == 2


@pytest.mark.parametrize("method", ["end", "terminate"])
def test_ending_goes_on_past_a_backend_that_raises(make_router, method):
    """Every backend is ended."""
    router = make_router({"a": 1, "b": 1})
    child(router, "a").failing[method] = child(router, "b").failing[method] = OSError()
    getattr(router, method)()
    assert method in child(router, "a").calls
    assert method in child(router, "b").calls


def test_end_and_the_rest_do_nothing_before_start(dispatch_config):
    """Airflow makes executors that it never starts."""
    from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor

    dispatch_config(backends="nonsense")
    router = DispatchExecutor()
    router.end()
    router.terminate()
    router.heartbeat()
    router.debug_dump()
    assert (router.slots_available, router.slots_occupied) == (0, 0)


def test_revoking_a_held_task_takes_it_out(make_router):
    """It is never given to a backend."""
    router = make_router({"a": 1})
    first, second = make_task(), make_task(task_id="held")
    queue(router, first, second)
    router.heartbeat()
    router.revoke_task(ti=second.ti)
    child(router, "a").finish(first)
    router.heartbeat()
    router.heartbeat()
    assert "held" not in given(router, "a")
    assert not router.has_task(second.ti)


def test_revoking_a_dispatched_task_frees_its_slot_and_silences_its_event(make_router):
    """The scheduler queues it again, so what its old copy ends with must not be believed."""
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    router.revoke_task(ti=task.ti)
    child(router, "a").finish(task, success=False)
    router.heartbeat()
    assert router.slots_occupied == 0
    assert router.get_event_buffer() == {}


def test_a_revocation_that_fails_ends_nothing(make_router):
    """Airflow would end over what it does not know."""
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    child(router, "a").failing["revoke_task"] = ConnectionError()
    router.revoke_task(ti=task.ti)
    assert not router.has_task(task.ti)


def test_what_cannot_be_revoked_is_left_waiting(make_router, monkeypatch):
    """Airflow is told so, and goes on: the task stays where it is."""
    monkeypatch.delattr(InMemoryExecutor, "revoke_task")
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    with pytest.raises(NotImplementedError):
        router.revoke_task(ti=task.ti)
    assert router.has_task(task.ti)


def test_a_task_without_heartbeat_is_failed_and_stopped(make_router):
    """change_state becomes an event, and its backend stops what may be left of the task."""
    from airflow.utils.state import TaskInstanceState

    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    router.change_state(key(router, task), TaskInstanceState.FAILED, remove_running=True)
    router.heartbeat()
    assert router.get_event_buffer() == {key(router, task): (TaskInstanceState.FAILED, None)}
    assert (router.slots_occupied, len(child(router, "a").running)) == (0, 0)


def test_change_state_of_an_unknown_task_becomes_an_event(make_router):
    """Nobody owns it, so the scheduler hears it from the router itself."""
    from airflow.utils.state import TaskInstanceState

    router = make_router({"a": 1})
    task = make_task()
    router.change_state(key(router, task), TaskInstanceState.FAILED)
    assert router.get_event_buffer() == {key(router, task): (TaskInstanceState.FAILED, None)}


def test_a_task_that_comes_back_waits_for_the_end_of_its_first_half(make_router, clock):
    """A deferred task is resumed under the same key: it is not given away while the key is in use."""
    router = make_router({"a": 2})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    queue(router, task)
    router.heartbeat()
    assert len(given(router, "a")) == 1
    child(router, "a").finish(task)
    router.heartbeat()
    assert router.has_task(task.ti)
    router.heartbeat()
    assert len(given(router, "a")) == 2
    assert router.slots_occupied == 1


def test_a_task_that_comes_back_does_not_wait_for_ever(make_router, clock):
    """Ten seconds later it goes without the end of its first half, which may have got lost."""
    router = make_router({"a": 2})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    queue(router, task)
    clock.now += 11
    router.heartbeat()
    assert len(given(router, "a")) == 2


def test_one_event_for_a_key_at_a_time(make_router):
    """A second terminal event does not replace one that the scheduler has not taken yet."""
    router = make_router({"a": 1})
    task = make_task()
    queue(router, task)
    router.heartbeat()
    child(router, "a").finish(task)
    router.heartbeat()
    router.heartbeat()
    queue(router, task)
    router.heartbeat()
    child(router, "a").finish(task, info="again")
    router.heartbeat()
    router.heartbeat()
    infos = [router.get_event_buffer()[key(router, task)][1]]
    router.heartbeat()
    infos.append(router.get_event_buffer()[key(router, task)][1])
    assert infos == [None, "again"]
