# SPDX-License-Identifier: Apache-2.0
"""The executor's side of the channel, with a template process that the test plays itself."""

from __future__ import annotations

import logging
import socket
import subprocess
from dataclasses import dataclass, field

import psutil
import pytest

from airflow_dispatch_provider.engines.local import processes
from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import (
    Ended,
    Kill,
    Ready,
    Run,
    Slots,
    Started,
    Withdraw,
    Work,
)
from airflow_dispatch_provider.engines.local.pool import HUNG_AFTER, KILLED_AFTER, Gone, NotStarted, Pool

WORK = Work(print, None, (), str, "title")


class FakeLink:
    def __init__(self, pid):
        ours, theirs = socket.socketpair()
        self.pid, self.channel, self.far = pid, Channel(ours), Channel(theirs)
        self.status = None

    def ended(self):
        return self.status is not None

    def kill(self):
        self.status = self.status or -9


@dataclass
class Stage:
    """Fake clock and fake launcher."""

    now: float = 1000.0
    modes: list[str] = field(default_factory=list)
    links: list[FakeLink] = field(default_factory=list)
    refuse: bool = False

    def launch(self, mode, work):
        self.modes.append(mode)
        if self.refuse:
            raise OSError("no more processes")
        self.links.append(FakeLink(4000 + len(self.links)))
        return self.links[-1]

    def pool(self):
        return Pool(WORK, "fork", clock=lambda: self.now, launcher=self.launch)

    @property
    def template(self):
        return self.links[-1].far


@pytest.fixture
def stage():
    return Stage()


def ready_pool(stage):
    pool = stage.pool()
    stage.template.send(Ready())
    pool.poll()
    return pool


def full_pool(stage):
    """One slot, which a workload has; another one is ahead."""
    pool = ready_pool(stage)
    pool.limit(1)
    pool.run(1, "a", b"")
    pool.run(2, "b", b"")
    stage.template.send(Started(1, 123, 5.0))
    pool.poll()
    return pool


def test_it_is_ready_when_the_template_says_so(stage):
    """Not before: what is handed over early could not be taken back."""
    pool = stage.pool()
    assert not pool.ready
    stage.template.send(Ready())
    assert pool.poll() == []
    assert pool.ready


def test_run_and_kill_reach_the_template(stage):
    """Both carry the number of the hand-over."""
    pool = ready_pool(stage)
    pool.run(7, "name", b"work")
    pool.kill(Kill(7, 5.0))
    assert stage.template.receive() == [Run(7, "name", b"work"), Kill(7, 5.0)]


@pytest.mark.parametrize("runs", [False, True])
def test_what_began_after_it_was_to_be_ended_is_spared(stage, monkeypatch, runs):
    """Also where the template process has died before it could say so."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        monkeypatch.setattr(processes, "runs_task", lambda pid: runs)
        pool = ready_pool(stage)
        pool.run(1, "a", b"")
        stage.template.send(Started(1, child.pid, psutil.Process(child.pid).create_time()))
        pool.poll()
        pool.kill(Kill(1, 0.0, unless_begun=True))
        stage.links[-1].kill()
        pool.poll()
        if not runs:
            child.wait(10)
        assert (child.poll() is None) is runs
    finally:
        child.kill()
        child.wait()


def test_the_template_knows_the_slots_that_it_may_fill(stage, monkeypatch):
    """It is told once of each change; processes that are watched from here take theirs."""
    pool = ready_pool(stage)
    monkeypatch.setattr(pool._watched, "take_ended", list)
    pool.limit(3)
    pool.limit(3)
    pool.watch(9, psutil.Process())
    pool.limit(3)
    assert stage.template.receive() == [Slots(3), Slots(2)]


def test_only_what_has_not_started_is_withdrawn(stage):
    """The template says so; one that has started by then goes on."""
    pool = ready_pool(stage)
    pool.run(1, "a", b"")
    pool.run(2, "b", b"")
    stage.template.send(Started(1, 123, 5.0))
    pool.poll()
    for number in (1, 2, 7):
        pool.withdraw(number)
    assert stage.template.receive()[2:] == [Withdraw(2)]
    stage.template.send(NotStarted(2))
    assert pool.poll() == [NotStarted(2)]
    assert (pool.live, pool.ready) == (1, True)


def test_what_waits_for_a_slot_is_not_missed(stage):
    """A template that has nothing to do until a process ends may be silent; then its time counts from that end."""
    pool = full_pool(stage)
    stage.now += KILLED_AFTER
    pool.poll()
    assert pool.trouble is None
    stage.template.send(Ended(1, 0))
    pool.poll()
    stage.now += HUNG_AFTER - 1
    assert pool.trouble is None
    stage.now += 1
    assert "has said nothing" in pool.trouble


@pytest.mark.parametrize("ask", [lambda pool: pool.withdraw(2), lambda pool: pool.kill(Kill(2, 0.0))])
def test_a_full_template_that_does_not_give_back_is_replaced(stage, ask):
    """It has to answer, though it has no slot to fill."""
    pool = full_pool(stage)
    stage.now += KILLED_AFTER
    ask(pool)
    assert pool.trouble is None
    stage.now += HUNG_AFTER
    assert "has said nothing" in pool.trouble
    stage.template.send(NotStarted(2))
    pool.poll()
    assert pool.trouble is None


def test_more_slots_are_no_reason_to_be_missed_at_once(stage):
    """The template has the usual time to fill them."""
    pool = ready_pool(stage)
    pool.limit(0)
    pool.run(1, "a", b"")
    stage.now += KILLED_AFTER
    pool.limit(1)
    assert pool.trouble is None
    stage.now += HUNG_AFTER
    assert "has said nothing" in pool.trouble


def test_events_pass_and_ends_free_their_place(stage):
    """A workload counts as live until its end is reported."""
    pool = ready_pool(stage)
    pool.run(1, "a", b"")
    stage.template.send(Started(1, 123, 5.0))
    assert pool.poll() == [Started(1, 123, 5.0)]
    assert (pool.live, pool.pid(1)) == (1, 123)
    stage.template.send(Ended(1, 0))
    assert pool.poll() == [Ended(1, 0)]
    assert (pool.live, pool.pid(1)) == (0, None)


def test_an_end_without_a_start_is_no_run(stage):
    """When no process can be forked, nothing has run."""
    pool = ready_pool(stage)
    pool.run(1, "a", b"")
    stage.template.send(Ended(1, 1, "no process could be started"))
    assert pool.poll() == [NotStarted(1)]


def test_the_last_words_of_a_template_count(stage):
    """A start or an end that was sent before the template died is no loss."""
    pool = ready_pool(stage)
    for number in (1, 2, 3):
        pool.run(number, "a", b"")
    stage.template.send(Started(1, 2**22 + 1, 5.0))
    stage.template.send(Ended(1, 0))
    stage.template.send(Started(2, 2**22 + 1, 5.0))
    stage.template.close()
    events = pool.poll()
    assert [e for e in events if not isinstance(e, Started)] == [Ended(1, 0), Gone(2), NotStarted(3)]


def test_words_that_arrive_while_the_death_is_noticed_count(stage, monkeypatch):
    """Between the last look at the channel and the exit status there is time for one more message."""
    pool = ready_pool(stage)
    pool.run(1, "a", b"")
    stage.template.send(Started(1, 2**22 + 1, 5.0))

    def die_after_a_last_message():
        stage.template.send(Ended(1, 0))
        stage.links[-1].status = -9
        return True

    monkeypatch.setattr(stage.links[-1], "ended", die_after_a_last_message)
    assert Ended(1, 0) in pool.poll()


def test_a_dead_template_is_replaced_with_growing_pauses(stage):
    """At once, then after 1 s, then after 2 s; always as a fresh interpreter."""
    pool = stage.pool()
    for pause in (0, 1, 2):
        stage.template.close()
        pool.poll()
        launched = len(stage.links)
        if pause:
            stage.now += pause - 0.1
            pool.poll()
            assert len(stage.links) == launched
            stage.now += 0.1
        pool.poll()
        assert len(stage.links) == launched + 1
    assert stage.modes == ["fork", "exec", "exec", "exec"]


def test_a_long_life_clears_the_count_of_deaths(stage):
    """A template that dies once a day is replaced at once every time."""
    pool = stage.pool()
    for _ in range(3):
        stage.now += 3600
        stage.template.close()
        pool.poll()
        launched = len(stage.links)
        pool.poll()
        assert len(stage.links) == launched + 1


def test_a_template_that_cannot_be_started_is_tried_again(stage):
    """Without memory or processes the executor lives on, and tries later."""
    stage.refuse = True
    pool = stage.pool()
    assert pool.template_pid is None
    stage.refuse = False
    pool.poll()
    assert pool.template_pid is not None


def test_loss_and_recovery_are_logged_once_each(stage, caplog):
    """One line per change of state, whatever number of heartbeats."""
    caplog.set_level(logging.INFO)
    pool = ready_pool(stage)
    stage.template.close()
    for _ in range(5):
        pool.poll()
    stage.template.send(Ready())
    for _ in range(5):
        pool.poll()
    messages = [record.getMessage() for record in caplog.records]
    assert [("has ended" in m, "is ready" in m) for m in messages] == [(True, False), (False, True)]


def test_a_closing_pool_starts_no_other_template(stage):
    """While the executor ends, a lost template process is not replaced."""
    pool = stage.pool()
    pool.close()
    stage.template.close()
    stage.now += 1000
    pool.poll()
    pool.poll()
    assert len(stage.links) == 1


def test_a_template_that_keeps_dying_is_trouble_until_one_is_ready(stage):
    """Work that it is given then would only wait: it is better sent elsewhere."""
    pool = stage.pool()
    assert pool.trouble is None
    for _ in range(3):
        stage.links[-1].status = -11
        pool.poll()
        assert "status -11" in pool.trouble
        stage.now += 60
        pool.poll()
        assert "status -11" in pool.trouble  # another one starts, and may die as well
    stage.template.send(Ready())
    pool.poll()
    assert pool.trouble is None


def test_a_template_that_cannot_be_started_is_trouble(stage):
    """With the answer of the operating system."""
    stage.refuse = True
    pool = stage.pool()
    assert "no more processes" in pool.trouble


@pytest.mark.parametrize("handed", [False, True])
def test_a_silent_template_is_trouble_and_is_replaced(stage, handed):
    """Whether it never becomes ready, or does not start what it was given."""
    pool = ready_pool(stage) if handed else stage.pool()
    if handed:
        stage.now += 3600  # idle: nothing was expected of it
        pool.run(1, "a", b"")
    assert pool.trouble is None
    stage.now += HUNG_AFTER
    assert "has said nothing" in pool.trouble
    assert pool.poll() == []
    stage.now += KILLED_AFTER - HUNG_AFTER
    assert pool.poll() == ([NotStarted(1)] if handed else [])
    assert stage.links[0].status == -9
    pool.poll()
    assert len(stage.links) == 2


def test_an_idle_template_is_no_trouble(stage):
    """Nothing is expected of it, nor of one whose workloads run."""
    pool = ready_pool(stage)
    stage.now += 3600
    assert pool.trouble is None
    pool.run(1, "a", b"")
    stage.template.send(Started(1, 123, 5.0))
    pool.poll()
    stage.now += 3600
    assert pool.trouble is None


def test_what_cannot_be_forked_is_tried_again_after_growing_pauses(stage):
    """Not at every heartbeat; a process that starts ends the pauses."""
    pool = ready_pool(stage)
    for number, pause in enumerate((1, 2, 4)):
        for twice in (10 * number, 10 * number + 1):
            pool.run(twice, "a", b"")
            stage.template.send(Ended(twice, 1, "too many open files"))
        assert pool.poll() == [NotStarted(10 * number), NotStarted(10 * number + 1)]
        assert not pool.ready
        assert "too many open files" in pool.trouble
        stage.now += pause
        assert (pool.ready, pool.trouble) == (True, None)
    pool.run(99, "a", b"")
    stage.template.send(Started(99, 123, 5.0))
    pool.poll()
    pool.run(100, "a", b"")
    stage.template.send(Ended(100, 1, "again"))
    pool.poll()
    stage.now += 1
    assert pool.ready


def test_ends_are_not_lost_where_something_else_fails(stage, monkeypatch):
    """No descriptors are left for a moment, say."""
    pool = ready_pool(stage)
    pool.run(1, "a", b"")
    pool.run(2, "b", b"")
    stage.template.send(Started(1, 9_999_999, 0.0))
    stage.template.send(Ended(2, 0, None))
    pool.news()
    pool.run(3, "c", b"")
    stage.template.send(Started(3, 9_999_998, 0.0))
    stage.template.send(Ended(3, 1, None))
    stage.links[-1].kill()

    def fail(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(processes, "find", fail)
    with pytest.raises(OSError, match="Too many"):
        pool.news()
    assert pool.live == 1
    monkeypatch.undo()
    assert [type(event) for event in pool.news()] == [Started, Ended, Gone]
    assert pool.live == 0
