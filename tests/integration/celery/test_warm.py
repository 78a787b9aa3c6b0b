# SPDX-License-Identifier: Apache-2.0
"""Tasks of a real worker that are forked from processes that have parsed their Dag file, with a server in place of the
Execution API. Each test compares with what the worker does of itself, or pins what Celery is promised."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import make_task, wait_until

from airflow_dispatch_provider.engines.local.processes import title_of
from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor
from devkit.servers.execution_api import ExecutionApi
from tests.integration.local.test_dag_parsing import set_bundle

from .workers import Worker

pytestmark = [
    pytest.mark.integration("redis"),
    pytest.mark.skipif(sys.platform != "linux", reason="no Dag file has a template elsewhere"),
]

DAG = """
import json, os, pathlib, signal, time
from airflow.sdk import dag, task

{top}
PARSED_BY, VALUE = os.getpid(), {value}
FOLDER = pathlib.Path({folder!r})

def say(name):
    said = {{"pid": os.getpid(), "supervisor": os.getppid(), "parsed_by": PARSED_BY, "value": VALUE}}
    draft = FOLDER / f".{{name}}"
    draft.write_text(json.dumps(said))
    draft.rename(FOLDER / name)

@dag(dag_id="dag", schedule=None)
def tasks():
    @task
    def tell():
        say("tell")

    @task
    def hold():
        signal.signal(signal.SIGTERM, lambda *_: (say("told"), os._exit(1)))
        say("hold")
        while not (FOLDER / "go").exists():
            time.sleep(0.01)
        say("over")

    tell()
    hold()

tasks()
"""
COLD = "os.system('true')"
"""At the top of a file, it makes its tasks parse it themselves."""


class World:
    """A bundle with one Dag file, and a worker of two processes for its tasks."""

    def __init__(self, folder: Path, worker: Worker, api: ExecutionApi, app: Any) -> None:
        self.folder, self.worker, self.api, self.app = folder, worker, api, app

    def write(self, value: int = 1, top: str = "") -> None:
        (self.folder / "dag.py").write_text(DAG.format(folder=str(self.folder), value=value, top=top))

    def send(self, task_id: str, **options: Any) -> str:
        """Its Celery id."""
        (self.folder / task_id).unlink(missing_ok=True)
        message = make_task(task_id).model_dump_json()
        return self.app.send_task("execute_workload", args=[message], queue="default", **options).id

    def ends(self, celery_id: str, *states: str) -> dict[str, Any]:
        """As the result backend has it."""

        def ended() -> Any:
            found = self.app.backend.get_task_meta(celery_id, cache=False)
            return found if found["status"] in (states or ("SUCCESS", "FAILURE", "REVOKED")) else None

        return wait_until(ended, 90)

    def said(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        wait_until(path.exists, 90)
        return json.loads(path.read_text())

    def run(self) -> dict[str, Any]:
        """A task, to its success."""
        assert self.ends(self.send("tell"))["status"] == "SUCCESS", self.worker.log
        return self.said("tell")

    def warm(self) -> dict[str, Any]:
        """The first task that is forked from the template of the file."""
        return wait_until(lambda: (said := self.run())["pid"] != said["parsed_by"] and said, 90)

    def hold(self, **options: Any) -> tuple[str, dict[str, Any]]:
        """A task that is forked and runs: its Celery id, and what it has said."""
        self.warm()
        return self.start(**options)

    def start(self, **options: Any) -> tuple[str, dict[str, Any]]:
        celery_id = self.send("hold", **options)
        return celery_id, self.said("hold")

    def go(self) -> None:
        (self.folder / "go").touch()

    @property
    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.worker.pid).children(recursive=True)

    def titled(self, title: str) -> list[psutil.Process]:
        return [each for each in self.processes if title_of(each) == title]

    @property
    def template(self) -> psutil.Process:
        (found,) = wait_until(lambda: self.titled("airflow celery worker: template"), 90)
        return found


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def api() -> Iterator[ExecutionApi]:
    api = ExecutionApi()
    api.serve()
    yield api
    api.close()


@pytest.fixture
def world(valkey: Any, api: ExecutionApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    folder = tmp_path / "bundle"
    folder.mkdir()
    set_bundle(monkeypatch, folder)
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", valkey.url())
    monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", valkey.url(1))
    env = {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": api.url,
        "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps(
            {"imports": ["airflow_dispatch_provider.celery_worker.warm"]}
        ),
        "AIRFLOW__DISPATCH__CELERY_WARM_DAGS": "2",
    }
    app = CeleryExecutor().celery_app
    with Worker(tmp_path, valkey.url(), valkey.url(1), **env) as worker:
        world = World(folder, worker, api, app)
        world.write()
        worker.wait_until_ready(app)
        yield world
        world.go()
        app.control.purge()


class TestForked:
    def test_tasks_share_a_parse_until_the_file_changes(self, world: World) -> None:
        """Whichever process of the pool they come to; each runs in processes of its own."""
        first, second = world.warm(), world.run()
        assert first["parsed_by"] == second["parsed_by"]
        assert first["supervisor"] != second["supervisor"]
        world.write(value=2)
        wait_until(
            lambda: (said := world.warm())["value"] == 2 and said["parsed_by"] != first["parsed_by"], 90
        )
        assert [world.run()["value"] for _ in range(2)] == [2, 2]

    def test_a_file_that_cannot_be_shared_is_parsed_by_its_tasks(self, world: World) -> None:
        """And the log says why."""
        world.write(top=COLD)
        said = [world.run() for _ in range(3)]
        assert [each["pid"] == each["parsed_by"] for each in said] == [True] * 3
        assert "parse it themselves, because it started a program" in world.worker.log

    @pytest.mark.parametrize("status", [403, 409])
    def test_what_the_execution_api_refuses_ends_as_without(self, world: World, status: int) -> None:
        """For the result backend, with the same state and the same words; a second start is ignored, where Airflow does
        that."""

        def refused() -> tuple[str, str]:
            celery_id = world.send("tell")
            wait_until(lambda: f"[{celery_id}] succeeded" in world.worker.log or ended(celery_id), 90)
            found = world.app.backend.get_task_meta(celery_id, cache=False)
            return found["status"], repr(found["result"])

        def ended(celery_id: str) -> bool:
            lines = [line for line in world.worker.log.splitlines() if celery_id in line]
            return any("raised unexpected" in line or "ignored" in line for line in lines)

        world.warm()
        world.api.status = status
        forked = refused()
        world.write(top=COLD)
        parsing = [refused() for _ in range(3)][-1]
        assert forked[0] == parsing[0] != "SUCCESS"
        assert forked[1].split("(")[0] == parsing[1].split("(")[0]


class TestEnded:
    """From outside, by Celery's means."""

    def test_a_revoked_task_learns_of_it_as_without(self, world: World) -> None:
        """By the SIGTERM that Celery sends: Airflow 3.3 passes it on to the task, in 3.4 the supervisor waits for the
        task, before it ends."""

        def effect(celery_id: str, held: dict[str, Any]) -> str:
            before = world.worker.log.count("warm shutdown")

            def seen() -> str:
                if (world.folder / "told").exists():
                    return "the task is told"
                if is_gone(held["supervisor"]):
                    return "the supervisor ends"
                return "it waits for the task" if world.worker.log.count("warm shutdown") > before else ""

            world.app.control.revoke(celery_id, terminate=True)
            found = wait_until(seen, 60)
            (world.folder / "told").unlink(missing_ok=True)
            return f"{found}, {world.ends(celery_id)['status']}"

        forked = effect(*world.hold())
        world.write(top=COLD)
        parsing = [world.run() for _ in range(3)][-1]
        assert parsing["pid"] == parsing["parsed_by"]
        assert effect(*world.start()) == forked

    def test_a_killed_process_of_the_pool_takes_along_who_runs_its_task(self, world: World) -> None:
        """Its task has nobody who supervises it then, as if it had run there."""
        celery_id, held = world.hold()
        world.app.control.revoke(celery_id, terminate=True, signal="SIGKILL")
        wait_until(lambda: is_gone(held["supervisor"]), 60)
        world.warm()

    def test_who_runs_a_task_takes_along_its_process_of_the_pool(self, world: World) -> None:
        """Celery reports a lost worker, as if that had been killed."""
        celery_id, held = world.hold()
        os.kill(held["supervisor"], signal.SIGKILL)
        found = world.ends(celery_id)
        assert (found["status"], type(found["result"]).__name__) == ("FAILURE", "WorkerLostError")
        world.warm()

    @pytest.mark.parametrize("limit", ["soft_time_limit", "time_limit"])
    def test_time_limits_hold(self, world: World, limit: str) -> None:
        """The soft one interrupts the supervisor, the hard one kills it."""
        celery_id, held = world.hold(**{limit: 2})
        found = world.ends(celery_id)
        expected = {"soft_time_limit": "SoftTimeLimitExceeded", "time_limit": "TimeLimitExceeded"}[limit]
        assert (found["status"], type(found["result"]).__name__) == ("FAILURE", expected)
        wait_until(lambda: is_gone(held["supervisor"]), 60)

    def test_a_worker_that_is_asked_to_stop_waits_for_its_task(self, world: World) -> None:
        """And leaves nothing behind."""
        celery_id, held = world.hold()
        processes = world.processes
        os.kill(world.worker.pid, signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in world.worker.log, 60)
        assert not is_gone(held["pid"])
        world.go()
        assert world.ends(celery_id)["status"] == "SUCCESS"
        wait_until(lambda: all(is_gone(each.pid) for each in processes), 60)
        assert (world.folder / "over").exists()

    def test_a_worker_that_is_killed_leaves_no_supervisor(self, world: World) -> None:
        """Nor a template."""
        _, held = world.hold()
        template = world.template
        os.kill(world.worker.pid, signal.SIGKILL)
        wait_until(lambda: is_gone(held["supervisor"]) and is_gone(template.pid), 60)

    def test_a_cold_shutdown_ends_the_worker(self, world: World) -> None:
        """As soon as Airflow lets the supervisors end."""
        world.hold()
        processes = world.processes
        os.kill(world.worker.pid, signal.SIGQUIT)
        wait_until(lambda: "again will terminate all running tasks" in world.worker.log, 60)
        world.go()
        wait_until(lambda: all(is_gone(each.pid) for each in processes), 60)


class TestTemplates:
    """Which are killed."""

    def test_a_killed_template_of_a_file_loses_no_task(self, world: World) -> None:
        """The task that runs goes on, and ends as its process does; the next ones parse the file themselves."""
        celery_id, held = world.hold()
        os.kill(held["parsed_by"], signal.SIGKILL)
        wait_until(lambda: "has ended; its tasks parse it themselves" in world.worker.log, 60)
        after = world.run()
        world.go()
        assert world.ends(celery_id)["status"] == "SUCCESS"
        assert after["pid"] == after["parsed_by"]

    def test_a_killed_template_process_loses_no_task_and_is_replaced(self, world: World) -> None:
        """The next ones parse the file themselves until then."""
        celery_id, _ = world.hold()
        killed = world.template
        killed.kill()
        world.run()
        world.go()
        assert world.ends(celery_id)["status"] == "SUCCESS"
        wait_until(lambda: world.titled("airflow celery worker: template"), 60)
        assert world.template.pid != killed.pid
        world.warm()
