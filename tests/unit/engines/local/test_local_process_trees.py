# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from airflow_dispatch_provider.engines.local import processes
from tests.support import lines_executed, wait_until

SLEEP = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
]


@pytest.fixture
def child():
    started = []

    def start(command=SLEEP):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
        process.stdout.readline()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_is_found_by_pid_and_age(child):
    """The pid alone is not enough: it may have been given away."""
    pid = child().pid
    created = psutil.Process(pid).create_time()
    assert processes.find(pid, created).pid == pid
    assert processes.find(pid, created - 100) is None


@pytest.fixture(params=["with descriptors", "without"])
def watchlist(request, monkeypatch):
    """As on Linux, and as on macOS or at the limit of open files."""
    if request.param == "without":
        monkeypatch.setattr(processes, "_descriptor_of", lambda process: None)
    made = processes.Watchlist()
    yield made
    made.clear()


def watch(watchlist, number, process):
    watchlist.add(number, psutil.Process(process.pid))
    return process


def test_each_end_on_the_watchlist_is_told_once(watchlist, child):
    """The others stay on it."""
    first, second = watch(watchlist, 1, child()), watch(watchlist, 2, child())
    assert watchlist.take_ended() == []
    first.kill()
    assert wait_until(watchlist.take_ended) == [(1, first.pid)]
    assert (watchlist.take_ended(), 1 in watchlist, 2 in watchlist) == ([], False, True)
    assert watchlist.pid(2) == second.pid


def test_one_that_has_ended_before_it_is_watched_has_ended(watchlist, child):
    """Its pid may be another's by now."""
    process = child()
    known = psutil.Process(process.pid)
    process.kill()
    process.wait()
    watchlist.add(1, known)
    assert watchlist.take_ended() == [(1, known.pid)]


def test_a_watchlist_leaves_no_descriptors_behind(child):
    """Neither of what has ended nor of what it was told to forget."""
    watchlist = processes.Watchlist()
    before = len(os.listdir("/dev/fd"))
    first = watch(watchlist, 1, child())
    watch(watchlist, 2, child())
    first.kill()
    wait_until(watchlist.take_ended)
    watchlist.clear()
    assert len(watchlist) == 0
    del watchlist
    pipes = 2  # of the two children's output
    assert len(os.listdir("/dev/fd")) == before + pipes


def test_asking_for_ends_costs_nothing_for_what_lives(child):
    """A heartbeat with nothing changed looks at no process."""
    watchlist = processes.Watchlist()
    watch(watchlist, 1, child())
    before = lines_executed(watchlist.take_ended)
    for number in range(2, 6):
        watch(watchlist, number, child())
    assert lines_executed(watchlist.take_ended) == before
    watchlist.clear()


def test_a_zombie_has_ended():
    """A process of someone else's that nobody has waited for is not running."""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        inner = os.fork()
        if inner == 0:
            os._exit(0)
        os.write(write, f"{inner}\n".encode())
        signal.pause()
        os._exit(0)
    try:
        inner = int(os.read(read, 100))
        wait_until(lambda: psutil.Process(inner).status() == psutil.STATUS_ZOMBIE)
        assert processes.has_ended(psutil.Process(inner))
    finally:
        os.kill(middle, signal.SIGKILL)
        os.waitpid(middle, 0)


def test_an_orphan_that_became_our_child_is_collected():
    """Where the scheduler is process 1 of a container, it inherits the processes of a dead template."""
    for _ in range(100):  # whether it ends before, between or after two looks at it is up to the machine
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        process = psutil.Process(pid)
        while not processes.has_ended(process):
            pass
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_condemned_tree_has_its_grace(child):
    """SIGTERM at once, SIGKILL only when the time is over."""
    clock = Clock()
    kills = processes.KillList(clock)
    process = child(STUBBORN)
    kills.add(process.pid, grace=5)
    clock.now = 4.9
    kills.tick()
    assert process.poll() is None
    clock.now = 5
    kills.tick()
    assert process.wait(10) == -signal.SIGKILL
    assert len(kills) == 0


def test_who_reacts_to_sigterm_ends_at_once(child):
    """No need to wait for the grace to be over."""
    process = child()
    processes.KillList(Clock()).add(process.pid, grace=1000)
    assert process.wait(10) == -signal.SIGTERM


def test_no_grace_means_sigkill(child):
    """Nothing can be ignored then."""
    process = child(STUBBORN)
    processes.KillList(Clock()).add(process.pid, grace=0)
    assert process.wait(10) == -signal.SIGKILL


def test_a_live_leader_has_no_survivors(child):
    """A pid that is in use again says nothing about the session that once had its number."""
    code = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    leader = child([sys.executable, "-c", code])
    assert len(processes.tree(leader.pid)) == 2
    assert processes.survivors(leader.pid) == []
    leader.kill()
    leader.wait()
    (survivor,) = processes.survivors(leader.pid)
    survivor.kill()


def test_inherited_streams_are_let_go_and_their_numbers_stay_taken():
    """The other side sees the end, datagram sockets and kept ones still work, and nothing reuses the number."""
    pairs = [socket.socketpair() for _ in range(2)]
    datagrams = socket.socketpair(type=socket.SOCK_DGRAM)
    pid = os.fork()
    if pid == 0:
        processes.release_inherited_streams({pairs[1][0].fileno()})
        taken = os.fstat(pairs[0][0].fileno()).st_rdev == os.stat(os.devnull).st_rdev
        pairs[1][0].send(b"kept" if taken else b"free")
        datagrams[0].send(b"kept")
        signal.pause()
        os._exit(0)
    try:
        pairs[0][0].close()
        pairs[0][1].settimeout(10)
        pairs[1][1].settimeout(10)
        datagrams[1].settimeout(10)
        assert pairs[1][1].recv(4) == b"kept"
        assert datagrams[1].recv(4) == b"kept"
        assert pairs[0][1].recv(1) == b""
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for sock in (*pairs[0], *pairs[1], *datagrams):
            sock.close()
