# SPDX-License-Identifier: Apache-2.0
"""Models of a template process and of what it forks, as the pool of a local engine meets them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from airflow_dispatch_provider.engines.local import messages
from airflow_dispatch_provider.engines.local.messages import Kill, Ready, Started
from airflow_dispatch_provider.simulation.places import Run

if TYPE_CHECKING:
    from airflow_dispatch_provider.simulation.hosts import Host, HostEngine

SIGKILLED = -9
"""The status of what SIGKILL has ended."""

_AWHILE = 1.0
"""Seconds after which a template process that hangs is looked at again."""


@dataclass(eq=False)
class Process(Run):
    """One that supervises a task."""

    is_local = True

    pid: int = 0
    number: int = 0
    """As its template process was told."""

    template: Template | None = None
    """Who waits for it, and tells its engine; None: it has died."""

    created_at: float = 0.0
    begun_at: float = 0.0


class Template:
    """One template process, and its engine's channel to it: see ``launch.Link``."""

    pending = 0

    def __init__(self, host: Host, engine: HostEngine) -> None:
        self._host, self.engine = host, engine
        self._rng = host.world.random("template", host.name, engine.number, next(engine.templates))
        self.pid, self.closed = next(host.pids), False
        self.status: int | None = None
        self._said: list[Any] = []
        self._inbox = deque[Any]()
        self._slots = inf
        self._waiting: dict[int, messages.Run] = {}
        self._after_a_while(lambda: self.tell(Ready()))

    @property
    def channel(self) -> Template:
        return self

    # The channel

    def send(self, message: Any) -> None:
        """In their order, one after the other."""
        self._inbox.append(message)
        if len(self._inbox) == 1:
            self._after_a_while(self._take)

    def _take(self) -> None:
        self._handle(self._inbox[0])
        self._inbox.popleft()
        if self._inbox:
            self._after_a_while(self._take)

    def flush(self) -> None:
        """Nothing waits."""

    def receive(self) -> list[Any]:
        if self._host.slow and self.status is None:
            return []
        said, self._said = self._said, []
        self.closed = self.closed or self.status is not None
        return said

    def close(self) -> None:
        self.closed = True

    # The process

    def ended(self) -> bool:
        return self.status is not None

    def kill(self) -> None:
        """The processes that it has forked go on."""
        if self.status is None:
            self.status = SIGKILLED
            self._host.lose(self)

    def _after_a_while(self, call: Callable[[], None]) -> None:
        self._host.world.after(self._rng.uniform(0.01, 0.5), lambda: self._do(call))

    def _do(self, call: Callable[[], None]) -> None:
        if self.status is not None:
            return
        if self._host.slow:
            self._host.world.after(_AWHILE, lambda: self._do(call))
        else:
            call()

    def _handle(self, message: Any) -> None:
        if isinstance(message, messages.Run):
            self._waiting[message.number] = message
        elif isinstance(message, messages.Slots):
            self._slots = message.number
        elif self._waiting.pop(message.number, None) is not None:
            del self.engine.given[message.number]
            self.tell(messages.NotStarted(message.number))
        elif isinstance(message, Kill):
            for process in self._host.children(self):
                if process.number == message.number and not (message.unless_begun and process.began):
                    self._host.end(process, message.grace)
        self._fill()

    def _fill(self) -> None:
        """Start what waits, as long as there are slots, and somebody hears of it."""
        while self._waiting and not (self.closed or self.engine.is_dead):
            if len(self._host.children(self)) >= self._slots:
                return
            self._start(self._waiting.pop(min(self._waiting, key=lambda number: self._waiting[number].rank)))

    def fill_later(self) -> None:
        """One that it had forked has ended."""
        self._after_a_while(self._fill)

    def _start(self, run: messages.Run) -> None:
        process = self._host.fork(self.engine.given.pop(run.number), run.number, self)
        if process is None:
            self.tell(messages.Ended(run.number, 1, "no process could be started"))
        else:
            self.tell(Started(run.number, process.pid, 0.0))

    def tell(self, message: Any) -> None:
        self._said.append(message)


class Watchlist(dict[int, Process]):
    """See ``processes.Watchlist``."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def pid(self, number: int) -> int:
        return self[number].pid

    def add(self, number: int, process: Process) -> None:
        self[number] = process

    def take_ended(self) -> list[tuple[int, int]]:
        ended = [(number, process.pid) for number, process in self.items() if process.over]
        for number, _ in ended:
            del self[number]
        return ended


class Killed(set[int]):
    """See ``processes.KillList``."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def add(self, pid: int, grace: float = 0.0) -> None:
        super().add(pid)
        for process in self._host.processes():
            if process.pid == pid:
                self._host.end(process, grace)

    def tick(self) -> None:
        """They end by themselves."""
