# SPDX-License-Identifier: Apache-2.0
"""The local engine behind the protocol, with a pool that the test plays itself."""

from __future__ import annotations

import logging
import pickle
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.engines.local import engine as engine_module
from airflow_dispatch_provider.engines.local import messages
from airflow_dispatch_provider.engines.local._machine import KILL_GRACE, OVER_GRACE
from airflow_dispatch_provider.engines.local._options import PRELOAD, LocalOptions, local_options
from airflow_dispatch_provider.engines.local._search import Answer
from airflow_dispatch_provider.engines.local.engine import KINDS, LocalEngine
from airflow_dispatch_provider.engines.local.messages import Gone, NotStarted, Started
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.lifecycle.events import Adopted, Ended, Rejected, Returned, Sent, Unknown
from airflow_dispatch_provider.lifecycle.states import Outcome
from tests.support import make_callback, make_task
from tests.unit.engines.foreign_executors import Clock


class FakePool:
    template_pid = 4242

    def __init__(self, work: Any = None, mode: Any = None) -> None:
        self.work, self.mode = work, mode
        self.ready, self.trouble = True, None
        self.ran: dict[int, Any] = {}
        self.killed: list[tuple[int, float]] = []
        self.watched: dict[int, Any] = {}
        self.events: list[Any] = []
        self.gone: set[int] = set()
        self.withdrawn: list[int] = []
        self.ranks: dict[int, tuple[int, int]] = {}
        self.files: dict[int, Any] = {}
        self.running: set[int] = set()
        self.slots = 0
        self.ends = ""

    @property
    def live(self) -> int:
        return len(self.ran) + len(self.watched) - len(self.gone)

    @property
    def started(self) -> int:
        return self.live

    def run(self, number: int, name: str, workload: bytes, rank: tuple[int, int], file: Any) -> None:
        self.ran[number], self.ranks[number], self.files[number] = pickle.loads(workload), rank, file

    def withdraw(self, number: int) -> None:
        self.withdrawn.append(number)

    def limit(self, slots: int) -> None:
        self.slots = slots

    def kill(self, kill: messages.Kill) -> None:
        if not (kill.unless_begun and kill.number in self.running):
            self.killed.append((kill.number, kill.grace))

    def watch(self, number: int, process: Any) -> None:
        self.watched[number] = process

    def runs_task(self, number: int) -> bool:
        return number in self.running

    def is_watched(self, number: int) -> bool:
        return number in self.watched

    def pid(self, number: int) -> int:
        return 9000 + number

    def happen(self, *events: Any) -> None:
        self.events += events
        self.gone |= {each.number for each in events if not isinstance(each, Started | messages.Began)}

    def news(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def wait(self, timeout: float) -> None:
        pass

    def close(self) -> None:
        self.ends += "closed "

    def stop(self) -> None:
        self.ends += "stopped"

    def terminate(self) -> None:
        self.ends += "terminated"


class FakeSearch:
    """Finds what the test puts there, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Found] = []
        self.processes: dict[Any, Any] = {}
        self.answering = True

    def ask(self, found: Any) -> None:
        self.asked += found

    def answers(self) -> list[Answer]:
        if not self.answering:
            return []
        asked, self.asked = self.asked, []
        return [Answer(each, self.processes.get(each.ti.id)) for each in asked]

    def stop(self) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def search() -> FakeSearch:
    return FakeSearch()


@pytest.fixture
def x(clock: Clock, search: FakeSearch) -> Any:
    return started(clock, make_search=lambda title: search)


def started(clock: Any, slots: int = 2, make_pool: Any = FakePool, **fields: Any) -> Any:
    engine = LocalEngine("a", slots, "conf", clock=clock, make_pool=make_pool, **fields)
    engine.start("77")
    return engine


def pool(engine: Any) -> FakePool:
    made: FakePool = engine._pool
    return made


def job(number: int, workload: Any = None, key: str = "") -> Job:
    return Job(number, key or f"key {number}", workload or make_task())


def found(number: int, runs: bool = True) -> Found:
    return Found(number, f"key {number}", SimpleNamespace(id=f"id {number}"), runs)


class TestGiving:
    def test_what_it_is_given_is_handed_over_at_once(self, x) -> None:
        """As it is: the executor_config is excluded from JSON, and travels all the same."""
        x.submit([job(1, make_task(executor_config={"a": 1})), job(2)])
        assert list(pool(x).ran) == [1, 2]
        assert pool(x).ran[1].ti.executor_config == {"a": 1}
        assert x.poll() == []

    def test_from_submission_to_end(self, x) -> None:
        """Sent with its process, ended with it."""
        x.submit([job(1)])
        pool(x).happen(Started(1, 10, 0.0))
        assert repr(x.poll()) == repr([Sent(1)])
        pool(x).happen(messages.Began(1), messages.Ended(1, 0, began=True))
        assert x.poll()[-1] == Ended(1, Outcome.SUCCESS, True)
        assert x.poll() == []

    def test_one_that_cannot_be_pickled_keeps_none_from_being_sent(self, x) -> None:
        """It is rejected with the reason."""
        x.submit([job(1, make_task(executor_config={"x": lambda: 0})), job(2)])
        (rejected,) = x.poll()
        assert isinstance(rejected, Rejected)
        assert rejected.dispatch == 1
        assert "cannot be pickled" in rejected.reason
        assert list(pool(x).ran) == [2]

    def test_without_a_ready_template_it_is_returned(self, x) -> None:
        """The template process may have died since the room was given."""
        pool(x).ready, pool(x).trouble = False, "The template process has ended."
        x.submit([job(1)])
        assert repr(x.poll()) == repr([Returned(1, "The template process has ended.")])

    def test_what_was_not_started_is_returned(self, x) -> None:
        x.submit([job(1)])
        pool(x).happen(NotStarted(1, "too many open files"))
        assert repr(x.poll()) == repr([Returned(1, "too many open files")])

    def test_what_is_withdrawn_is_returned_later(self, x) -> None:
        """The template process alone knows whether it has started."""
        x.submit([job(1), job(2)])
        assert x.withdraw([1]) == set()
        assert pool(x).withdrawn == [1]
        pool(x).happen(NotStarted(1))
        assert repr(x.poll()) == repr([Returned(1)])

    @pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 has only tasks")
    def test_a_callback_fails_whose_end_nobody_saw(self, x) -> None:
        """Nothing else knows how it ended."""
        x.submit([job(1, make_callback())])
        pool(x).happen(Started(1, 10, 0.0), messages.Began(1), Gone(1))
        assert [(e.how, e.began) for e in x.poll() if isinstance(e, Ended)] == [(Outcome.FAILED, True)]


class TestRoom:
    def test_slots_less_what_lives(self, x) -> None:
        x.submit([job(1)])
        room = x.room()
        assert (room.slots, room.takes, room.unavailable, room.kinds) == (2, 1, None, KINDS)

    def test_slots_may_change_at_any_time(self, x) -> None:
        """Also to fewer than live."""
        x.submit([job(1), job(2)])
        x.slots = 5
        assert (x.room().slots, x.room().takes) == (5, 3)
        x.slots = 1
        assert (x.room().slots, x.room().takes) == (1, 0)

    def ended(self, x: Any, slots: int, number: int) -> Any:
        """An engine in which so many have just ended."""
        x.submit([job(each) for each in range(slots)])
        pool(x).happen(*(messages.Ended(each, 0, began=True) for each in range(number)))
        x.poll()
        return x

    def test_ahead_as_many_as_end_while_the_scheduler_is_away(self, clock) -> None:
        """At the pace of the last seconds; none where none ends, or where nothing could start."""
        x = self.ended(started(clock, slots=4), 4, 4)
        assert (x.room().ahead, pool(x).slots) == (2, 4)
        pool(x).ready = False
        assert x.room().ahead == 0
        pool(x).ready, clock.now = True, clock.now + 11
        x.poll()
        assert x.room().ahead == 0

    def test_nothing_ahead_for_ends_that_free_no_slot(self, clock) -> None:
        """More run than there are slots by now."""
        x = self.ended(started(clock, slots=8), 8, 4)
        assert x.room().ahead == 2
        x.slots = 3
        assert x.room().ahead == 1

    def test_local_ahead_bounds_it(self, clock) -> None:
        """0 gives nothing ahead."""
        for most in (0, 3):
            x = self.ended(started(clock, slots=9, options=LocalOptions(ahead=most)), 9, 9)
            assert x.room().ahead == most

    def test_slots_are_left_to_the_processes_that_are_looked_for(self, x, search) -> None:
        """At once, before anything else is submitted; those that are there have them then."""
        search.answering = False
        x.adopt([found(1), found(2)])
        assert (pool(x).slots, x.room().takes) == (0, 0)
        x.revoke(2)
        x.poll()
        assert pool(x).slots == 1
        search.answering = True
        x.poll()
        assert pool(x).slots == 2

    def test_it_starts_the_best_first(self, x) -> None:
        """By type and priority."""
        x.submit([job(1, make_task(priority_weight=5)), job(2, make_task(priority_weight=-1))])
        assert pool(x).ranks == {1: (2, -5), 2: (2, 1)}

    def test_the_file_of_a_task_is_named_for_those_that_have_a_template(self, clock) -> None:
        """By its bundle and the path in that; not where no file has one, nor of anything but a task."""
        x = started(clock, slots=3, options=LocalOptions(warm_dags=1))
        x.submit([job(1, make_task()), *([job(2, make_callback())] if AIRFLOW_V_3_2_PLUS else [])])
        assert (pool(x).work.warm_dags, pool(x).files[1].path, pool(x).files.get(2)) == (1, "dag.py", None)
        x = started(clock)
        x.submit([job(1, make_task())])
        assert pool(x).files == {1: None}

    def test_a_template_that_still_starts_takes_nothing_and_is_no_trouble(self, x) -> None:
        pool(x).ready = False
        assert (x.room().takes, x.room().unavailable) == (0, None)

    def test_trouble_makes_it_unavailable(self, x) -> None:
        pool(x).ready, pool(x).trouble = False, "The template process has ended."
        assert x.room().unavailable == "The template process has ended."

    def test_kinds(self) -> None:
        """All that the Airflow version has."""
        others = {"ExecuteCallback"} if AIRFLOW_V_3_2_PLUS else set()
        others |= {"TestConnection"} if AIRFLOW_V_3_3_PLUS else set()
        assert {"ExecuteTask"} | others == KINDS

    def test_a_pool_that_cannot_be_made_is_tried_again_with_growing_delays(self, clock, caplog) -> None:
        """Nothing is raised; it is said once that it fails, and once that it works."""
        caplog.set_level(logging.INFO)
        tried = []

        def make(work: Any, mode: Any) -> Any:
            tried.append(clock.now)
            if len(tried) < 4:
                raise pickle.PicklingError("no such runner")
            return FakePool(work, mode)

        x = started(clock, make_pool=make)
        assert "no such runner" in str(x.room().unavailable)
        for _ in range(80):
            x.poll()
            clock.now += 0.1
        assert [round(b - a) for a, b in pairwise(tried)] == [1, 2, 4]
        assert x.room().unavailable is None
        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1

    def test_a_pool_that_raises_makes_it_unavailable(self, x, monkeypatch, caplog) -> None:
        """Until it does not any more; said once."""

        def fail() -> Any:
            raise OSError("too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(pool(x), "news", fail)
            assert (x.poll(), x.poll()) == ([], [])
            assert "too many open files" in str(x.room().unavailable)
        x.poll()
        assert x.room().unavailable is None
        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1


class TestTakingBack:
    def test_one_that_has_not_begun_is_killed_at_once(self, x) -> None:
        x.submit([job(1)])
        x.revoke(1)
        assert pool(x).killed == [(1, 0.0)]

    def test_one_that_has_begun_gets_its_grace(self, x) -> None:
        x.submit([job(1)])
        pool(x).happen(messages.Began(1))
        x.poll()
        x.revoke(1)
        assert pool(x).killed == [(1, KILL_GRACE)]

    def test_it_has_its_slot_until_it_is_gone(self, x) -> None:
        x.submit([job(1), job(2)])
        x.revoke(1)
        assert x.room().takes == 0
        pool(x).happen(messages.Ended(1, -9, began=False))
        assert [type(event) for event in x.poll()] == [Ended]
        assert x.room().takes == 1

    def test_what_is_over_may_end_by_itself_for_a_while(self, x, clock) -> None:
        """For as long as Airflow's supervisor lets it, by default 20 seconds, and a minute for its log."""
        x.submit([job(1)])
        pool(x).happen(messages.Began(1))
        x.poll()
        x.revoke(1, over=True)
        clock.now += OVER_GRACE + 20 - 0.1
        x.poll()
        assert pool(x).killed == []
        clock.now += 0.1
        x.poll()
        assert pool(x).killed == [(1, KILL_GRACE)]

    def test_of_two_dispatches_of_one_key_one_is_ended(self, x) -> None:
        x.submit([job(1, key="k"), job(2, key="k")])
        x.revoke(2)
        assert pool(x).killed == [(2, 0.0)]

    def test_what_is_forgotten_runs_on_and_has_its_slot_until_it_has_ended(self, x) -> None:
        """Its end is always seen."""
        x.submit([job(1)])
        x.forget(1)
        assert (pool(x).killed, len(x.pids())) == ([], 1)
        pool(x).happen(messages.Ended(1, 0, began=True))
        x.poll()
        assert x.pids() == {}

    def test_numbers_that_it_does_not_know_are_no_error(self, x) -> None:
        x.revoke(9)
        x.forget(9)
        assert pool(x).killed == []


class TestAdoption:
    def test_found_or_not(self, x, search) -> None:
        """The one is watched to its end, and has a slot."""
        search.processes["id 1"] = SimpleNamespace(pid=77)
        x.adopt([found(1), found(2)])
        assert repr(x.poll()) == repr([Adopted(1, True), Unknown(2)])
        assert (list(pool(x).watched), x.room().takes) == ([1], 1)
        pool(x).happen(Gone(1))
        assert [event.dispatch for event in x.poll()] == [1]

    def test_one_that_has_not_begun(self, x, search) -> None:
        """Its process asks for leave to start when it will; its end is the database's affair."""
        search.processes["id 1"] = SimpleNamespace(pid=77)
        x.adopt([found(1, runs=False)])
        assert repr(x.poll()) == repr([Adopted(1, False)])
        pool(x).happen(Gone(1))
        assert [(event.how, event.began) for event in x.poll()] == [(Outcome.FAILED, None)]

    def test_it_is_not_waited_for(self, x, search) -> None:
        search.answering = False
        x.adopt([found(1)])
        assert x.poll() == []
        search.answering = True
        assert repr(x.poll()) == repr([Unknown(1)])

    def test_one_that_is_revoked_while_it_is_looked_for_is_ended(self, x, search) -> None:
        """And not called adopted."""
        search.processes["id 1"] = SimpleNamespace(pid=77)
        x.adopt([found(1, runs=False)])
        x.revoke(1)
        assert x.poll() == []
        assert pool(x).killed == [(1, 0.0)]

    def test_one_that_is_found_again_is_not_ended_for_its_earlier_dispatch(self, x, search, clock) -> None:
        """It was set back, and began after all when another scheduler had queued it, which died."""
        search.processes["id 1"] = search.processes["id 2"] = SimpleNamespace(pid=77)
        x.adopt([found(1, runs=False)])
        x.poll()
        x.revoke(1, over=True)
        x.adopt([found(2)._replace(key="key 1")])
        assert repr(x.poll()) == repr([Unknown(1), Adopted(2, True)])
        clock.now += 2 * OVER_GRACE
        x.poll()
        assert pool(x).killed == []

    @pytest.mark.parametrize(("runs", "killed"), [(True, []), (False, [(1, KILL_GRACE)])])
    def test_one_that_runs_after_all_is_not_ended(self, x, search, clock, runs, killed) -> None:
        """It was found after it was set back, and began when another scheduler had queued its task: nobody offers it
        here."""
        search.processes["id 1"] = SimpleNamespace(pid=9001)
        x.adopt([found(1, runs=False)])
        x.revoke(1, over=True)
        x.poll()
        pool(x).running |= {1} if runs else set()
        clock.now += 2 * OVER_GRACE
        x.poll()
        assert pool(x).killed == killed

    def test_its_own_is_not_looked_for(self, x, search) -> None:
        """It was recalled, and began all the same: it has one slot, and its template process tells its end."""
        search.processes["id 1"] = SimpleNamespace(pid=9001)
        x.submit([job(1)])
        pool(x).happen(Started(1, 9001, 0.0), messages.Began(1))
        x.poll()
        x.adopt([found(1)])
        assert repr(x.poll()) == repr([Adopted(1, True)])
        assert (pool(x).watched, x.room().takes, len(x)) == ({}, 1, 1)

    @pytest.mark.parametrize("over", [False, True])
    def test_one_that_has_begun_unheard_is_said_to_have(self, x, search, clock, over) -> None:
        """With the first order to end it; the next one, or the end of its time, ends it."""
        search.processes["id 1"] = SimpleNamespace(pid=9001)
        x.adopt([found(1, runs=False)])
        x.poll()
        pool(x).running.add(1)
        x.revoke(1, over)
        assert (repr(x.poll()), pool(x).killed) == ("[Began(dispatch=1, info=None)]", [])
        clock.now += 2 * OVER_GRACE
        if not over:
            x.revoke(1)
        x.poll()
        assert pool(x).killed == [(1, KILL_GRACE)]


class TestStopping:
    def test_it_waits_for_what_runs(self, x) -> None:
        """The ends come from the next poll."""
        x.submit([job(1)])
        pool(x).wait = lambda timeout: pool(x).happen(messages.Ended(1, 0, began=True))
        was = pool(x)
        assert x.stop(x._clock() + 60) == set()
        assert repr(x.poll()) == repr([Ended(1, Outcome.SUCCESS, True)])
        assert was.ends == "closed stopped"

    def test_what_runs_on_after_the_deadline_is_left_alone(self, x, clock, caplog) -> None:
        """Another scheduler may find it."""
        x.submit([job(1)])

        def wait(timeout: float) -> None:
            clock.now += timeout

        was = pool(x)
        was.wait = wait
        x.stop(clock.now + 3)
        assert (was.ends, was.killed) == ("closed stopped", [])
        assert "1 workloads run on without a scheduler: {'key 1': 9001}" in caplog.text

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_a_second_signal_ends_them(self, x, interrupt) -> None:
        x.submit([job(1)])

        def signalled(timeout: float) -> None:
            raise interrupt

        was = pool(x)
        was.wait = signalled
        with pytest.raises(interrupt):
            x.stop(x._clock() + 60)
        assert was.ends == "closed terminated"

    def test_it_starts_nothing_afterwards(self, x) -> None:
        x.stop(x._clock())
        x.poll()
        x.submit([job(1)])
        assert repr(x.poll()) == repr([Returned(1, "The template process is not ready.")])
        assert x.room().unavailable is not None

    def test_an_engine_that_never_started_stops(self, clock) -> None:
        assert LocalEngine("a", 1, None, clock=clock).stop(0.0) == set()


class TestItself:
    def test_what_its_processes_are_given(self, clock) -> None:
        """The configuration of its backend, the modules of its options, and titles that name the team."""
        x = started(clock, team="red", options=LocalOptions("exec", ("json",)))
        work = pool(x).work
        assert (pool(x).mode, work.conf, work.preload) == ("exec", "conf", ("json",))
        assert work.title == "airflow dispatch local [red]"
        assert work.runner is airflow_api.run_workload

    def test_what_prevents_a_fork_leads_to_a_fresh_interpreter(self, clock, monkeypatch) -> None:
        monkeypatch.setattr(engine_module, "obstacle_to_fork", lambda: "a reason")
        assert pool(started(clock)).mode == "exec"

    def test_repr_shows_the_state(self, x) -> None:
        x.submit([job(1)])
        assert repr(x) == "LocalEngine('a', slots 2, out 1, template 4242)"

    def test_an_idle_poll_touches_no_running_task(self, x) -> None:
        """Its cost does not grow with what runs."""
        x.submit([job(1), job(2)])
        x._machine._out = Untouchable(x._machine._out)
        assert x.poll() == []


class Untouchable(dict[Any, Any]):
    def _refuse(self, *args: Any) -> Any:
        raise AssertionError("a poll with nothing changed looks at every running task")

    __iter__ = keys = values = items = _refuse


class Overlay:
    def __init__(self, **options: str) -> None:
        self.options = options

    def get(self, section: str, key: str, fallback: Any = None) -> Any:
        return self.options.get(f"{section}_{key}", fallback)

    def getint(self, section: str, key: str, fallback: int) -> int:
        return int(self.get(section, key, fallback))


class TestOptions:
    def test_defaults(self) -> None:
        assert local_options(Overlay()) == LocalOptions("fork", PRELOAD)

    def test_values(self) -> None:
        given = {
            "local_template": " exec",
            "local_preload": "json, zlib,",
            "local_ahead": "5",
            "local_warm_dags": "3",
        }
        read = local_options(Overlay(**{f"dispatch_{option}": value for option, value in given.items()}))
        assert read == LocalOptions("exec", (*PRELOAD, "json", "zlib"), 5, 3)

    def test_a_mistake_is_named(self) -> None:
        """Option, value and remedy."""
        with pytest.raises(DispatchConfigError, match=r"\[dispatch\] local_template: 'thread' is unknown"):
            local_options(Overlay(dispatch_local_template="thread"))
