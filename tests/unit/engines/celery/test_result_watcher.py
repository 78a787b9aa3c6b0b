# SPDX-License-Identifier: Apache-2.0
"""The thread that watches for results, on sources that tests steer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from queue import Empty, SimpleQueue

import pytest
from celery import Celery
from support import wait_until

from airflow_dispatch_provider.engines.celery import result_watcher
from airflow_dispatch_provider.engines.celery.result_watcher import ResultWatcher, Watchlist, backoff
from airflow_dispatch_provider.engines.celery.results import Result, ResultBackendError, Timing

QUICK = Timing(tick=0.005, poll=0.01, reconcile=0.01, min_backoff=0.001, max_backoff=0.002)
RARELY = Timing(tick=0.005, reconcile=3600, min_backoff=0.001, max_backoff=0.002)

STARTED = Result("x", "STARTED")
SUCCESS = Result("x", "SUCCESS", 7)


class FakeSource:
    """Keeps results by id; the ``broken`` methods raise ``error``, and what is ``pushed`` comes by itself."""

    def __init__(self, interval: float = 0.01) -> None:
        self.interval = interval
        self.note: str | None = None
        self.once = False
        self.stored: dict[str, Result] = {}
        self.pushed: SimpleQueue[Result] = SimpleQueue()
        self.asked: list[set[str]] = []
        self.error = ConnectionError("no")
        self.broken: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.opened = 0
        self.closed = 0

    def _check(self, method: str) -> None:
        self.gate.wait(60)
        if method in self.broken:
            raise self.error

    def open(self, app: Celery, timing: Timing) -> FakeSource:
        self.opened += 1
        self._check("open")
        return self

    def ask(self, ids: Collection[str], watched: Mapping[str, bool]) -> Iterator[list[Result]]:
        self.asked.append(set(ids))
        self._check("ask")
        yield [self.stored[celery_id] for celery_id in ids if celery_id in self.stored]

    def receive(self, watched: Mapping[str, bool], timeout: float, stopping: threading.Event) -> list[Result]:
        self._check("receive")
        try:
            return [self.pushed.get(timeout=timeout)]
        except Empty:
            return []

    def close(self) -> None:
        self.closed += 1
        raise OSError("was broken anyway")


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def app() -> Celery:
    return Celery("t", broker="memory://", backend="redis://user:secret@nowhere:1/0?password=hidden")


@pytest.fixture
def start(app: Celery) -> Iterator[Callable[..., ResultWatcher]]:
    with ExitStack() as stack:

        def make(source: FakeSource, timing: Timing = QUICK, **more: object) -> ResultWatcher:
            watcher = ResultWatcher(app, timing, open_source=source.open, **more)  # type: ignore[arg-type]
            stack.callback(watcher.stop)
            stack.callback(source.gate.set)
            watcher.start()
            return watcher

        yield make


def collect(watcher: ResultWatcher, count: int) -> list[Result]:
    """Drain until so many results have come."""
    results: list[Result] = []
    wait_until(lambda: results.extend(watcher.drain()) or len(results) >= count)
    return results


def asked_again(source: FakeSource, times: int = 3) -> None:
    """Wait until the thread has asked some more."""
    target = len(source.asked) + times
    wait_until(lambda: len(source.asked) >= target)


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_a_result_is_reported_once_and_the_id_forgotten(source, start):
    watcher = start(source)
    watcher.watch("x")
    source.stored["x"] = STARTED
    assert collect(watcher, 1) == [STARTED]
    asked_again(source)
    assert watcher.drain() == []
    source.stored["x"] = SUCCESS
    assert collect(watcher, 1) == [SUCCESS]
    asked_again(source)
    assert watcher.drain() == []
    assert source.asked[-1] == set()


def test_a_pushed_result_is_reported_once_and_only_of_watched_ids(start):
    source = FakeSource(interval=3600)
    watcher = start(source, RARELY)
    watcher.watch("x")
    watcher.watch("y")
    for result in (Result("unknown", "SUCCESS"), STARTED, STARTED, SUCCESS, SUCCESS, Result("y", "FAILURE")):
        source.pushed.put(result)
    assert collect(watcher, 3) == [STARTED, SUCCESS, Result("y", "FAILURE")]


def test_a_result_from_before_the_watch_is_found_at_once(start):
    """A fast worker, or adoption: long before everything is asked for again."""
    source = FakeSource(interval=3600)
    source.stored["x"] = SUCCESS
    watcher = start(source, RARELY)
    wait_until(lambda: source.asked)  # the first question, for everything
    watcher.watch("x")
    assert collect(watcher, 1) == [SUCCESS]
    assert source.asked == [set(), {"x"}]


def test_new_ids_are_asked_for_together_and_once(start):
    source = FakeSource(interval=3600)
    source.gate.clear()
    watcher = start(source, RARELY)
    source.gate.set()
    wait_until(lambda: source.asked)
    source.gate.clear()
    ids = {f"id-{number}" for number in range(100)}
    for celery_id in ids:
        watcher.watch(celery_id)
    source.gate.set()
    wait_until(lambda: set().union(*source.asked) == ids)
    source.pushed.put(Result("id-1", "SUCCESS"))
    collect(watcher, 1)
    asked = [celery_id for question in source.asked for celery_id in question]
    assert sorted(asked) == sorted(ids)


def test_a_forgotten_id_is_neither_asked_for_nor_reported(source, start):
    watcher = start(source)
    watcher.watch("x")
    watcher.watch("y")
    wait_until(lambda: {"x", "y"} in source.asked)
    watcher.forget("x")
    watcher.forget("never watched")
    source.stored["x"] = SUCCESS
    asked_again(source)
    assert source.asked[-1] == {"y"}
    assert watcher.drain() == []


def test_what_is_told_only_once_waits_for_its_watch(start):
    source = FakeSource(interval=3600)
    source.once = True
    watcher = start(source, RARELY)
    for result in (STARTED, SUCCESS, Result("y", "FAILURE")):
        source.pushed.put(result)
    watcher.watch("y")
    assert collect(watcher, 1) == [Result("y", "FAILURE")]
    watcher.watch("x")
    assert watcher.drain() == [SUCCESS]


def test_what_nobody_ever_waits_for_is_bounded(monkeypatch):
    monkeypatch.setattr(result_watcher, "_MAX_EARLY", 2)
    watchlist = Watchlist()
    watchlist.deliver([Result(name, "SUCCESS") for name in "abc"], once=True)
    for name in "abc":
        watchlist.add(name)
    assert [result.celery_id for result in watchlist.drain()] == ["b", "c"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"open"}, {"open"}),
        ({"ask"}, {"ask"}),
        (set(), {"ask"}),
        (set(), {"receive", "open"}),
    ],
    ids=["never there", "never answers", "stops to answer", "connection is lost"],
)
def test_an_outage_is_logged_once_and_so_is_its_end(before, after, source, start, caplog):
    """A task that finished meanwhile is found when it is over."""
    caplog.set_level(logging.INFO, result_watcher.__name__)
    source.broken = before
    watcher = start(source)
    watcher.watch("x")
    wait_until(lambda: source.asked or watcher.problem)
    source.broken = after
    wait_until(lambda: source.opened >= 5)
    assert "ConnectionError: no" in (watcher.problem or "")
    source.stored["x"] = SUCCESS
    source.broken = set()
    assert collect(watcher, 1) == [SUCCESS]
    wait_until(lambda: watcher.problem is None)
    assert len(messages(caplog, logging.WARNING)) == 1
    assert "is back after" in messages(caplog, logging.INFO)[0]
    assert len(messages(caplog, logging.INFO)) == 1


def test_passwords_appear_nowhere(source, start, caplog):
    caplog.set_level(logging.DEBUG)
    source.error = ConnectionError("cannot reach redis://user:secret@nowhere:1/0 now")
    source.broken = {"open"}
    watcher = start(source)
    problem = wait_until(lambda: watcher.problem)
    source.broken = set()
    wait_until(lambda: watcher.problem is None)
    for text in (problem, caplog.text):
        assert "redis://***@nowhere:1" in text
        assert "secret" not in text
        assert "hidden" not in text


def test_the_problem_says_how_long(source, start):
    now = [100.0]
    source.broken = {"open"}
    watcher = start(source, clock=lambda: now[0])
    wait_until(lambda: watcher.problem)
    now[0] += 12
    opened = source.opened
    wait_until(lambda: source.opened >= opened + 3)  # each of which fails anew
    assert "for 12 s: ConnectionError: no" in (watcher.problem or "")


def test_a_source_that_hangs_is_a_problem_and_does_not_hold_stop_up(source, start):
    now = [100.0]
    source.gate.clear()
    watcher = start(source, clock=lambda: now[0])
    assert watcher.problem is None
    now[0] += QUICK.stuck
    assert (watcher.problem or "").endswith("has not answered for 30 s.")
    watcher.watch("x")
    assert watcher.drain() == []
    watcher.stop(timeout=0)
    assert watcher.problem is None


def test_a_source_that_comes_back_from_a_hang_is_no_problem(source, start):
    now = [100.0]
    source.gate.clear()
    watcher = start(source, clock=lambda: now[0])
    now[0] += QUICK.stuck
    assert watcher.problem
    source.gate.set()
    wait_until(lambda: watcher.problem is None)


def test_stop_ends_the_thread_and_closes_the_source(source, start):
    watcher = start(source)
    wait_until(lambda: source.asked)
    watcher.stop(timeout=60)
    assert source.closed == source.opened == 1
    assert "dispatch-celery-results" not in {thread.name for thread in threading.enumerate()}


def test_a_stop_during_an_outage_does_not_wait_for_its_end(source, start):
    source.broken = {"open"}
    watcher = start(source, Timing(min_backoff=3600, max_backoff=3600))
    wait_until(lambda: watcher.problem)
    watcher.stop(timeout=60)
    assert "dispatch-celery-results" not in {thread.name for thread in threading.enumerate()}


def test_a_note_of_the_source_is_logged_once(source, start, caplog):
    source.note = "It could be better."
    start(source)
    wait_until(lambda: source.asked)
    source.broken = {"receive"}
    wait_until(lambda: source.opened >= 3)
    source.broken = set()
    asked_again(source)
    assert messages(caplog, logging.WARNING).count(source.note) == 1


def test_the_thread_asks_for_at_most_a_fifth_of_the_time(app):
    """On a clock that moves only while the backend is asked, or waited for."""
    now, asking = [0.0], [0.0]

    class Slow(FakeSource):
        def ask(self, ids, watched):
            now[0] += 2.0
            asking[0] += 2.0
            return super().ask(ids, watched)

        def receive(self, watched, timeout, stopping):
            now[0] += timeout
            watcher.watch(f"another at {now[0]}")
            if now[0] > 1000:
                stopping.set()
            return []

    watcher = ResultWatcher(app, Timing(), clock=lambda: now[0])
    watcher._attend(Slow(interval=1.0))
    assert 0.15 * now[0] < asking[0] <= 0.2 * now[0] + 2


def test_everything_is_asked_for_again_when_it_is_due_and_not_before(app):
    now = [0.0]

    class Silent(FakeSource):
        def receive(self, watched, timeout, stopping):
            now[0] += timeout
            if now[0] > 200:
                stopping.set()
            return []

    watcher = ResultWatcher(app, Timing(), clock=lambda: now[0])
    watcher.watch("x")
    source = Silent(interval=60.0)
    watcher._attend(source)
    assert source.asked == [{"x"}] * 4


def test_the_back_off_grows_with_chance_between_its_bounds():
    for failures, shortest, longest in [(1, 0.5, 1), (2, 1, 2), (3, 2, 4), (7, 15, 30), (10_000, 15, 30)]:
        delays = [backoff(failures, Timing()) for _ in range(200)]
        assert shortest <= min(delays) < max(delays) <= longest


@pytest.mark.parametrize(("age", "failures"), [(1.0, 3), (30.0, 0)])
def test_the_back_off_starts_anew_only_after_the_backend_has_lasted(age, failures, app, source):
    watcher = ResultWatcher(app)
    watcher._failures = 3
    watcher._succeed(source, age)
    assert watcher._failures == failures


@pytest.mark.parametrize("backend", [None, "disabled://", "no-such-thing://x", "no.such.module:Class"])
def test_a_backend_that_can_give_no_results_is_refused_at_start(backend):
    watcher = ResultWatcher(Celery("t", broker="memory://", backend=backend))
    with pytest.raises(ResultBackendError, match=r"\[celery\] result_backend"):
        watcher.start()
    watcher.stop()


def test_only_results_in_messages_have_a_reply_queue(source, start):
    watcher = start(source)
    assert (watcher.reply_to, watcher.reply_queue) == (None, None)


def test_the_reply_queue_is_known_while_the_broker_is_away(source):
    source.broken = {"open"}
    app = Celery("t", broker="memory://", backend="rpc://")
    watcher = ResultWatcher(app, QUICK, open_source=source.open)
    watcher.start()
    assert watcher.reply_to == watcher.reply_queue.name
    assert watcher.reply_to != app.thread_oid  # which is the test's thread's
    watcher.stop()


def test_many_threads_lose_nothing():
    """Each id yields its two results, however watch, deliver and drain meet."""
    watchlist = Watchlist()
    results: list[Result] = []
    ids = [[f"{thread}-{number}" for number in range(500)] for thread in range(4)]

    def work(own: list[str]) -> None:
        for celery_id in own:
            watchlist.add(celery_id)
            watchlist.deliver(
                [Result(celery_id, state) for state in ("STARTED", "STARTED", "SUCCESS", "FAILURE")]
            )

    threads = [threading.Thread(target=work, args=[own]) for own in ids]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        results += watchlist.drain()
        watchlist.take_new()
    results += watchlist.drain()
    expected = [(celery_id, state) for own in ids for celery_id in own for state in ("STARTED", "SUCCESS")]
    assert sorted((result.celery_id, result.state) for result in results) == sorted(expected)
    assert not watchlist.watched
