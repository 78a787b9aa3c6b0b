# SPDX-License-Identifier: Apache-2.0
"""
Templates of Dag files: each has parsed one, and forks the processes that supervise its tasks.

Such a process is a fork of the template process, which talks to it over a channel, hands it one end of each task's
control socket, and holds the other end itself. It forks, and says what became of its children; it knows nothing of
slots, kills or the executor. If it ends, the template process inherits its children.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, NoReturn

import psutil

from airflow_dispatch_provider.bridge.dag_parsing import NotShareableError, ParsedAhead, parse_ahead
from airflow_dispatch_provider.engines.local import processes, worker
from airflow_dispatch_provider.engines.local._warming import Stage, Warming
from airflow_dispatch_provider.engines.local.channel import BUSY_WAIT, IDLE_WAIT, Channel
from airflow_dispatch_provider.engines.local.children import (
    drain,
    end_with,
    first_ended_child,
    leave_sigchld,
    sigchld_pipe,
)
from airflow_dispatch_provider.engines.local.messages import (
    Alive,
    Cold,
    DagFile,
    Declined,
    Probe,
    Ready,
    Reaped,
    Run,
    Started,
)

log = logging.getLogger(__name__)

PROBED_AFTER = 10.0
"""Seconds after which one that has said nothing is asked whether it lives: if it hangs, ends of its processes are not
told, and those that it was asked for do not start."""

ANSWERS_WITHIN = 30.0
"""Seconds for the answer, as long as for a parse: a fork takes milliseconds, but the machine may swap."""

OUTDATED = "a file that it was parsed from has changed"


@dataclass(frozen=True)
class Forked:
    """The processes that are forked."""

    title: str
    """Start of the process titles."""

    main: Callable[[socket.socket, Run], NoReturn]
    """Runs in each, with its end of the control socket."""


class WarmTemplate:
    """The template process's end of one."""

    def __init__(self, file: DagFile, pid: int, channel: Channel, hand: socket.socket, now: float) -> None:
        self.file = file
        self.pid = pid
        self.channel = channel
        self._hand = hand
        self._heard_at = now
        self._probed_at: float | None = None

    def fileno(self) -> int:
        return self.channel.fileno()

    def start(self, run: Run, control: socket.socket) -> None:
        """Have a process forked for it, with this end of its control socket; raises OSError if that cannot be sent."""
        socket.send_fds(self._hand, [b"c"], [control.fileno()], socket.MSG_DONTWAIT)
        self.channel.send(run)

    def hear(self, now: float) -> list[Any]:
        """All that it has said since the last time."""
        messages = self.channel.receive()
        if messages:
            self._heard_at, self._probed_at = now, None
        return messages

    def hangs(self, now: float) -> bool:
        """Whether it gave no sign of life when it was asked for one, as it is where it has said nothing lately. True
        once, and again after as long."""
        if self._probed_at is None:
            if now - self._heard_at >= PROBED_AFTER:
                self._probed_at = now
                self.channel.send(Probe())
            return False
        hangs = now - self._probed_at >= ANSWERS_WITHIN
        if hangs:
            self._probed_at = now
        return hangs

    def kill(self) -> None:
        """Processes of tasks that it has forked go on."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Have it end. Processes that it was asked for and has not told of do nothing once their sockets are closed."""
        self.channel.finish()
        self._hand.close()

    def close(self) -> None:
        """Let go of it."""
        self.channel.close()
        self._hand.close()


class WarmTemplates:
    """All that a template process has."""

    def __init__(self, most: int, clock: Callable[[], float], forked: Forked) -> None:
        self._warming = Warming(most)
        self._clock = clock
        self._forked = forked
        self._made: dict[DagFile, WarmTemplate] = {}
        self._ending: list[WarmTemplate] = []
        """They may still have to tell what became of their processes."""

    def __iter__(self) -> Iterator[WarmTemplate]:
        return iter([*self._made.values(), *self._ending])

    def ask(self, file: DagFile, let_go: Callable[[], object]) -> None:
        """A task of this file is to be started: see to it that the file is parsed, if that is worth it.

        :param let_go: called in a new template's process, to close what it has no business with
        """
        now = self._clock()
        if not self._warming.ask(file, now):
            return
        may, instead_of = self._warming.place_for(file, now)
        if isinstance(instead_of, DagFile):
            self.end(self._made[instead_of])
        if may:
            self._make(file, let_go)

    def is_new(self, file: DagFile) -> bool:
        """Whether no task of it was asked for lately."""
        return self._warming.is_new(file)

    def parses(self, file: DagFile | None) -> bool:
        """Whether the tasks of this file wait for its template."""
        return file is not None and self._warming.stage(file) is Stage.PARSING

    def _is_parsing(self, template: WarmTemplate) -> bool:
        return self.parses(template.file) and self._made.get(template.file) is template

    def of(self, file: DagFile | None) -> WarmTemplate | None:
        """From which a task of this file is to be forked."""
        ready = file is not None and self._warming.stage(file) is Stage.READY
        return self._made.get(file) if file is not None and ready else None

    def _make(self, file: DagFile, let_go: Callable[[], object]) -> None:
        ends: list[socket.socket] = []
        parent = os.getpid()
        try:
            ends += socket.socketpair()
            ends += socket.socketpair()
            pid = os.fork()
        except OSError as error:
            for each in ends:
                each.close()
            self._warming.over(file, self._clock(), cold=True)
            log.warning("Tasks of %s parse it themselves: no process could be started: %s", file, error)
            return
        ours, theirs, hand, taken = ends
        if pid == 0:
            _become_template(file, (ours, hand), (theirs, taken), self, self._forked, parent, let_go)
        theirs.close()
        taken.close()
        now = self._clock()
        self._made[file] = WarmTemplate(file, pid, Channel(ours), hand, now)
        self._warming.parsing(file, now)

    def hear(self, template: WarmTemplate) -> list[Any]:
        """Take in what it says; returned is what concerns the processes that it was asked for."""
        told = []
        for message in template.hear(self._clock()):
            if isinstance(message, Ready):
                self._warming.ready(template.file)
                log.info("Tasks of %s are forked from a process that has parsed it", template.file)
            elif isinstance(message, Cold):
                log.warning("Tasks of %s parse it themselves, because %s", template.file, message.reason)
                self._forget(template, cold=True)
            elif not isinstance(message, Alive):
                told.append(message)
        if template.channel.closed and self._made.get(template.file) is template:
            log.warning(
                "The process that had parsed %s has ended; its tasks parse it themselves", template.file
            )
            self._forget(template, cold=True)
        if template.channel.closed and template in self._ending:
            self._ending.remove(template)
            template.close()
        return told

    def end(self, template: WarmTemplate, *, cold: bool = False) -> None:
        """Let it end; it is not asked any more."""
        if self._is_parsing(template):
            with suppress(psutil.Error, OSError):  # no task is among its children
                processes.kill_trees([psutil.Process(template.pid)])
            template.kill()  # it may not come to look at its channel
        self._forget(template, cold=cold)

    def _forget(self, template: WarmTemplate, *, cold: bool) -> None:
        if self._made.get(template.file) is not template:
            return
        has_forked = self._warming.stage(template.file) is Stage.READY
        del self._made[template.file]
        self._warming.over(template.file, self._clock(), cold=cold)
        if has_forked and not template.channel.closed:
            self._ending.append(template)
            template.end()
        else:
            template.close()

    def due(self) -> list[WarmTemplate]:
        """Those that are too old, or hang; the latter are killed."""
        old = [self._made[file] for file in self._warming.due(self._clock()) if isinstance(file, DagFile)]
        for template in [each for each in old if self.parses(each.file)]:
            log.warning("Tasks of %s parse it themselves, because that takes too long", template.file)
            self.end(template, cold=True)
        return [template for template in old if template.file in self._made] + self._kill_silent()

    def _kill_silent(self) -> list[WarmTemplate]:
        """Tasks that they were asked for can be started otherwise, and those that they have started are inherited."""
        now = self._clock()
        silent = []
        for template in self:
            template.channel.flush()
            if not self._is_parsing(template) and template.hangs(now):
                log.warning("The process that has parsed %s is killed: it says nothing", template.file)
                template.kill()
                self._forget(template, cold=True)
                silent.append(template)
        return silent

    def close(self) -> None:
        """Close what belongs to this process, in a fork of it."""
        for template in self:
            template.close()


def _become_template(
    file: DagFile,
    others: tuple[socket.socket, ...],
    ends: tuple[socket.socket, socket.socket],
    siblings: WarmTemplates,
    forked: Forked,
    parent: int,
    let_go: Callable[[], object],
) -> NoReturn:
    try:
        os.setsid()
        end_with(parent)
        let_go()
        siblings.close()
        for each in others:
            each.close()
        _Forker(file, Channel(ends[0]), ends[1], forked).run()
    except BaseException:
        log.exception("The process that has parsed %s failed", file)
    finally:
        os._exit(0)


class _Forker:
    """The process that has parsed a file."""

    def __init__(self, file: DagFile, channel: Channel, hand: socket.socket, forked: Forked) -> None:
        self._file, self._forked = file, forked
        self._channel, self._hand = channel, hand
        self._runs = deque[Run]()

    def run(self) -> None:
        """Parse, and fork until the template process has closed the channel."""
        worker.set_title(f"{self._forked.title}: template of {self._file.path}")
        try:
            parsed = parse_ahead(self._file.bundle, self._file.path)
        except NotShareableError as error:
            self._channel.send(Cold(str(error)))
            return
        worker.flush_streams()
        gc.collect()
        gc.freeze()
        self._channel.send(Ready())
        pipe = sigchld_pipe()
        while not self._channel.closed:
            wait([pipe[0], self._channel.fileno()], BUSY_WAIT if self._channel.pending else IDLE_WAIT)
            drain(pipe[0])
            self._receive()
            while self._runs:
                self._fork(self._runs.popleft(), parsed, pipe)
            self._channel.flush()
            self._tell_ends()

    def _receive(self) -> None:
        for message in self._channel.receive():
            if isinstance(message, Run):
                self._runs.append(message)
            else:
                self._channel.send(Alive())

    def _tell_ends(self) -> None:
        """An end is told before it is forgotten: if this process is killed in between, the template process inherits
        the ended child, and sees for itself."""
        while not self._channel.pending and (ended := first_ended_child()):
            self._channel.send(Reaped(*ended))
            if not self._channel.pending:  # else it is told once more
                os.waitpid(ended[0], 0)

    def _fork(self, run: Run, parsed: ParsedAhead, pipe: tuple[int, int]) -> None:
        _, (descriptor, *_), _, _ = socket.recv_fds(self._hand, 1, 1)
        with socket.socket(fileno=descriptor) as control:
            if parsed.outdated():
                self._channel.send(Declined(run.number, OUTDATED))
                return
            try:
                pid = os.fork()
            except OSError as error:
                self._channel.send(Declined(run.number, str(error)))
                return
            if pid == 0:
                self._become_worker(control, run, pipe)
        with suppress(psutil.Error):  # killed by now
            self._channel.send(Started(run.number, pid, psutil.Process(pid).create_time()))

    def _become_worker(self, control: socket.socket, run: Run, pipe: tuple[int, int]) -> NoReturn:
        try:
            os.setsid()
            leave_sigchld(pipe)
            self._channel.close()
            self._hand.close()
            self._runs.clear()  # with the tokens of others
            self._forked.main(control, run)
        finally:
            os._exit(1)
