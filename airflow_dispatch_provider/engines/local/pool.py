# SPDX-License-Identifier: Apache-2.0
"""The executor's side: hands workloads to a template process, watches them, replaces a dead template."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import psutil

from airflow_dispatch_provider.engines.local import processes
from airflow_dispatch_provider.engines.local.launch import Link, Mode, launch
from airflow_dispatch_provider.engines.local.messages import (
    Began,
    DagFile,
    Ended,
    Gone,
    Kill,
    NotStarted,
    Ready,
    Run,
    Slots,
    Started,
    Withdraw,
    Work,
)
from airflow_dispatch_provider.engines.local.messages import Event as News
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.routing.circuit import growing_delay

__all__ = ["Event", "Gone", "Launcher", "NotStarted", "Pool"]

log = logging.getLogger(__name__)

MAX_DELAY = 60.0
"""Longest pause before another template process is started; living this long also clears the count."""

HUNG_AFTER = 60.0
"""Seconds for which a template process may say nothing while something is expected of it: that it is ready, or has
started a workload. After that the executor takes no more work."""

KILLED_AFTER = 300.0
"""Seconds of such silence after which it is killed, and another one started."""

_NOT_HANDED = object()
_STOP_TIMEOUT = 2.0
_TERMINATE_GRACE = 1.0


Event = Started | Ended | NotStarted | Gone
"""News without beginnings."""


class Launcher(Protocol):
    """Starts a template process, as ``launch.launch`` does."""

    def __call__(self, mode: Mode, work: Work) -> Link: ...


class Processes(Protocol):
    """The processes of a machine: the module ``processes``."""

    Watchlist: type[processes.Watchlist]
    KillList: type[processes.KillList]

    def find(self, pid: int, created: float) -> psutil.Process | None: ...

    def runs_task(self, pid: int) -> bool: ...

    def survivors(self, leader: int) -> list[psutil.Process]: ...

    def kill_trees(self, roots: Iterable[psutil.Process]) -> None: ...


def restart_delay(deaths: int) -> float:
    """Seconds to wait after so many failures in a row: none after the first, then 1, 2, 4 ... ``MAX_DELAY``."""
    return 0.0 if deaths <= 1 else growing_delay(deaths - 2, 1.0, MAX_DELAY)


class Pool:
    """The live workloads of one executor, by number. No method waits, unless its docstring says so."""

    def __init__(
        self,
        work: Work,
        mode: Mode,
        clock: Callable[[], float] = time.monotonic,
        launcher: Launcher = launch,
        machine: Processes = processes,
    ) -> None:
        self._work = work
        self._clock = clock
        self._launcher, self._machine = launcher, machine
        self._handed: dict[int, Started | None] = {}
        self._watched = machine.Watchlist()
        self._orphans: dict[int, Started | None] = {}
        """Handed to a template process that has ended, and not looked up since."""

        self._news: list[News] = []
        """Not given yet."""

        self._slots: int | None = None
        """As many processes as the template process was told that there may be."""

        self._asked_back: set[int] = set()
        """Not started yet, and to be withdrawn or ended: the template process has to answer, even if it is full."""

        self._told: dict[int, Kill] = {}
        """Those that the template process was sent, and whose processes have not ended yet."""

        self._kills = machine.KillList(clock)
        self._unreaped: list[Link] = []
        self._deaths = 0
        self._refusals = Backoff(max_delay=MAX_DELAY)
        self._refusal = ""
        self._heard_at = clock()
        self._ready = False
        self._closing = False
        self._next_start = 0.0
        self._last_death = ""
        self._link: Link | None = None
        self._start(mode)

    @property
    def live(self) -> int:
        """How many process trees live or are about to."""
        return len(self._handed) + len(self._orphans) + len(self._watched)

    @property
    def started(self) -> int:
        """How many of these have started."""
        return self.live - self._unstarted

    @property
    def _unstarted(self) -> int:
        return sum(started is None for started in self._handed.values())

    @property
    def ready(self) -> bool:
        """Whether a workload handed over now would start at once."""
        return self._ready and self._refusals.due(self._clock())

    @property
    def trouble(self) -> str | None:
        """Why nothing can be started at the moment, in a sentence; None: it can, or a first template process has begun
        to start."""
        now = self._clock()
        if self._link is None:
            return f"{self._last_death} Another one starts {restart_delay(self._deaths):.0f} s after that."
        if self._silence(now) >= HUNG_AFTER:
            return f"The template process {self._link.pid} has said nothing for {HUNG_AFTER:.0f} s."
        if not self._refusals.due(now):
            return f"The template process {self._link.pid} could start no process: {self._refusal}"
        return self._last_death if self._deaths and not self._ready else None

    def _silence(self, now: float) -> float:
        """Seconds for which something has been expected of the template process, and nothing has come."""
        owes = bool(self._asked_back) or self._owes_a_start()
        expected = self._link is not None and (not self._ready or owes)
        return now - self._heard_at if expected else 0.0

    def _owes_a_start(self) -> bool:
        """Whether the template process has a workload that it could start."""
        waiting = self._unstarted
        return waiting > 0 and (self._slots is None or len(self._handed) - waiting < self._slots)

    @property
    def template_pid(self) -> int | None:
        """The template process, if there is one."""
        return self._link.pid if self._link else None

    def pid(self, number: int) -> int | None:
        """The process that supervises this workload, once it has started."""
        if number in self._watched:
            return self._watched.pid(number)
        started = self._handed.get(number)
        return started.pid if started else None

    def run(
        self,
        number: int,
        name: str,
        workload: bytes,
        rank: tuple[int, int] = (0, 0),
        file: DagFile | None = None,
    ) -> None:
        """Hand a pickled workload over. Only while ``ready``."""
        assert self._link is not None
        self._expect_more()
        self._handed[number] = None
        self._link.channel.send(Run(number, name, workload, rank, file))

    def limit(self, slots: int) -> None:
        """Have at most so many processes; what was handed over besides starts when others end."""
        left = max(0, slots - len(self._watched) - len(self._orphans))
        if self._link is not None and left != self._slots:
            self._expect_more()
            self._slots = left
            self._link.channel.send(Slots(left))

    def _expect_more(self) -> None:
        """The time for an answer to what is asked now counts from now."""
        now = self._clock()
        if not self._silence(now):
            self._heard_at = now

    def withdraw(self, number: int) -> None:
        """Report ``NotStarted``, unless it has started by now."""
        if self._link is not None and self._handed.get(number, _NOT_HANDED) is None:
            self._expect_more()
            self._asked_back.add(number)
            self._link.channel.send(Withdraw(number))

    def watch(self, number: int, process: psutil.Process) -> None:
        """Report ``Gone`` when this process, which is not ours to wait for, has ended."""
        self._watched.add(number, process)

    def is_watched(self, number: int) -> bool:
        """Whether its process has no template process any more, or never was one of ours."""
        return number in self._watched

    def runs_task(self, number: int) -> bool:
        """Of one that is watched."""
        return self._machine.runs_task(self._watched.pid(number))

    def kill(self, kill: Kill) -> None:
        """SIGTERM to the tree, SIGKILL after its grace; its end is reported as any other."""
        number = kill.number
        if number in self._watched:
            if not (kill.unless_begun and self.runs_task(number)):
                self._kills.add(self._watched.pid(number), kill.grace)
        elif number in self._handed and self._link:
            if self._handed[number] is None:
                self._expect_more()
                self._asked_back.add(number)
            self._told[number] = kill
            self._link.channel.send(kill)

    def poll(self) -> list[Event]:
        """Events since the last call, of either method."""
        return [event for event in self.news() if not isinstance(event, Began)]

    def news(self) -> list[News]:
        """Events since the last call. Where it raises, those that it knew by then are given by the next one."""
        events = self._news
        events += self._read() if self._link else []
        if self._link and self._silence(self._clock()) >= KILLED_AFTER:
            log.error("The template process %s is killed: it says nothing.", self._link.pid)
            self._link.kill()
        if self._link and (self._link.channel.closed or self._link.ended()):
            events += self._read()
            self._lose(self._link)
        elif self._link is None and not self._closing and self._clock() >= self._next_start:
            self._start("exec")  # by now this process may have threads
        self._unreaped = [link for link in self._unreaped if not link.ended()]
        self._take_orphans()
        self._check_watched()
        self._kills.tick()
        self._news = []
        return events

    def wait(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for something to happen. Orphans end unnoticed."""
        if self._link:
            self._link.channel.wait(timeout)
        else:
            time.sleep(timeout)

    def _start(self, mode: Mode) -> None:
        self._started_at = self._heard_at = self._clock()
        self._slots = None
        try:
            self._link = self._launcher(mode, self._work)
        except OSError as error:
            self._last_death = f"No template process could be started: {error}."
            self._count_death()
            log.error("No template process could be started: %s", error)

    def _count_death(self) -> float:
        lived = self._clock() - self._started_at
        self._deaths = 1 if lived >= MAX_DELAY else self._deaths + 1
        delay = restart_delay(self._deaths)
        self._next_start = self._clock() + delay
        return delay

    def _read(self) -> list[News]:
        assert self._link is not None
        self._link.channel.flush()
        messages = self._link.channel.receive()
        if messages:
            self._heard_at = self._clock()
        return [event for message in messages for event in self._note(message)]

    def _note(self, message: Any) -> list[News]:
        if isinstance(message, Ready):
            self._ready = True
            if self._deaths:
                log.info("A new template process is ready: %s", self.template_pid)
            return []
        self._asked_back.discard(message.number)
        if isinstance(message, Started):
            self._handed[message.number] = message
            self._refusals = replace(self._refusals, failures=0)
        elif isinstance(message, Ended):
            self._told.pop(message.number, None)
            if self._handed.pop(message.number, None) is None:
                self._refuse(message.error)
                return [NotStarted(message.number, message.error)]
        elif isinstance(message, NotStarted):
            self._told.pop(message.number, None)
            self._handed.pop(message.number, None)
        return [message]

    def _refuse(self, error: str) -> None:
        """The template process lives and could not fork: for a while it is asked for no more."""
        now = self._clock()
        if not self._refusals.due(now):
            return
        self._refusals, self._refusal = self._refusals.failed(now), error
        log.warning("A workload could not be started, it waits: %s", error)

    def _lose(self, link: Link) -> None:
        link.kill()
        link.channel.close()
        self._unreaped.append(link)
        self._link, self._ready = None, False
        handed, self._handed = self._handed, {}
        self._asked_back.clear()
        self._last_death = f"The template process has ended (status {link.status})."
        delay = self._count_death()
        if not self._closing:
            log.error(
                "The template process %s has ended (status %s). Its %d running workloads go on and are watched, "
                "%d had not been started; the next template process starts in %.0f s",
                link.pid,
                link.status,
                sum(started is not None for started in handed.values()),
                sum(started is None for started in handed.values()),
                delay,
            )
        self._orphans.update(handed)

    def _take_orphans(self) -> None:
        """Each by itself: what cannot be looked up now, for want of descriptors, say, is looked up later."""
        for number, started in list(self._orphans.items()):
            self._news += self._orphan(number, started)
            del self._orphans[number]

    def _orphan(self, number: int, started: Started | None) -> list[News]:
        process = self._machine.find(started.pid, started.created) if started else None
        kill = self._told.pop(number, None)
        if started is None:
            return [NotStarted(number, self._last_death)]
        if process is None:
            self._forget_ended(started.pid)
            return [Gone(number)]
        self.watch(number, process)
        if kill is not None:
            self.kill(kill)
        return []

    def _check_watched(self) -> None:
        ended = self._watched.take_ended()
        self._news += [Gone(number) for number, _ in ended]
        for _, pid in ended:
            self._forget_ended(pid)

    def _forget_ended(self, pid: int) -> None:
        """A process that lost its supervisor unseen is not left alone; one that is condemned has its grace."""
        if pid not in self._kills:
            self._machine.kill_trees(self._machine.survivors(pid))

    def close(self) -> None:
        """Start no other template process; this one goes on until ``stop``."""
        self._closing = True

    def stop(self) -> None:
        """Let the template process end: after what runs, or at once; only for that it waits, up to two seconds."""
        self.close()
        self._watched.clear()
        link, self._link, self._ready = self._link, None, False
        if link is None:
            return
        link.channel.close()
        deadline = time.monotonic() + _STOP_TIMEOUT
        while not self._handed and not link.ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._handed:
            link.kill()

    def terminate(self) -> None:
        """End every tree and the template process. Waits up to a second for them to end by themselves."""
        self.close()
        ending = [member for process in self._watched for member in processes.tree(process.pid)]
        link, self._link, self._ready = self._link, None, False
        if link:
            ending += self._children_of(link)
        processes.end_quickly(ending, _TERMINATE_GRACE)
        if link:
            link.kill()
            link.channel.close()
            self._unreaped.append(link)
        self._handed.clear()
        self._orphans.clear()
        self._watched.clear()

    def _children_of(self, link: Link) -> list[psutil.Process]:
        """Everything below the template process, which is stopped first so that nothing is added."""
        with suppress(ProcessLookupError, psutil.Error):
            if not link.ended():
                os.kill(link.pid, signal.SIGSTOP)
                children = psutil.Process(link.pid).children()
                return [member for child in children for member in processes.tree(child.pid)]
        return []
