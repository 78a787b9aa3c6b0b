# SPDX-License-Identifier: Apache-2.0
"""Runners of these tests' workloads, each in its own process, and how a test looks at them.

The name of a workload is ``action`` or ``action-anything``. Files in ``LOCAL_TEST_DIR`` are the only contact.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def folder() -> Path:
    return Path(os.environ["LOCAL_TEST_DIR"])


def name_of(workload: Any) -> str:
    if hasattr(workload, "ti"):
        return str(workload.ti.task_id)
    return str(workload.callback.data["path"] if hasattr(workload, "callback") else workload.connection_id)


def say(name: str, text: str) -> None:
    """Write a file that is complete as soon as it is there."""
    draft = folder() / f".{name}.{os.getpid()}"
    draft.write_text(text)
    draft.rename(folder() / name)


def heard(name: str) -> str | None:
    path = folder() / name
    return path.read_text() if path.exists() else None


def run(workload: Any, conf: Any, title: str) -> None:
    name = name_of(workload)
    say(f"pid.{name}", str(os.getpid()))
    ACTIONS[name.split("-")[0]](name)
    say(f"done.{name}", "")


def only_begin(workload: Any, conf: Any, title: str) -> None:
    """Be let start, and end."""
    begin_and_end("")


def succeed(workload: Any, conf: Any, title: str) -> None:
    """Be let start, and end; of a task, the row says that it succeeded, as the Execution API would write it."""
    begin_and_end("")
    if hasattr(workload, "ti"):
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy import create_engine, update

        # Its id would have another type in the database of Airflow 3.1.
        names = {name: getattr(workload.ti, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
        database = create_engine(conf.get("database", "sql_alchemy_conn"))
        with database.begin() as connection:
            connection.execute(update(TaskInstance).filter_by(**names).values(state="success"))
        database.dispose()


def nothing(name: str) -> None:
    pass


def hold(name: str) -> None:
    """Run until the test writes ``go`` or ``go.<name>``."""
    deadline = time.monotonic() + 120
    while heard("go") is None and heard(f"go.{name}") is None and time.monotonic() < deadline:
        time.sleep(0.01)


def begin(name: str) -> None:
    """Be let start, and hold."""
    begin_and_end(name)
    hold(name)


def hold_and_begin(name: str) -> None:
    """Be let start when the test writes ``ask``, say so, and hold."""
    while heard("ask") is None:
        time.sleep(0.01)
    begin_and_end(name)
    say(f"begun.{name}", "yes")
    hold(name)


def begin_and_end(name: str) -> None:
    from devkit.servers.execution_api import let_start

    let_start()


def fail(name: str) -> None:
    raise RuntimeError("no luck")


def fail_at_length(name: str) -> None:
    raise RuntimeError("x" * 100_000)


def kill_supervisor(name: str) -> None:
    """As a task does that kills its parent: a child of this process stays behind."""
    pid = _child(new_session=False)
    say(f"child.{name}", str(pid))
    os.kill(os.getpid(), signal.SIGKILL)


def parent(name: str) -> None:
    """Have a child that ignores SIGTERM, and ignore it too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"child.{name}", str(_child(new_session=False)))
    hold(name)


def detached_parent(name: str) -> None:
    """Have a child that leads a session of its own."""
    say(f"child.{name}", str(_child(new_session=True)))
    hold(name)


def count(name: str) -> None:
    """Record how many workloads run at this moment, this one included."""
    mark = folder() / f"running.{os.getpid()}"
    mark.touch()
    time.sleep(0.05)
    say(f"seen.{name}", str(len(list(folder().glob("running.*")))))
    mark.unlink()


def _child(new_session: bool) -> int:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=new_session).pid


ACTIONS: dict[str, Callable[[str], None]] = {
    action.__name__: action
    for action in (
        nothing,
        hold,
        begin,
        begin_and_end,
        hold_and_begin,
        fail,
        fail_at_length,
        kill_supervisor,
        parent,
        detached_parent,
        count,
    )
}


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("this one cannot travel")


def _refuse() -> None:
    raise ValueError("this one cannot arrive")


class Undecodable:
    def __reduce__(self) -> Any:
        return _refuse, ()
