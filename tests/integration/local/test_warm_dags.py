# SPDX-License-Identifier: Apache-2.0
"""Tasks that are forked from a process that has parsed their Dag file: with Airflow's supervisor and task runner, and a
server in place of the Execution API."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.engine import Job
from airflow_dispatch_provider.engines.local import template as main
from airflow_dispatch_provider.engines.local import warm
from airflow_dispatch_provider.engines.local._options import PRELOAD
from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import Reaped, Started
from airflow_dispatch_provider.lifecycle.events import Began, Ended, Returned
from airflow_dispatch_provider.lifecycle.states import Outcome
from devkit.servers.execution_api import ExecutionApi
from tests.integration.local.conftest import alive
from tests.support import make_task, wait_until

from .test_dag_parsing import set_bundle
from .test_local_engine import Trial, make_engine

__all__ = ["make_engine"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no Dag file has a template elsewhere")

DAG = """
import json, os, pathlib, random, time
from airflow.sdk import dag, task

PARSED_BY, VALUE = os.getpid(), {value}
FOLDER = pathlib.Path({folder!r})
{top}

def wait_for(name):
    while not (FOLDER / name).exists():
        time.sleep(0.01)

def say(name, **more):
    said = {{"pid": os.getpid(), "parsed_by": PARSED_BY, "value": VALUE, "random": random.random(), **more}}
    draft = FOLDER / f".{{name}}"
    draft.write_text(json.dumps(said))
    draft.rename(FOLDER / name)

def tell(name):
    say(name)
    if name.startswith("hold"):
        wait_for("go")
        say(f"over.{{name}}")

@dag(dag_id="dag", schedule=None)
def tasks():
    for name in {names!r}:
        task(tell).override(task_id=name)(name)

tasks()
"""
NAMES = [f"{kind}{number}" for kind in ("tell", "hold") for number in range(8)]


class World:
    """A bundle with one Dag file, and an engine."""

    def __init__(self, folder: Path, engine: Trial) -> None:
        self.folder, self.engine = folder, engine
        self._dispatch = 0

    def write(self, value: int = 1, top: str = "") -> None:
        text = DAG.format(folder=str(self.folder), names=NAMES, value=value, top=top)
        (self.folder / "dag.py").write_text(text)

    def submit(self, *names: str) -> list[int]:
        jobs = []
        for name in names:
            self._dispatch += 1
            jobs.append(Job(self._dispatch, self._dispatch, make_task(name)))
            (self.folder / name).unlink(missing_ok=True)
        self.engine.submit(jobs)
        return [job.dispatch for job in jobs]

    def said(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        wait_until(lambda: (self.engine.hear(), path.exists())[1], 60)
        return json.loads(path.read_text())

    def run(self, *names: str) -> list[dict[str, Any]]:
        """Together, to their ends; in any order."""
        dispatches = self.submit(*names)
        ends = [wait_until(lambda each=each: self.ends(each), 60)[0] for each in dispatches]
        assert {(end.how, end.began) for end in ends} == {(Outcome.SUCCESS, True)}
        return [self.said(name) for name in names]

    def ends(self, dispatch: int) -> list[Any]:
        return [event for event in self.engine.about(dispatch) if isinstance(event, Ended)]

    @property
    def templates(self) -> list[int]:
        """The processes that have parsed a file."""
        below = psutil.Process(self.engine.template).children()
        return [each.pid for each in below if "template of dag.py" in " ".join(each.cmdline())]

    def template(self) -> int:
        (pid,) = self.templates
        return pid


def is_template_of_a_file() -> bool:
    return "template of dag.py" in " ".join(psutil.Process().cmdline())


def parsed_by_itself(said: dict[str, Any]) -> bool:
    return bool(said["pid"] == said["parsed_by"])


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExecutionApi]:
    api = ExecutionApi()
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", api.url)
    yield api
    api.close()


@pytest.fixture
def make_world(
    api: ExecutionApi,
    tmp_path: Path,
    make_engine: Callable[..., Trial],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., World]:
    folder = tmp_path / "bundle"
    folder.mkdir()
    set_bundle(monkeypatch, folder)

    def make(most: int = 2, **text: Any) -> World:
        engine = make_engine(4, "fork", airflow_api.run_workload, most, PRELOAD)
        api.serve()  # on a thread, beside which nothing is forked
        world = World(folder, engine)
        world.write(**text)
        wait_until(lambda: (engine.hear(), engine.room().takes)[1], 60)
        return world

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


class TestSharing:
    def test_tasks_of_a_file_share_one_parse(self, world) -> None:
        """None parses it, also not those that wait while it is parsed; numbers drawn at random differ."""
        said = world.run("tell0", "tell1", "tell2", "tell3")
        assert {each["parsed_by"] for each in said} == {world.template()}
        assert len({each["random"] for each in said}) == 4
        assert world.run("tell4")[0]["parsed_by"] == world.template()

    def test_one_task_alone_parses_its_file(self, world) -> None:
        """A template that no other task uses would be memory and time for nothing."""
        (said,) = world.run("tell0")
        assert (parsed_by_itself(said), world.templates) == (True, [])

    def test_off_by_default(self, make_world) -> None:
        """0 files: each task parses its own, as with Airflow's."""
        world = make_world(0)
        assert all(map(parsed_by_itself, world.run("tell0", "tell1")))
        assert world.templates == []

    def test_a_changed_file_is_not_shared_any_more(self, world) -> None:
        """The next task has the new one, whoever parses it."""
        world.run("tell0", "tell1")
        old = world.template()
        world.write(2)
        assert {each["value"] for each in world.run("tell0", "tell1")} == {2}
        wait_until(lambda: not alive(old))

    def test_what_a_file_prints_is_printed_once(self, make_world, monkeypatch, tmp_path) -> None:
        """Not again by each process that is forked afterwards."""
        output = tmp_path / "output"
        with output.open("w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            world = make_world(top="print('printed')")
            world.run("tell0", "tell1", "tell2")
            monkeypatch.undo()
        # A template that is an interpreter of its own, as beside threads of other tests, prints elsewhere.
        assert output.read_text().count("printed") <= 1

    def test_a_file_that_cannot_be_shared_is_parsed_by_its_tasks(self, make_world) -> None:
        """Not once: as long as it is like that, they do so."""
        world = make_world(
            top="import threading; threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
        )
        assert all(map(parsed_by_itself, world.run("tell0", "tell1") + world.run("tell2")))
        assert world.templates == []


class TestTrouble:
    def test_a_killed_template_takes_no_task_along(self, world) -> None:
        """They end as they would have; the next ones parse the file themselves."""
        dispatches = world.submit("hold0", "hold1")
        pids = [world.said(name)["pid"] for name in ("hold0", "hold1")]
        os.kill(world.template(), signal.SIGKILL)
        assert all(map(parsed_by_itself, world.run("tell0", "tell1")))
        assert (all(map(alive, pids)), sum(map(len, map(world.ends, dispatches)))) == (True, 0)
        (world.folder / "go").touch()
        ends = [wait_until(lambda each=each: world.ends(each))[0] for each in dispatches]
        assert {(end.how, end.began) for end in ends} == {(Outcome.SUCCESS, True)}

    def test_the_death_of_both_templates_takes_no_task_along(self, world) -> None:
        """Once the template process has been killed, that of the file ends by itself."""
        (dispatch, _) = world.submit("hold0", "hold1")
        world.said("hold1")
        pid, template, main = world.said("hold0")["pid"], world.template(), world.engine.template
        os.kill(main, signal.SIGKILL)
        wait_until(lambda: not alive(template))
        assert (alive(pid), world.ends(dispatch)) == (True, [])
        (world.folder / "go").touch()
        assert wait_until(lambda: world.ends(dispatch))[0].how is Outcome.SUCCESS

    def test_an_end_that_a_killed_template_could_not_tell_is_told(self, make_world, monkeypatch) -> None:
        """The template process inherits what has ended; a slot would stay taken for good."""
        send = Channel.send

        def die_or_send(channel: Channel, message: Any) -> None:
            if isinstance(message, Reaped):
                os.kill(os.getpid(), signal.SIGKILL)
            send(channel, message)

        monkeypatch.setattr(Channel, "send", die_or_send)
        world = make_world()
        dispatches = world.submit("tell0", "tell1")
        ends = [wait_until(lambda each=each: world.ends(each))[0] for each in dispatches]
        assert {(end.how, end.began) for end in ends} == {(Outcome.SUCCESS, True)}

    def test_a_revoked_task_is_ended_with_its_tree(self, world) -> None:
        (dispatch, _) = world.submit("hold0", "hold1")
        pid = world.said("hold0")["pid"]
        world.engine.wait_for(Began(dispatch))
        world.engine.revoke(dispatch)
        wait_until(lambda: world.ends(dispatch))
        wait_until(lambda: not alive(pid))

    def test_what_a_template_was_asked_for_can_be_withdrawn(self, world) -> None:
        """It does not answer; what it forks later runs nothing."""
        world.run("tell0", "tell1")
        os.kill(world.template(), signal.SIGSTOP)
        first, second = world.submit("tell2", "tell3")
        world.engine.withdraw([first])
        wait_until(lambda: [each for each in world.engine.about(first) if isinstance(each, Returned)])
        os.kill(world.template(), signal.SIGCONT)
        wait_until(lambda: world.ends(second))
        assert not (world.folder / "tell2").exists()

    def test_what_a_killed_template_was_asked_for_is_started_without_it(self, world) -> None:
        world.run("tell0", "tell1")
        template = world.template()
        os.kill(template, signal.SIGSTOP)
        dispatches = world.submit("tell2", "tell3")
        world.engine.hear()
        os.kill(template, signal.SIGKILL)
        wait_until(lambda: all(map(world.ends, dispatches)), 60)
        assert all(parsed_by_itself(world.said(name)) for name in ("tell2", "tell3"))

    def test_a_template_that_hangs_is_killed(self, make_world, monkeypatch) -> None:
        """Its tasks are told of when they end, and those that it was asked for start without it."""
        monkeypatch.setattr(warm, "PROBED_AFTER", 0.1)
        monkeypatch.setattr(warm, "ANSWERS_WITHIN", 2.0)
        world = make_world()
        running = world.submit("hold0", "hold1")
        for name in ("hold0", "hold1"):
            world.said(name)
        template = world.template()
        os.kill(template, signal.SIGSTOP)
        (world.folder / "go").touch()
        assert all(map(parsed_by_itself, world.run("tell0", "tell1")))
        ends = [wait_until(lambda each=each: world.ends(each), 60)[0] for each in running]
        assert {(end.how, end.began) for end in ends} == {(Outcome.SUCCESS, True)}
        assert not alive(template)

    def test_one_that_dies_with_its_parent_is_told_of(self, make_world, monkeypatch, tmp_path) -> None:
        """Also if the template process collects it before it reads of its start: its slot would stay taken."""
        died, wait, send = tmp_path / "died", main.wait, Channel.send
        late: list[Any] = []

        def tell_and_die(channel: Channel, message: Any) -> None:
            if not isinstance(message, Started) or died.exists() or not is_template_of_a_file():
                send(channel, message)
                return
            died.touch()
            os.kill(message.pid, signal.SIGKILL)
            send(channel, message)
            os.kill(os.getpid(), signal.SIGKILL)

        def see_the_deaths_first(sources: Any, timeout: float) -> list[Any]:
            ready = wait(sources, timeout)
            news = [each for each in ready if isinstance(each, warm.WarmTemplate) and each not in late]
            if not died.exists() or not news:
                return ready
            wait_until(lambda: not any(alive(each.pid) for each in news))
            late.extend(news)
            return [each for each in ready if each not in news]

        monkeypatch.setattr(main, "wait", see_the_deaths_first)
        monkeypatch.setattr(Channel, "send", tell_and_die)
        world = make_world()
        dispatches = world.submit("tell0", "tell1")
        assert all(wait_until(lambda each=each: world.ends(each), 30) for each in dispatches)

    def test_nothing_starts_once_the_engine_is_gone(self, world) -> None:
        """Neither template outlives it."""
        world.run("tell0", "tell1")
        template, main = world.template(), world.engine.template
        world.engine.terminate()
        wait_until(lambda: not alive(template) and not alive(main))
