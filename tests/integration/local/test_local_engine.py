# SPDX-License-Identifier: Apache-2.0
"""The local engine with real processes."""

from __future__ import annotations

import functools
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.configuration import conf

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.engines.local._machine import NOT_BEGUN, UNSEEN
from airflow_dispatch_provider.engines.local._options import LocalOptions
from airflow_dispatch_provider.engines.local.engine import LocalEngine
from airflow_dispatch_provider.engines.local.pool import HUNG_AFTER, KILLED_AFTER, Pool
from airflow_dispatch_provider.lifecycle.events import (
    EXECUTION_API,
    Adopted,
    Began,
    Broken,
    Ended,
    Returned,
    Sent,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from devkit.servers.execution_api import ExecutionApi
from tests.integration.local import local_runners
from tests.integration.local.conftest import alive, pid_of
from tests.support import make_callback, make_connection_test, make_task, wait_until

SUCCESS, FAILED = Outcome.SUCCESS, Outcome.FAILED
needs_callbacks = pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
needs_connection_tests = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="new in Airflow 3.3")


def told(*events: Any) -> list[str]:
    """Events with their types, which equality of named tuples leaves out."""
    return [repr(event) for event in events]


class Clock:
    """The real one, which can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Trial(LocalEngine):
    """With all that it has said so far."""

    def __init__(
        self,
        slots: int = 4,
        mode: Any = "fork",
        runner: Any = local_runners.run,
        warm_dags: int = 0,
        preload: tuple[str, ...] = (),
    ) -> None:
        self.time = Clock()
        self.said: list[Any] = []
        super().__init__(
            "trial",
            slots,
            conf,
            LocalOptions(mode, preload, warm_dags=warm_dags),
            runner=runner,
            warm_up=str,
            clock=self.time,
            make_pool=functools.partial(Pool, clock=self.time),
        )

    def hear(self) -> list[Any]:
        self.said += self.poll()
        return self.said

    def about(self, dispatch: int) -> list[Any]:
        return [event for event in self.hear() if getattr(event, "dispatch", 0) == dispatch]

    def wait_for(self, event: Any) -> None:
        wait_until(lambda: repr(event) in map(repr, self.hear()))

    def end_of(self, dispatch: int) -> Any:
        """Its last word."""
        over = Ended | Returned | Unknown
        return wait_until(lambda: [event for event in self.about(dispatch) if isinstance(event, over)])[-1]

    def wait_ready(self) -> Trial:
        wait_until(lambda: (self.hear(), self.room().takes)[1])
        return self

    def begun(self, dispatch: int, name: str = "begin") -> int:
        """Submit a task, and wait until it has begun: its process."""
        self.submit([Job(dispatch, dispatch, make_task(name))])
        self.wait_for(Began(dispatch))
        return pid_of(f"pid.{name}")

    @property
    def template(self) -> int:
        pid = self._pool and self._pool.template_pid
        assert pid is not None
        return pid


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Trial]]:
    """Starts engines, and leaves no process of theirs behind."""
    before = set(psutil.Process().children(recursive=True))
    made = []

    def make(*args: Any, **kwargs: Any) -> Trial:
        engine = Trial(*args, **kwargs)
        made.append(engine)
        engine.start("1")
        return engine

    yield make
    for engine in made:
        engine.terminate()
    for process in set(psutil.Process().children(recursive=True)) - before:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture
def x(make_engine: Callable[..., Trial]) -> Trial:
    return make_engine().wait_ready()


class TestRunning:
    @pytest.mark.parametrize("mode", ["fork", "exec"])
    def test_from_submission_to_end(self, make_engine, mode) -> None:
        """Sent, began, ended: each once, in this order."""
        x = make_engine(mode=mode).wait_ready()
        x.submit([Job(1, "k", make_task("begin_and_end"))])
        x.end_of(1)
        assert told(*x.said) == told(Sent(1), Began(1), Ended(1, SUCCESS, True))

    def test_it_begins_while_it_runs(self, x) -> None:
        """Not only in hindsight."""
        pid = x.begun(1)
        assert alive(pid)

    def test_one_that_ends_without_having_asked_had_not_begun(self, x) -> None:
        x.submit([Job(1, "k", make_task("nothing"))])
        assert told(x.end_of(1)) == told(Ended(1, FAILED, False, NOT_BEGUN))

    def test_one_that_fails_before_it_asks(self, x) -> None:
        x.submit([Job(1, "k", make_task("fail"))])
        assert told(x.end_of(1)) == told(Ended(1, FAILED, False, "RuntimeError: no luck"))

    def test_one_that_cannot_be_decoded_keeps_no_other_from_running(self, x) -> None:
        bad = make_task("bad", executor_config={"x": local_runners.Undecodable()})
        x.submit([Job(1, 1, bad), Job(2, 2, make_task("begin_and_end"))])
        assert told(x.end_of(1)) == told(Ended(1, FAILED, False, "ValueError: this one cannot arrive"))
        assert told(x.end_of(2)) == told(Ended(2, SUCCESS, True))

    @needs_callbacks
    def test_a_callback_begins_with_its_process(self, x) -> None:
        x.submit([Job(1, "k", make_callback("nothing-callback"))])
        x.end_of(1)
        assert told(*x.said) == told(Sent(1), Began(1), Ended(1, SUCCESS, True))

    @needs_connection_tests
    def test_a_connection_test_runs_with_a_single_slot(self, make_engine) -> None:
        x = make_engine(slots=1).wait_ready()
        x.submit([Job(1, "k", make_connection_test("nothing-test"))])
        assert told(x.end_of(1)) == told(Ended(1, SUCCESS, True))

    def test_two_dispatches_of_one_key_have_an_end_each(self, x) -> None:
        """The one that deferred, and the one that resumes."""
        first, second = make_task("begin-first"), make_task("begin_and_end")
        second.ti.id = first.ti.id
        x.submit([Job(1, "k", first)])
        x.wait_for(Began(1))
        x.submit([Job(2, "k", second)])
        assert told(x.end_of(2)) == told(Ended(2, SUCCESS, True))
        assert len(x.about(1)) == 2
        local_runners.say("go", "")
        assert told(x.end_of(1)) == told(Ended(1, SUCCESS, True))


class TestKilledTasks:
    KILLED = "The supervising process was ended by SIGKILL."

    def test_before_it_began(self, x) -> None:
        x.submit([Job(1, "k", make_task("hold"))])
        os.kill(pid_of("pid.hold"), signal.SIGKILL)
        assert told(x.end_of(1)) == told(Ended(1, FAILED, False, self.KILLED))

    def test_after_it_began(self, x) -> None:
        os.kill(x.begun(1), signal.SIGKILL)
        assert told(x.end_of(1)) == told(Ended(1, FAILED, True, self.KILLED))


class TestTemplate:
    def test_killed_beside_what_has_begun_and_what_has_not(self, x) -> None:
        """One that runs goes on, and its end is seen from outside; one that had not begun is judged by the database."""
        pid = x.begun(1)
        x.submit([Job(2, 2, make_task("hold"))])
        x.wait_for(Sent(2))
        os.kill(x.template, signal.SIGKILL)
        wait_until(lambda: (x.hear(), x.room().unavailable)[1])
        assert alive(pid)
        local_runners.say("go", "")
        assert told(x.end_of(1)) == told(Ended(1, SUCCESS, True, UNSEEN))
        assert told(x.end_of(2)) == told(Ended(2, FAILED, None, UNSEEN))

    def test_killed_before_it_had_forked(self, x) -> None:
        """Its work is returned, and the next one runs it."""
        os.kill(x.template, signal.SIGSTOP)
        x.submit([Job(1, "k", make_task("begin_and_end"))])
        os.kill(x.template, signal.SIGKILL)
        assert isinstance(x.end_of(1), Returned)
        assert "status -9" in x.end_of(1).reason
        x.wait_ready()
        x.submit([Job(2, "k", make_task("begin_and_end"))])
        assert told(x.end_of(2)) == told(Ended(2, SUCCESS, True))

    def test_stopped(self, x) -> None:
        """It takes nothing more after a while, and is killed at last: what it had been given is returned."""
        os.kill(x.template, signal.SIGSTOP)
        x.submit([Job(1, "k", make_task("nothing"))])
        assert (x.hear(), x.room().unavailable) == ([], None)
        x.time.ahead += HUNG_AFTER
        assert (x.hear(), "has said nothing" in str(x.room().unavailable)) == ([], True)
        x.time.ahead += KILLED_AFTER - HUNG_AFTER
        assert isinstance(x.end_of(1), Returned)

    def test_crashing_whenever_it_starts(self, make_engine, test_dir, monkeypatch) -> None:
        """A preload that ends its process: the engine is unavailable with the reason, and raises nothing."""
        (test_dir / "crasher.py").write_text("import os; os.kill(os.getpid(), 9)")
        monkeypatch.syspath_prepend(str(test_dir))
        monkeypatch.setattr("airflow_dispatch_provider.engines.local.pool.restart_delay", lambda deaths: 60.0)
        x = Trial()
        x._work = x._work.__class__(local_runners.run, conf, ("crasher",), str, "title")
        x.start("1")
        wait_until(lambda: (x.hear(), x.room().unavailable)[1])
        assert "status -9" in str(x.room().unavailable)
        x.submit([Job(1, "k", make_task("nothing"))])
        assert isinstance(x.end_of(1), Returned)
        x.terminate()

    def test_at_the_limit_of_open_files(self, make_engine) -> None:
        """Whatever cannot be forked is returned; the others run, and the template process lives."""
        x = make_engine(30, "exec").wait_ready()
        template = x.template
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(template, resource.RLIMIT_NOFILE, (24, hard))
        x.submit([Job(number, number, make_task(f"begin-{number}")) for number in range(1, 31)])
        wait_until(lambda: all(x.about(number) for number in range(1, 31)))
        returned = [event for event in x.said if isinstance(event, Returned)]
        assert returned
        assert "open files" in returned[0].reason
        assert "open files" in str(x.room().unavailable)
        local_runners.say("go", "")
        for number in range(1, 31):
            expected = Ended(number, SUCCESS, True), Returned(number, returned[0].reason)
            assert repr(x.end_of(number)) in told(*expected)
        assert x.template == template


class TestAhead:
    """More than it has slots for."""

    @pytest.fixture
    def x(self, make_engine: Callable[..., Trial]) -> Trial:
        x: Trial = make_engine(slots=1).wait_ready()
        x.begun(1, "begin-1")
        x.submit([Job(number, number, make_task(f"begin-{number}")) for number in (2, 3)])
        return x

    def test_one_starts_as_soon_as_another_has_ended(self, x) -> None:
        """In their order, while nobody asks for news, and never two at a time."""
        for number in (1, 2, 3):
            assert alive(pid_of(f"pid.begin-{number}"))
            assert local_runners.heard(f"pid.begin-{number + 1}") is None
            local_runners.say(f"go.begin-{number}", "")
        assert [type(x.end_of(number)) for number in (1, 2, 3)] == [Ended] * 3

    @pytest.mark.parametrize("take_back", [lambda x: x.withdraw([2]), lambda x: x.revoke(2)])
    def test_one_that_has_not_started_comes_back(self, x, take_back) -> None:
        """Withdrawn or revoked; the next one has its place."""
        take_back(x)
        assert told(x.end_of(2)) == told(Returned(2))
        local_runners.say("go.begin-1", "")
        x.wait_for(Began(3))
        assert local_runners.heard("pid.begin-2") is None

    def test_the_best_starts_first(self, x) -> None:
        """Though it came last."""
        x.submit([Job(4, 4, make_task("begin-4", priority_weight=9))])
        local_runners.say("go.begin-1", "")
        x.wait_for(Began(4))
        assert local_runners.heard("pid.begin-2") is None

    def test_with_more_slots_they_start_at_once(self, x) -> None:
        x.slots = 3
        x.wait_for(Began(2))
        x.wait_for(Began(3))

    def test_what_has_not_started_is_not_waited_for_at_the_end(self, x) -> None:
        """It is returned, and what runs may end."""
        threading.Timer(0.3, local_runners.say, ("go", "")).start()
        x.stop(time.monotonic() + 60)
        assert told(*(x.end_of(number) for number in (1, 2, 3))) == told(
            Ended(1, SUCCESS, True), Returned(2), Returned(3)
        )

    def test_a_dead_template_gives_back_what_had_not_started(self, x) -> None:
        os.kill(x.template, signal.SIGKILL)
        assert [type(x.end_of(number)) for number in (2, 3)] == [Returned] * 2


class TestTakingBack:
    @pytest.mark.parametrize("name", ["parent", "detached_parent"])
    def test_the_whole_tree_is_ended(self, x, name) -> None:
        """Also who ignores SIGTERM, and children in sessions of their own; answered when it is gone."""
        x.submit([Job(1, "k", make_task(name))])
        pid, child = pid_of(f"pid.{name}"), pid_of(f"child.{name}")
        x.revoke(1)
        assert isinstance(x.end_of(1), Ended)
        wait_until(lambda: not alive(pid) and not alive(child))
        assert x.room().takes == 4

    def test_an_orphan_is_ended(self, x) -> None:
        """Without a template process the engine does it itself."""
        pid = x.begun(1)
        os.kill(x.template, signal.SIGKILL)
        wait_until(lambda: (x.hear(), x.room().unavailable)[1])
        x.revoke(1)
        assert isinstance(x.end_of(1), Ended)
        assert not alive(pid)

    def test_one_that_began_before_it_could_be_ended_runs_on(self, x) -> None:
        """Its task was queued again meanwhile, and the Execution API has let this very process run it."""
        x.submit([Job(1, "k", make_task("hold_and_begin"))])
        pid = pid_of("pid.hold_and_begin")
        os.kill(x.template, signal.SIGSTOP)
        x.revoke(1)
        local_runners.say("ask", "")
        wait_until(lambda: local_runners.heard("begun.hold_and_begin"))
        os.kill(x.template, signal.SIGCONT)
        x.wait_for(Began(1))
        assert alive(pid)
        local_runners.say("go", "")
        assert told(x.end_of(1)) == told(Ended(1, SUCCESS, True))

    def test_of_two_dispatches_of_one_key_one_is_ended(self, x) -> None:
        first, second = x.begun(1, "begin-1"), x.begun(2, "begin-2")
        x.revoke(1)
        assert isinstance(x.end_of(1), Ended)
        assert (alive(first), alive(second)) == (False, True)


class TestStopping:
    def test_it_waits_for_what_runs(self, x) -> None:
        x.begun(1)
        template = x.template
        threading.Timer(0.3, local_runners.say, ("go", "")).start()
        assert x.stop(time.monotonic() + 60) == set()
        assert told(x.hear()[-1]) == told(Ended(1, SUCCESS, True))
        assert not alive(template)

    def test_what_is_not_over_in_time_runs_on(self, x) -> None:
        """Its template process ends after it."""
        pid, template = x.begun(1), x.template
        x.stop(time.monotonic())
        assert alive(pid)
        local_runners.say("go", "")
        wait_until(lambda: (os.waitpid(-1, os.WNOHANG), not alive(template))[1])
        assert local_runners.heard("done.begin") is not None


SCHEDULER = """
    import time
    from tests.integration.local import local_runners
    from tests.integration.local.test_local_engine import Job, Trial
    from tests.support import make_task

    engine = Trial()
    engine.start("1")
    engine.wait_ready()
    begun, waiting = make_task("begin"), make_task("hold")
    engine.submit([Job(1, 1, begun), Job(2, 2, waiting)])
    while local_runners.heard("pid.begin") is None or local_runners.heard("pid.hold") is None:
        engine.hear()
    local_runners.say("ids", f"{begun.ti.id} {waiting.ti.id}")
    time.sleep(600)
"""


def test_what_a_dead_scheduler_had_given_ahead_never_starts() -> None:
    """Its template process lives as long as what it had started, and starts nothing more."""
    given = SCHEDULER.replace("Trial()", "Trial(slots=1)").replace(
        ' or local_runners.heard("pid.hold") is None', ""
    )
    dead = subprocess.Popen([sys.executable, "-c", textwrap.dedent(given)], start_new_session=True)
    try:
        wait_until(lambda: local_runners.heard("ids"), 120)
        (template,) = psutil.Process(dead.pid).children()
        dead.kill()
        dead.wait()
        local_runners.say("go", "")
        wait_until(lambda: not alive(template.pid))
        assert (local_runners.heard("done.begin"), local_runners.heard("pid.hold")) == ("", None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(dead.pid, signal.SIGKILL)


def test_a_second_engine_adopts_what_a_dead_one_has_started(make_engine) -> None:
    """Tasks that run, and tasks whose process has not begun yet; both are watched to their ends."""
    dead = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCHEDULER)], start_new_session=True)
    x = make_engine().wait_ready()
    try:
        ids = wait_until(lambda: local_runners.heard("ids"), 120).split()
        dead.kill()
        dead.wait()
        tis = [SimpleNamespace(id=ti_id) for ti_id in (*ids, "0199-nobody")]
        x.adopt([Found(7, 7, tis[0], True), Found(8, 8, tis[1], False), Found(9, 9, tis[2], True)])
        wait_until(lambda: len(x.hear()) == 3)
        assert told(*x.said) == told(Adopted(7, True), Adopted(8), Unknown(9))
        assert x.room().takes == 2
        x.revoke(8)
        assert told(x.end_of(8)) == told(Ended(8, FAILED, None, UNSEEN))
        assert not alive(pid_of("pid.hold"))
        local_runners.say("go", "")
        assert told(x.end_of(7)) == told(Ended(7, SUCCESS, True, UNSEEN))
        assert local_runners.heard("done.begin") is not None
    finally:
        local_runners.say("go", "")


class TestExecutionApi:
    """With Airflow's own supervisor."""

    @pytest.fixture
    def api(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExecutionApi]:
        api = ExecutionApi()
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", api.url)
        monkeypatch.setenv("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "1")
        yield api
        api.close()

    @pytest.fixture
    def x(self, make_engine, api) -> Trial:
        """Started before the server has its thread, so that the template process is a fork."""
        x: Trial = make_engine(runner=airflow_api.run_workload).wait_ready()
        api.serve()
        return x

    def run(self, x: Trial, *dispatches: int) -> list[Any]:
        x.submit([Job(number, number, make_task(f"t{number}")) for number in dispatches])
        for number in dispatches:
            wait_until(lambda number=number: x.end_of(number), 90)
        return x.said

    def test_a_task_that_is_let_start_has_begun(self, x, api) -> None:
        """Whatever becomes of it: this one has no Dag file."""
        assert told(*self.run(x, 1)) == told(Sent(1), Began(1), Ended(1, SUCCESS, True))

    @pytest.mark.parametrize("status", [403, 409])
    def test_a_task_that_is_refused_had_not_begun(self, x, api, status) -> None:
        """An expired token, or one that runs elsewhere: its own affair."""
        api.status = status
        sent, ended = self.run(x, 1)
        assert (repr(sent), ended.how, ended.began) == (repr(Sent(1)), FAILED, False)
        assert ended.reason

    def test_a_server_that_answers_nobody(self, x, api) -> None:
        """Whether it had heard the question is not known."""
        api.status = 503
        _, broken, ended = self.run(x, 1)
        assert isinstance(broken, Broken)
        assert (broken.backend, ended.how, ended.began) == (EXECUTION_API, FAILED, None)
        assert ended.nothing_ran

    def test_an_error_of_the_server_is_its_own_when_two_tasks_meet_it(self, x, api) -> None:
        api.status = 500
        assert [type(event) for event in self.run(x, 1)] == [Sent, Ended]
        assert [type(event) for event in self.run(x, 2)][2:] == [Sent, Broken, Ended]

    def test_one_that_is_killed_while_it_asks(self, x, api) -> None:
        """Whether it was let start, the database alone can know."""
        api.answering.clear()
        x.submit([Job(1, 1, make_task())])
        wait_until(api.asked.is_set)
        x.hear()
        x.revoke(1)
        assert (x.end_of(1).how, x.end_of(1).began) == (FAILED, None)
