# SPDX-License-Identifier: Apache-2.0
"""A Dag file that is parsed ahead of its tasks, by Airflow's own function, in a process of its own."""

from __future__ import annotations

import json
import os
import pickle
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from airflow_dispatch_provider.bridge import dag_parsing
from airflow_dispatch_provider.bridge.dag_parsing import ParsedAhead, parse_ahead
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from tests.support import make_callback, make_task

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no Dag file has a template elsewhere")

BUNDLE = json.dumps({"name": "dags-folder", "version": None})
DAG = """
from airflow.sdk import dag, task

@task
def nothing():
    pass

@dag(schedule=None)
def many():
    nothing()

many()
"""


@pytest.fixture
def dags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    set_bundle(monkeypatch, tmp_path)
    return tmp_path


def set_bundle(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """For this process and those that it starts."""
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "dags-folder", "classpath": local, "kwargs": {"path": str(folder)}}]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))


def write(folder: Path, top: str = "", name: str = "file.py") -> None:
    (folder / name).write_text(textwrap.dedent(top) + DAG)


def in_fork(function: Callable[[], Any]) -> Any:
    """Its result, or the text of its exception: a parse ahead is not undone."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = function()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, pickle.dumps(answer))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pickle.load(pipe)
    os.waitpid(pid, 0)
    return answer


def parsed(name: str = "file.py") -> ParsedAhead:
    return parse_ahead(BUNDLE, name)


def lent(ahead: ParsedAhead) -> Any:
    """The Dags that the task's parse finds: by the same call, in the same place."""
    return dag_parsing._dag_bag_module().BundleDagBag(**ahead.arguments)


def test_the_parse_of_a_task_finds_the_dags_that_were_parsed(dags) -> None:
    """Not equal ones: these."""
    write(dags)

    def run() -> Any:
        ahead = parsed()
        bag = lent(ahead)
        return bag is ahead.bag, sorted(bag.dags), bag.dags["many"].relative_fileloc

    assert in_fork(run) == (True, ["many"], "file.py")


UNSAFE = {
    "it left open": "import socket; kept = socket.socket()",
    "it left open: /": "kept = open(__file__)",
    "threads run": "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "it opened a connection": "import socket\ntry: socket.create_connection(('127.0.0.1', 1))\nexcept OSError: pass",
    "it started a program": "import subprocess; subprocess.run(['true'])",
    "it opened an SQLite database": "import sqlite3; sqlite3.connect(':memory:').close()",
    "it sets signal handlers": "import signal; signal.signal(signal.SIGUSR1, print)",
    "it changes the working directory": "import os; os.chdir('/')",
    "it sets the default timeout of sockets": "import socket; socket.setdefaulttimeout(1)",
    "it sets the umask": "import os; os.umask(0o70)",
    "it sets limits of its process": (
        "from resource import *\nsoft, hard = getrlimit(RLIMIT_NOFILE)\nsetrlimit(RLIMIT_NOFILE, (soft - 1, hard))"
    ),
    "it replaces functions of Python": "import time; time.sleep = lambda seconds: None",
    "it has memory that all": "import multiprocessing; value = multiprocessing.Value('i', 0)",
    "it has memory that all its tasks would share": "import multiprocessing; lock = multiprocessing.Lock()",
    "it reads a Variable or a Connection": "from airflow.sdk import Variable; Variable.get('a', default=1)",
    "it asks which task": "from airflow.sdk import get_parsing_context; get_parsing_context()",
    "it cannot be imported": "raise RuntimeError('broken')",
    "it asks the Execution API": (
        "from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS\n"
        "try: SUPERVISOR_COMMS.send(1)\nexcept Exception: pass"
    ),
}


@pytest.mark.parametrize("reason", UNSAFE)
def test_a_file_that_cannot_be_shared_says_why(dags, reason) -> None:
    """Each would give its tasks less, or something else, than a parse of their own."""
    write(dags, UNSAFE[reason])
    assert in_fork(lambda: bool(parsed())).startswith(f"NotShareableError: {reason}")


def test_a_reason_is_short(dags) -> None:
    """It goes through a socket, and into the log."""
    write(dags, "raise RuntimeError('x' * 1_000_000)")
    assert len(in_fork(parsed)) < 1000


def test_a_connection_by_its_hook_is_found_too(dags) -> None:
    """With whatever secrets backend: its value may be another one when the task runs."""
    write(dags, "from airflow.sdk import BaseHook\ntry: BaseHook.get_connection('x')\nexcept Exception: pass")
    assert "it reads a Variable or a Connection" in in_fork(parsed)


def test_a_file_that_is_not_there(dags) -> None:
    """Its tasks say so, each in its log."""
    assert in_fork(parsed) == "NotShareableError: there is no Dag in it"


def test_a_bundle_that_is_not_configured(dags) -> None:
    write(dags)
    answer = in_fork(lambda: parse_ahead(json.dumps({"name": "other", "version": None}), "file.py"))
    assert answer.startswith("NotShareableError: its bundle cannot be used ahead")


CHANGES: dict[str, Callable[[Path], object]] = {
    "itself": lambda folder: write(folder, "changed = 1"),
    "a module": lambda folder: (folder / "helper.py").write_text("VALUE = 22"),
    "a file": lambda folder: (folder / "data" / "one.txt").write_text("changed"),
    "a folder": lambda folder: (folder / "data" / "two.txt").touch(),
    "absence": lambda folder: (folder / "absent.txt").touch(),
    "data of a package": lambda folder: (folder / "package" / "data.txt").write_text("changed"),
    "an archive of modules": lambda folder: (folder / "archive.zip").touch(),
    "a file that looks the same": lambda folder: rewrite(folder / "data" / "one.txt", "two"),
}


def rewrite(path: Path, text: str) -> None:
    """In place, with the same time."""
    stat = path.stat()
    path.write_text(text)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


READER = """
import os, pathlib, sys, helper, package
here = pathlib.Path(__file__).parent
sys.path.append(str(here / "archive.zip"))
import archived
texts = [(here / "data" / name).read_text() for name in os.listdir(here / "data")]
try: open(here / "absent.txt")
except OSError: pass
"""


class TestOutdated:
    @pytest.fixture(autouse=True)
    def _reader(self, dags) -> None:
        (dags / "data").mkdir()
        (dags / "data" / "one.txt").write_text("one")
        (dags / "helper.py").write_text("VALUE = 1")
        (dags / "package").mkdir()
        (dags / "package" / "data.txt").write_text("one")
        (dags / "package" / "__init__.py").write_text(
            "import pkgutil; pkgutil.get_data('package', 'data.txt')"
        )
        with ZipFile(dags / "archive.zip", "w") as archive:
            archive.writestr("archived.py", "")
        write(dags, READER)

    def test_not_while_nothing_changes(self, dags) -> None:
        """The folder of the file itself may change: other files and Python's caches are in it."""

        def run() -> bool:
            ahead = parsed()
            (dags / "other.py").touch()
            return ahead.outdated()

        assert in_fork(run) is False

    @pytest.mark.parametrize("what", CHANGES)
    def test_once_anything_changes_that_it_read(self, dags, what) -> None:
        def run() -> bool:
            ahead = parsed()
            CHANGES[what](dags)
            return ahead.outdated()

        assert in_fork(run) is True

    def test_at_once_if_a_module_changes_while_the_file_is_parsed(self, dags) -> None:
        """The Dags have the old one, and whoever looked afterwards would take the new one for it."""
        write(dags, "import helper, pathlib; pathlib.Path(helper.__file__).write_text('VALUE = 2')")
        assert in_fork(lambda: parsed().outdated()) is True

    def test_a_bundle_that_has_fetched_new_files_is_parsed_by_the_task(self, dags) -> None:
        """With new modules, too."""

        def run() -> tuple[bool, int]:
            ahead = parsed()
            CHANGES["a module"](dags)
            bag = lent(ahead)
            return bag is ahead.bag, sys.modules["helper"].VALUE

        assert in_fork(run) == (False, 22)


class TestWhatElseAParseDoes:
    def test_the_environment_is_for_the_task_alone(self, dags) -> None:
        """The process that supervises it is forked before, and has none of it."""
        write(
            dags,
            "import os; os.environ['NEW'] = '1'; os.environ.pop('OLD'); import sys; sys.path.append('/x')",
        )

        def run() -> list[Any]:
            os.environ["OLD"] = "1"
            ahead = parsed()
            before = os.environ.get("NEW"), os.environ.get("OLD"), "/x" in sys.path
            lent(ahead)
            return [before, (os.environ.get("NEW"), os.environ.get("OLD"), "/x" in sys.path)]

        assert in_fork(run) == [(None, "1", False), ("1", None, True)]

    def test_functions_for_the_exit_are_the_tasks(self, dags) -> None:
        """Airflow clears what was registered before the task's process was forked."""
        write(dags, "import atexit; atexit.register(print, 'over')")

        def run() -> list[Any]:
            import atexit

            registered: list[Any] = []
            ahead = parsed()
            atexit.register = lambda function, *args, **options: registered.append((args, options))
            lent(ahead)
            return registered

        assert in_fork(run) == [(("over",), {})]

    def test_nothing_of_the_substitutes_stays(self, dags) -> None:
        """A supervisor would take itself for a task."""
        write(dags)

        def run() -> bool:
            from airflow.sdk.definitions import context
            from airflow.sdk.execution_time import supervisor, task_runner

            names = (supervisor.ensure_secrets_backend_loaded, context.AirflowParsingContext)
            parsed()
            now = (supervisor.ensure_secrets_backend_loaded, context.AirflowParsingContext)
            return names == now and not hasattr(task_runner, "SUPERVISOR_COMMS")

        assert in_fork(run) is True


class TestDagFile:
    def test_of_a_task(self) -> None:
        """With the version of the bundle: another version is another file."""
        bundle, path = dag_parsing.dag_file(make_task("t")) or ("", "")
        assert json.loads(bundle).items() >= {"name": "dags-folder", "version": None}.items()
        assert path == "dag.py"

    def test_of_a_task_as_a_worker_is_sent_it(self) -> None:
        """The same file; nothing of Airflow is needed to find it."""
        task = make_task("t")
        bundle, path = dag_parsing.dag_file(task) or ("", "")
        sent, sent_path = dag_parsing.dag_file_of(task.model_dump_json()) or ("", "")
        assert (json.loads(sent), sent_path) == (json.loads(bundle), path)

    @pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
    def test_none_of_anything_else(self) -> None:
        assert dag_parsing.dag_file(make_callback()) is None
        assert dag_parsing.dag_file_of(make_callback().model_dump_json()) is None
