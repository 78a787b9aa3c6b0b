# SPDX-License-Identifier: Apache-2.0
"""The search for processes of tasks whose scheduler has died, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from math import inf
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.engines.local import _search, processes
from airflow_dispatch_provider.engines.local._search import Search, supervisors
from tests.support import wait_until

TITLE = "airflow dispatch local"
TITLED = "import sys; from setproctitle import setproctitle; setproctitle(sys.argv[1]); "
WAIT = "print('ready', flush=True); sys.stdin.read()"
PARENT = (
    "import subprocess; p = subprocess.Popen([sys.executable, *sys.argv[2:]], stdout=subprocess.PIPE);"
    "p.stdout.readline(); print(p.pid, flush=True); p.wait()"
)

Spawn = Callable[..., Any]


@pytest.fixture
def ti_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a process with this title that waits, and return it when it has that title."""
    made = []

    def spawn(title: str, code: str = WAIT, *arguments: str) -> Any:
        command = [sys.executable, "-c", TITLED + code, title, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        made.append(process)
        assert process.stdout is not None
        said = process.stdout.readline().strip().decode()
        return SimpleNamespace(pid=process.pid, child=int(said) if said.isdigit() else None)

    yield spawn
    for process in made:
        process.communicate(b"")


def with_parent(spawn: Spawn, parent: str, title: str) -> Any:
    """A process with the first title, and its child with the second."""
    return spawn(parent, PARENT, "-c", TITLED + WAIT, title)


def pids(*ids: str, before: float = inf) -> dict[str, int]:
    found = supervisors(dict.fromkeys(ids, before), TITLE)
    return {ti_id: process.pid for ti_id, process in found.items()}


def test_a_process_of_ours_is_known_by_its_title(spawn, ti_id) -> None:
    """Which it has before it asks for leave to start its task."""
    assert pids(ti_id) == {}
    process = spawn(f"{TITLE}: {ti_id}")
    assert pids(ti_id, str(uuid.uuid4())) == {ti_id: process.pid}


def test_a_process_that_is_younger_than_the_question_is_another_dispatchs(spawn, ti_id) -> None:
    """Of this scheduler or another one, to which the task has gone meanwhile: what is revoked is ended."""
    process = spawn(f"{TITLE}: {ti_id}")
    born = psutil.Process(process.pid).create_time()
    assert pids(ti_id, before=born) == {}
    assert pids(ti_id, before=born + 1) == {ti_id: process.pid}


def test_of_supervisor_and_task_the_supervisor_is_watched(spawn, ti_id) -> None:
    """The task has ended only when that has reported so."""
    process = with_parent(spawn, f"{TITLE}: {ti_id}", f"airflow worker -- {ti_id}")
    assert pids(ti_id) == {ti_id: process.pid}


def test_a_task_of_airflows_local_executor_is_adopted(spawn, ti_id) -> None:
    """Its supervisor goes on with other tasks: the task's own process is watched."""
    process = with_parent(spawn, f"airflow worker -- LocalExecutor: {ti_id}", f"airflow worker -- {ti_id}")
    assert pids(ti_id) == {ti_id: process.child}


class TestWhetherItRunsItsTask:
    @pytest.mark.parametrize(
        ("title", "runs"),
        [
            # Airflow names the process of a task when its supervisor was told that it may begin
            ("airflow worker -- {}", True),
            # until then it is a fork of that
            ("airflow dispatch local: {}", False),
        ],
    )
    def test_its_child_shows_it(self, spawn, ti_id, title, runs) -> None:
        process = with_parent(spawn, f"{TITLE}: {ti_id}", title.format(ti_id))
        assert processes.runs_task(process.pid) is runs

    def test_of_airflows_local_executor_the_process_itself_does(self, spawn, ti_id) -> None:
        assert processes.runs_task(spawn(f"airflow worker -- {ti_id}").pid)

    def test_one_that_only_stores_its_log_does_not(self, spawn, ti_id) -> None:
        assert not processes.runs_task(spawn(f"{TITLE}: {ti_id}").pid)

    def test_one_that_is_not_there_does_not(self) -> None:
        assert not processes.runs_task(2**22 + 1)


@pytest.mark.parametrize(
    "title",
    [
        "airflow worker -- {}",  # of a Celery worker on this machine
        "tail -f logs/attempt=1.log {}",
        "airflow dispatch local [red]: {}",  # another team's
        "airflow dispatch local: {}-1",
    ],
)
def test_a_process_that_only_has_the_id_in_its_title_is_a_strangers(spawn, ti_id, title) -> None:
    spawn(title.format(ti_id))
    assert pids(ti_id) == {}


def test_a_zombie_is_not_alive() -> None:
    """Ended, and not yet waited for."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert processes.title_of(psutil.Process(pid)) == ""
    os.waitpid(pid, 0)


def found(number: int, ti_id: str) -> Found:
    return Found(number, number, SimpleNamespace(id=ti_id), True)


def all_answers(search: Search, count: int) -> list[tuple[int, int | None]]:
    answers: list[Any] = []
    wait_until(lambda: (answers.extend(search.answers()), len(answers) >= count)[1])
    return [(each.found.dispatch, each.process and each.process.pid) for each in answers]


def test_each_question_has_one_answer(spawn, ti_id) -> None:
    """Those that are asked later, too."""
    process = spawn(f"{TITLE}: {ti_id}")
    search = Search(TITLE)
    search.ask([found(1, ti_id), found(2, str(uuid.uuid4()))])
    assert all_answers(search, 2) == [(1, process.pid), (2, None)]
    search.ask([found(3, ti_id)])
    assert all_answers(search, 1) == [(3, process.pid)]
    assert search.answers() == []


def test_processes_that_cannot_be_listed_are_listed_again(monkeypatch, caplog) -> None:
    """A question is not answered by an error."""
    monkeypatch.setattr(_search, "_RETRY", 0.01)
    errors = [OSError("too many open files")] * 3

    def listed(ids: Any, title: str) -> Any:
        if errors:
            raise errors.pop()
        return {}

    monkeypatch.setattr(_search, "supervisors", listed)
    search = Search(TITLE)
    search.ask([found(1, "x")])
    assert all_answers(search, 1) == [(1, None)]
    assert caplog.text.count("too many open files") == 2  # the line, and its traceback
