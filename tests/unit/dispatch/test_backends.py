# SPDX-License-Identifier: Apache-2.0
"""Backends come, go and change while a router runs."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from airflow_dispatch_provider.bridge import event_log
from airflow_dispatch_provider.dispatch import backends, preparing
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.engines.protocols import Claim
from airflow_dispatch_provider.lifecycle import survey
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.testing import InMemoryExecutor, make_task
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY

from .support import Clock, child, clerk, given, key, queue
from .test_adoption import task_instance

HERE = __name__


class Claiming(InMemoryExecutor):
    """Nobody else may use what its option names."""

    def claims(self) -> list[Claim]:
        return [Claim(self.conf.get("in_memory", "place"))]


class Checked(InMemoryExecutor):
    """It has an engine, and checks that import things."""

    threads: ClassVar[list[str]] = []

    def config_problems(self) -> list[Any]:
        self.threads.append(threading.current_thread().name)
        return []

    def make_engine(self, name: str, slots: int, *, counts_workers: bool) -> ForeignEngine:
        return ForeignEngine(name, lambda: self, slots)


class PreAssigned(InMemoryExecutor):
    pre_assigns_external_executor_id = True


class Stubborn(InMemoryExecutor):
    """Its end takes until the test lets it."""

    released = threading.Event()

    def end(self) -> None:
        self._enter("end")
        self.released.wait(20)


class Broken(InMemoryExecutor):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failing["end"] = RuntimeError("no end")


def backend(cls: type[Any] = InMemoryExecutor, slots: int = 2, **options: Any) -> dict[str, Any]:
    path = IN_MEMORY if cls is InMemoryExecutor else f"{HERE}.{cls.__name__}"
    return {"executor": path, "slots": slots, **({"config": {"in_memory": options}} if options else {})}


A, B = backend(), backend()
SLOW = {"executor": "slow.Executor", "slots": 1}


class Running:
    """A router, its file, and the threads that it has begun."""

    def __init__(self, make_router: Callable[..., Any], file: Path, **settings: Any) -> None:
        self.file = file
        self.write(**settings)
        self.router = make_router(None, config_file=str(file))

    def write(self, routes: Any = (), default: Any = None, **settings: Any) -> None:
        default = default or next(iter(settings))
        self.file.write_text(yaml.safe_dump({"backends": settings, "routes": [*routes], "default": default}))

    def beat(self, times: int = 1) -> None:
        for _ in range(times):
            self.router.heartbeat()

    def settle(self, *but_for: str) -> None:
        """Heartbeats, until nothing more happens by itself."""
        for _ in range(4):
            self.beat()
            for thread in threading.enumerate():
                if (
                    thread.name.startswith(("dispatch-preparing", "dispatch-stop"))
                    and thread.name not in but_for
                ):
                    thread.join(20)
        self.beat()

    def change(self, **settings: Any) -> None:
        self.write(**settings)
        self.settle()

    def queue(self, *names: str) -> dict[str, Any]:
        tasks = {name: make_task("q", task_id=name) for name in names}
        queue(self.router, *tasks.values())
        self.beat()
        return tasks

    def finish(self, executor: Any, task: Any) -> None:
        clerk(self.router).rows[key(self.router, task)] = Row(RowState.OVER, finished=True)
        executor.finish(task)
        self.beat(2)

    def told(self, task: Any) -> str:
        """The state of which Airflow is told."""
        state, _ = self.router.get_event_buffer()[key(self.router, task)]
        return str(state)


@pytest.fixture
def run(
    make_router: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., Running]:
    caplog.set_level(logging.INFO)
    return lambda **settings: Running(make_router, tmp_path / "dispatch.yaml", **settings)


def test_new_backend_is_started_and_gets_work(run):
    """Also what has waited until then; a file that has the other ones as they were leaves those alone."""
    running = run(a=backend(slots=1))
    before = child(running.router, "a")
    running.queue("first", "second")
    running.change(a=backend(slots=1), b=B, default=["a", "b"])
    assert given(running.router, "b") == ["second"]
    assert child(running.router, "a") is before
    assert before.calls.count("start") == child(running.router, "b").calls.count("start") == 1


def test_removed_backend_is_drained_and_then_stopped(run):
    """Nothing of it is dropped: what runs goes on and its end is told, and only then its executor ends."""
    running = run(a=A, b=B)
    task = running.queue("runs")["runs"]
    gone = child(running.router, "a")
    running.change(b=B)
    assert [workload.ti.task_id for workload in gone.given] == ["runs"]
    assert "end" not in gone.calls
    running.queue("later")
    assert (given(running.router, "b"), len(gone.given)) == (["later"], 1)
    running.finish(gone, task)
    assert running.told(task) == "success"
    running.settle()
    assert gone.calls.count("end") == 1
    assert (list(running.router._backends), list(running.router._loop.engines)) == (["b"], ["b"])


def test_backend_that_is_back_before_it_is_empty_goes_on_being_used(run):
    running = run(a=A, b=B)
    running.queue("runs")
    kept = child(running.router, "a")
    running.change(b=B)
    running.change(a=backend(slots=5), b=B)
    running.queue("more")
    assert child(running.router, "a") is kept
    assert given(running.router, "a") == ["runs", "more"]
    assert running.router._loop.engines["a"].slots == running.router._backends["a"].settings.slots == 5
    assert "end" not in kept.calls


def test_changed_backend_is_replaced_when_it_is_empty(run):
    """Meanwhile its tasks take their next target, or wait; then they find the new one."""
    running = run(a=backend(place="here"), b=backend(slots=1))
    task = running.queue("runs")["runs"]
    old = child(running.router, "a")
    running.change(a=backend(place="there"), b=backend(slots=1), default=["a", "b"])
    running.queue("next", "waits")
    assert (given(running.router, "b"), len(old.given)) == (["next"], 1)
    running.finish(old, task)
    running.settle()
    new = child(running.router, "a")
    assert (new is old, old.calls.count("end"), new.calls.count("start")) == (False, 1, 1)
    assert [workload.ti.task_id for workload in new.given] == ["waits"]
    assert new.conf.get("in_memory", "place") == "there"


def test_backend_that_changes_once_more_is_replaced_by_the_last_version(run):
    """And by none, where it is again what it was."""
    running = run(a=backend(place="1"), b=B)
    task = running.queue("runs")["runs"]
    old = child(running.router, "a")
    running.change(a=backend(place="2"), b=B)
    running.change(a=backend(place="1"), b=B)
    assert running.router._backends.in_use == {"a", "b"}
    running.change(a=backend(place="2"), b=B)
    running.change(a=backend(place="3"), b=B)
    running.finish(old, task)
    running.settle()
    assert child(running.router, "a").conf.get("in_memory", "place") == "3"


def test_waiting_task_has_a_reason(run):
    """As with any other backend that takes no work."""
    running = run(a=backend(place="1"))
    running.queue("runs")
    running.change(a=backend(place="2"))
    task = running.queue("waits")["waits"]
    machine = running.router._loop.machine
    assert machine.waits(key(running.router, task)) is Reason.WAITS_BLOCKED
    assert "a 1/2 removed" in repr(machine)


def test_what_it_was_given_and_has_not_sent_comes_back(run):
    """It is launched elsewhere, in the same try."""
    running = run(a=A, b=B)
    queue(running.router, make_task("q", task_id="unsent"))
    gone = child(running.router, "a")
    gone.failing["queue_workload"] = OSError("not now")
    engine = running.router._loop.engines["a"]
    held: list[Any] = []
    submit, engine.submit = engine.submit, held.extend
    engine.withdraw = lambda numbers: set(numbers)
    running.beat()
    assert len(held) == 1
    engine.submit = submit
    running.change(b=B)
    assert given(running.router, "b") == ["unsent"]


def test_two_that_may_not_share_something_never_run_at_once(run, caplog):
    """A backend under another name, with the same place, waits until the former one is empty, and has stopped."""
    running = run(a=backend(Claiming, place="here"), c=A)
    task = running.queue("runs")["runs"]
    old = child(running.router, "a")
    running.change(b=backend(Claiming, place="here"), c=A)
    assert set(running.router._backends) == {"a", "c"}
    assert "Backend 'b' is started when 'a' is empty." in caplog.text
    running.finish(old, task)
    running.settle()
    assert set(running.router._backends) == {"b", "c"}


def test_file_with_a_clash_is_refused(run):
    """Whatever is in use stays in use, and the status can tell why."""
    running = run(a=backend(Claiming, place="here"))
    running.change(a=backend(Claiming, place="here"), b=backend(Claiming, place="here"))
    file = running.router._routing_file
    assert "uses everything of here, as the backend 'a' does" in file.refusal
    assert file.path == str(running.file)
    assert set(running.router._backends) == {"a"}
    running.change(a=backend(Claiming, place="here"), b=backend(Claiming, place="there"))
    assert file.refusal is None
    assert set(running.router._backends) == {"a", "b"}


def test_refused_file_is_one_row_in_the_event_log(run):
    """Of no task; once, however many heartbeats see it."""
    running = run(a=A)
    running.write(a=backend(slots=0))
    running.beat(3)
    (row,) = running.router._task_event_logs
    assert (row.event, row.dag_id, row.task_id) == (event_log.REFUSED_FILE, None, None)
    extra = json.loads(row.extra)
    assert extra["file"] == str(running.file)
    assert "found 0" in extra["detail"]


def test_options_that_nobody_has_refuse_the_file(run):
    """As they would end a scheduler that starts with it."""
    running = run(a=A)
    local = {"executor": "LocalExecutor", "slots": 1, "config": {"celery": {"broker_ur": "x"}}}
    running.change(a=A, b=local)
    assert "broker_ur" in running.router._routing_file.refusal
    assert set(running.router._backends) == {"a"}


def test_new_backend_that_cannot_be_imported_harms_no_other(run):
    """It is tried again, as at a start."""
    running = run(a=A)
    running.change(a=A, b={"executor": "no_such_module.Executor", "slots": 1})
    running.queue("runs")
    assert given(running.router, "a") == ["runs"]
    assert running.router._loop.machine.snapshot().backends["b"].blocked


def test_imports_of_a_new_backend_are_done_beside_the_scheduler(run):
    """Also those of its checks, which its start then need not wait for."""
    running = run(a=A)
    running.change(a=A, b=backend(Checked))
    assert Checked.threads == ["dispatch-preparing"]
    running.queue("runs")
    running.change(b=backend(Checked))
    running.queue("here")
    assert given(running.router, "b") == ["here"]


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The import of ``SLOW`` goes on until it is set."""
    released, original = threading.Event(), preparing.import_executor_class

    def import_it(settings: Any) -> Any:
        if settings.executor == SLOW["executor"]:
            released.wait(20)
        return original(settings)

    monkeypatch.setattr(preparing, "import_executor_class", import_it)
    return released


def test_nothing_is_stopped_that_a_file_may_need_again(run, hangs: threading.Event):
    """A backend that becomes empty while the file that has it again is checked is not stopped and started."""
    running = run(a=A, b=B)
    task = running.queue("runs")["runs"]
    kept = child(running.router, "a")
    running.change(b=B)
    running.write(a=A, b=B, c=SLOW)
    running.beat()
    running.finish(kept, task)
    running.beat(3)
    hangs.set()
    running.settle()
    assert child(running.router, "a") is kept
    assert "end" not in kept.calls


def test_heartbeats_go_on_while_an_import_hangs(run, monkeypatch, hangs: threading.Event):
    """Nothing of the file is in use by then; it is refused when that has taken too long, and the next one is read."""
    running = run(a=A)
    running.write(a=A, b=SLOW)
    running.beat()
    running.queue("runs")
    assert given(running.router, "a") == ["runs"]
    monkeypatch.setattr(running.router._preparing, "_until", 0.0)
    running.beat()
    assert "cannot be checked within 120 s" in running.router._routing_file.refusal
    hangs.set()
    running.change(a=backend(slots=7))
    assert running.router._routing_file.refusal is None
    assert running.router._loop.engines["a"].slots == 7


def test_engine_that_does_not_stop_holds_up_nobody(run, clock: Clock, caplog):
    """It has until a deadline, on a thread of its own; a new one of its name is started after that."""
    Stubborn.released.clear()
    running = run(a=backend(Stubborn, place="1"), b=B)
    running.write(a=backend(Stubborn, place="2"), b=B)
    running.settle("dispatch-stop-a")
    assert (list(running.router._backends), running.router._backends.in_use) == (["b"], {"b"})
    clock.now += backends.STOP_WITHIN + 11
    running.beat()
    assert set(running.router._backends) == {"a", "b"}
    assert "Backend 'a' has not stopped within 40 s" in caplog.text
    Stubborn.released.set()


def test_engine_that_raises_as_it_stops_is_forgotten_all_the_same(run, caplog):
    running = run(a=backend(Broken), b=B)
    running.change(b=B)
    assert list(running.router._loop.engines) == ["b"]
    assert "no end" in caplog.text


def test_what_the_backends_can_do_is_what_those_can_that_are_there(run):
    """Airflow asks the instance in every loop."""
    running = run(a=A)
    assert running.router.pre_assigns_external_executor_id is False
    running.change(a=A, b=backend(PreAssigned))
    assert running.router.pre_assigns_external_executor_id is True
    running.change(a=A)
    assert running.router.pre_assigns_external_executor_id is False


def test_numbers_of_a_backend_that_goes(run):
    """While it is drained it has no open slots, and what runs there counts; in the end it is not there."""
    running = run(a=A, b=B)
    task = running.queue("runs")["runs"]
    gone = child(running.router, "a")

    def numbers() -> dict[str, tuple[int, int]]:
        return {each.name: (each.free, each.used) for each in survey.backends(running.router._loop.machine)}

    running.change(b=B)
    assert numbers()["a"] == (0, 1)
    running.finish(gone, task)
    running.settle()
    assert numbers().keys() == {"b"}


def test_log_says_what_happens(run, caplog):
    """The backends at the start, and each step of one that is replaced."""
    running = run(a=backend(place="1"), b=B)
    assert f"Tasks go to a ({IN_MEMORY}, slots 2), b ({IN_MEMORY}, slots 2)." in caplog.text
    caplog.clear()
    running.change(a=backend(place="2"), b=B)
    lines = [record.getMessage() for record in caplog.records if "ackend" in record.getMessage()]
    assert lines == [
        f"{running.file} has changed and is in use: backends.a changed: config.in_memory.place changed"
        " (it gets no new work, and is started anew when it is empty).",
        "Backend 'a' gets no new work; 0 of its jobs are out.",
        "Backend 'a' is started anew when it is empty.",
        "Backend 'a' is empty, and is stopped.",
        "Backend 'a' has stopped.",
        f"Backend 'a' is being started ({IN_MEMORY}).",
    ]


def test_local_backends_end_last_whenever_they_came(run):
    """They wait for their tasks; remote ones end before that."""
    local = {"executor": "LocalExecutor", "slots": 1}
    running = run(a=A)
    running.change(a=A, b=local)
    assert list(running.router._loop.engines) == ["b", "a"]


@pytest.mark.parametrize("runs", [True, False])
def test_adopted_from_a_scheduler_that_knows_a_backend_more(run, monkeypatch, runs):
    """Two schedulers read the file one after the other. What runs there is left to Airflow, which watches it; what had
    not begun is scheduled again, in the same try."""
    running = run(b=B)
    ti = task_instance("running" if runs else "queued", "x")
    monkeypatch.setattr(event_log, "owners_of", lambda tis: {ti.id: "new"})
    assert running.router.try_adopt_task_instances([ti]) == []
    running.beat(2)
    assert bool(clerk(running.router).returned) is not runs
    assert len(running.router._loop.machine) == 0
    assert given(running.router, "b") == []


def test_adopted_by_a_scheduler_that_drains_its_backend(run, monkeypatch):
    """The backend is asked as before, and is not empty until that has ended."""
    running = run(a=A, b=B)
    running.queue("runs")
    running.change(b=B)
    ti = task_instance("running", "x")
    gone = child(running.router, "a")
    gone.adoptable.add(ti.id)
    monkeypatch.setattr(event_log, "owners_of", lambda tis: {ti.id: "a"})
    running.router.try_adopt_task_instances([ti])
    running.beat(3)
    assert "try_adopt_task_instances" in gone.calls
    assert running.router._loop.machine.slots_used["a"] == 2


def test_end_of_the_scheduler_while_a_backend_is_drained(run):
    """It is ended like the others."""
    running = run(a=A, b=B)
    running.queue("runs")
    gone = child(running.router, "a")
    running.change(b=B)
    running.router.end()
    assert gone.calls.count("end") == 1
