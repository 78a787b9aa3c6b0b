# SPDX-License-Identifier: Apache-2.0
"""Adoption, with task instances in an in-memory database and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.orm import Session, lazyload, load_only

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.executors import local_executor
from airflow_dispatch_provider.executors.local_executor import LocalExecutor

HERE = airflow_api.hostname()
"""As the Execution API would have recorded this machine."""


class FakePool:
    template_pid = None
    ready = True
    trouble = None
    live = 0

    def __init__(self, work, mode):
        self.watched = {}

    def watch(self, number, process):
        self.watched[number] = process


@pytest.fixture
def executor(monkeypatch):
    monkeypatch.setattr(local_executor, "Pool", FakePool)
    executor = LocalExecutor(parallelism=4)
    executor.start()
    return executor


@pytest.fixture
def spawn():
    """Start a process that waits, with these words in its command line, as Airflow titles a task's."""
    started = []

    def spawn(*words, code="import time; time.sleep(60)", **options):
        process = subprocess.Popen([sys.executable, "-c", code, *words], **options)
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ti_id():
    return uuid.uuid4()


@pytest.fixture
def child(spawn, ti_id):
    return spawn(f"airflow worker -- {ti_id}")


@pytest.fixture
def session():
    import_all_models()
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def now():
    return datetime.now(tz=UTC)


def store(session, **fields):
    """Write one row, and load it with the columns that every Airflow version's scheduler loads."""
    table = TaskInstance.__table__
    new_id = fields.pop("ti_id", None) or uuid.uuid4()
    ti_id = new_id if AIRFLOW_V_3_2_PLUS else str(new_id)
    values = {
        "id": ti_id,
        "dag_id": "dag",
        "task_id": f"task_{ti_id}",
        "run_id": "run",
        "try_number": 2,
        "map_index": 5,
        "state": TaskInstanceState.RUNNING,
        "hostname": HERE,
        "start_date": now(),
        "pool": "default_pool",
        "pool_slots": 1,
        **fields,
    }
    if "map_index" not in table.c:
        values["region_index"] = values.pop("map_index")
    required = {
        column.name: _filler(column)
        for column in table.c
        if not column.nullable and column.default is None and column.server_default is None
    }
    session.execute(insert(table).values({**required, **values}))
    wanted = load_only(TaskInstance.id, TaskInstance.dag_id, TaskInstance.task_id, TaskInstance.run_id)
    query = select(TaskInstance).where(TaskInstance.id == ti_id)
    return session.scalars(query.options(lazyload(TaskInstance.dag_run), wanted)).one()


def _filler(column):
    try:
        kind = column.type.python_type
    except NotImplementedError:
        kind = bytes
    return uuid.uuid4() if kind is uuid.UUID else kind()


def test_a_live_task_is_adopted(session, executor, child, ti_id):
    """It occupies a slot, and its process is watched."""
    ti = store(session, pid=child.pid, ti_id=ti_id)
    assert list(executor.try_adopt_task_instances([ti])) == []
    assert executor.running == {airflow_api.task_key(executor, ti)}
    assert [process.pid for process in executor._pool.watched.values()] == [child.pid]


@pytest.mark.parametrize(
    "fields",
    [
        {"state": TaskInstanceState.QUEUED},  # never started
        {"hostname": "elsewhere"},
        {"hostname": None},
        {"pid": None},
        {"pid": 2**22 + 5},  # no such process
        {"ti_id": uuid.uuid4()},  # the pid is another process's by now
    ],
)
def test_others_are_returned(session, executor, child, ti_id, fields):
    """As the same objects: the scheduler runs them again."""
    ti = store(session, **{"pid": child.pid, "ti_id": ti_id, **fields})
    rejected = executor.try_adopt_task_instances([ti])
    assert [other is ti for other in rejected] == [True]
    assert (executor.running, executor._pool.watched) == (set(), {})


@pytest.mark.parametrize("heartbeat", [timedelta(seconds=-5), timedelta(seconds=1), timedelta(seconds=60)])
def test_a_stranger_with_the_pid_is_not_adopted_nor_its_parent(session, executor, spawn, heartbeat):
    """Whatever the clock of the API server says: in a container that has started again, pids are given anew."""
    code = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    leader = spawn(code=code, start_new_session=True, stdout=subprocess.PIPE)
    pid = int(leader.stdout.readline())
    ti = store(session, pid=pid, start_date=now() - timedelta(hours=1), last_heartbeat_at=now() + heartbeat)
    assert list(executor.try_adopt_task_instances([ti])) == [ti]
    assert executor._pool.watched == {}
    psutil.Process(pid).kill()
    leader.stdout.close()


def test_its_own_tasks_are_not_adopted(session, executor, child, ti_id):
    """A scheduler whose heartbeat was late is offered what it has."""
    ti = store(session, pid=child.pid, ti_id=ti_id)
    executor.running.add(airflow_api.task_key(executor, ti))
    assert list(executor.try_adopt_task_instances([ti])) == []
    assert (executor._live, executor._pool.watched) == ({}, {})


def test_a_zombie_is_not_alive(session, executor):
    """Ended, and not yet waited for."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    ti = store(session, pid=pid)
    assert list(executor.try_adopt_task_instances([ti])) == [ti]
    os.waitpid(pid, 0)


def test_a_resumed_task_is_adopted(session, executor, child, ti_id):
    """It keeps the start date from before it was deferred."""
    ti = store(session, pid=child.pid, ti_id=ti_id, start_date=now() - timedelta(hours=1))
    assert list(executor.try_adopt_task_instances([ti])) == []


def test_the_supervisor_is_watched_where_there_is_one(session, executor, spawn, ti_id):
    """The task has ended only when its supervisor has reported so; the task's process may have any title, as that of
    another user has."""
    code = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    title = f"airflow dispatch local: {ti_id}"
    supervisor = spawn(title, code=code, start_new_session=True, stdout=subprocess.PIPE)
    task_pid = int(supervisor.stdout.readline())
    executor.try_adopt_task_instances([store(session, pid=task_pid, ti_id=ti_id)])
    assert [process.pid for process in executor._pool.watched.values()] == [supervisor.pid]
    psutil.Process(task_pid).kill()
    supervisor.stdout.close()


def test_one_select_for_all(session, executor, spawn):
    """However many task instances there are, and whatever was loaded of each."""
    ids = [uuid.uuid4() for _ in range(5)]
    child = spawn(*map(str, ids))
    tis = [store(session, pid=child.pid, ti_id=ti_id) for ti_id in ids]
    airflow_keys = [airflow_api.task_key(executor, ti) for ti in tis]
    for ti in tis:
        session.expunge(ti)
    session.expire_all()
    query = select(TaskInstance).options(
        lazyload(TaskInstance.dag_run),
        load_only(
            TaskInstance.id,
            TaskInstance.dag_id,
            TaskInstance.task_id,
            TaskInstance.run_id,
            TaskInstance.try_number,
            TaskInstance.map_index,
        ),
    )
    tis = list(session.scalars(query))
    statements = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda *args: statements.append(args[2]))
    executor.try_adopt_task_instances(tis)
    assert len(statements) == 1
    assert executor.running == set(airflow_keys)


def test_without_a_session_nothing_is_adopted(session, executor, child):
    """A detached task instance cannot be looked up."""
    ti = store(session, pid=child.pid)
    _ = airflow_api.task_key(executor, ti), ti.key
    session.expunge(ti)
    assert list(executor.try_adopt_task_instances([ti])) == [ti]
    assert executor.running == set()


def test_nothing_to_adopt(executor):
    """The scheduler asks with an empty list too."""
    assert list(executor.try_adopt_task_instances([])) == []
