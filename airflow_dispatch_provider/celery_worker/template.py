# SPDX-License-Identifier: Apache-2.0
"""
The template process of a Celery worker: a fork of its main process, which has the templates of Dag files that all
processes of its pool share.

Each workload is asked for over a connection of its own, which ends with the answer: who was forked for it, or that
nobody was. It ends with the worker; what it has had forked does not depend on it.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from typing import Any, NoReturn

from airflow_dispatch_provider.celery_worker import stand_in
from airflow_dispatch_provider.celery_worker.asking import is_own
from airflow_dispatch_provider.engines.local import worker
from airflow_dispatch_provider.engines.local._options import PRELOAD
from airflow_dispatch_provider.engines.local.channel import BUSY_WAIT, IDLE_WAIT, Channel
from airflow_dispatch_provider.engines.local.children import (
    drain,
    end_with,
    ended_children,
    inherit_orphans,
    leave_sigchld,
    sigchld_pipe,
)
from airflow_dispatch_provider.engines.local.launch import obstacle_to_fork
from airflow_dispatch_provider.engines.local.messages import Declined, Run, Started
from airflow_dispatch_provider.engines.local.template import leave_parent, preload
from airflow_dispatch_provider.engines.local.warm import Forked, WarmTemplate, WarmTemplates

log = logging.getLogger(__name__)

_BACKLOG = 1024
"""Processes of the pool that may ask at a time."""


class TemplateProcess:
    """The worker's end of it."""

    def __init__(self, most: int, task: Any, warm_up: Callable[[], object]) -> None:
        """
        :param most: Dag files that may have a template
        :param task: Airflow's Celery task, with Airflow's function as its body
        :param warm_up: called in the process once, so that no workload has to
        """
        self._most, self._warm_up = most, warm_up
        self._main = partial(stand_in.main, task=task, body=task.run)
        self._pid: int | None = None
        self.address = f"\0airflow-dispatch-{secrets.token_hex(16)}"
        """In no folder; whoever may use it is found out at each connection."""

    def start(self) -> None:
        """Fork it; it takes requests at once. Nothing may run beside in this process.

        :raises OSError: no process can be started
        """
        parent = os.getpid()
        worker.flush_streams()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen(_BACKLOG)
            pid = os.fork()
            if pid == 0:
                self._become_template(listener, parent)
        self._pid = pid

    def keep(self) -> None:
        """Start another one if it has ended. To be called now and then."""
        if self._pid is not None and os.waitpid(self._pid, os.WNOHANG)[0]:
            log.warning("The template process of this worker has ended")
            self._pid = None
        if self._pid is None and obstacle_to_fork() is None:
            self.start()

    def _become_template(self, listener: socket.socket, parent: int) -> NoReturn:
        try:
            leave_parent({listener.fileno()})
            end_with(parent)
            inherit_orphans()
            worker.set_title(f"{stand_in.TITLE}: template")
            preload(PRELOAD, self._warm_up)
            worker.flush_streams()
            warm = WarmTemplates(self._most, time.monotonic, Forked(stand_in.TITLE, self._main))
            Desk(listener, warm).serve(parent)
        except BaseException:
            log.exception("The template process failed")
        finally:
            os._exit(1)


@dataclass(eq=False)
class _Asker:
    """A process of the pool that waits for an answer."""

    number: int
    connection: socket.socket
    control: socket.socket | None = None
    channel: Channel | None = None
    run: Run | None = None
    warm: WarmTemplate | None = None
    """Of whom its fork was asked."""

    def fileno(self) -> int:
        return self.connection.fileno()

    def hear(self) -> bool:
        """Take in what it has sent; whether it still waits. First comes its end of the control socket."""
        try:
            if self.channel is None:
                _, descriptors, _, _ = socket.recv_fds(self.connection, 1, 1)
                if not descriptors:
                    return False
                self.control = socket.socket(fileno=descriptors[0])
                self.channel = Channel(self.connection)
            for message in self.channel.receive():
                self.run = replace(message, number=self.number)
            return not self.channel.closed
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self.connection.close()
        if self.control is not None:
            self.control.close()


class Desk:
    """The loop of the template process. Single-threaded, as a process that forks has to be."""

    def __init__(self, listener: socket.socket, warm: WarmTemplates) -> None:
        listener.setblocking(False)
        self._listener, self._warm = listener, warm
        self._askers: dict[int, _Asker] = {}
        self._last = 0
        self._pipe = sigchld_pipe()

    def serve(self, parent: int) -> None:
        """Until the parent is gone."""
        while os.getppid() == parent:
            self.turn()

    def turn(self) -> None:
        """Wait until there is something to do, and do it."""
        sources: list[Any] = [self._pipe[0], self._listener, *self._warm, *self._askers.values()]
        pending = any(warm.channel.pending for warm in self._warm)
        ready = wait(sources, BUSY_WAIT if pending else IDLE_WAIT)
        drain(self._pipe[0])
        for each in ready:
            if isinstance(each, _Asker):
                self._hear(each)
            elif isinstance(each, WarmTemplate):
                self._hear_warm(each)
        self._accept()
        ended_children()  # templates, which are heard of otherwise, and forks of those that have died
        for warm in self._warm.due():
            self._end(warm)
        for asker in list(self._askers.values()):
            self._advance(asker)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            if not is_own(connection):
                connection.close()
                continue
            self._last += 1
            self._askers[self._last] = _Asker(self._last, connection)

    def _hear(self, asker: _Asker) -> None:
        is_new = asker.run is None
        if not asker.hear():
            self._forget(asker)  # its process runs the workload itself, or has ended
        elif is_new and asker.run is not None and asker.run.file is not None:
            self._warm.ask(asker.run.file, self._let_go)

    def _advance(self, asker: _Asker) -> None:
        if asker.run is None or asker.control is None or asker.warm or self._warm.parses(asker.run.file):
            return
        asker.warm = self._warm.of(asker.run.file)
        if asker.warm is None:
            self._answer(asker, Declined(asker.number, "no process has parsed the file"))
            return
        try:
            asker.warm.start(asker.run, asker.control)
        except OSError as error:
            log.warning("The process that has parsed %s does not answer: %s", asker.warm.file, error)
            self._end(asker.warm)

    def _hear_warm(self, warm: WarmTemplate) -> None:
        for message in self._warm.hear(warm):
            if isinstance(message, Started) and message.number in self._askers:
                self._answer(self._askers[message.number], message)
            elif isinstance(message, Declined):
                log.info("Tasks of %s parse it themselves for now: %s", warm.file, message.reason)
                self._end(warm)
        if warm.channel.closed:
            self._decline(warm)

    def _end(self, warm: WarmTemplate) -> None:
        self._warm.end(warm)
        self._decline(warm)

    def _decline(self, warm: WarmTemplate) -> None:
        """Answer those for whom it was asked: a process without its socket runs nothing."""
        for asker in [each for each in self._askers.values() if each.warm is warm]:
            self._answer(asker, Declined(asker.number, "the process that had parsed the file has ended"))

    def _answer(self, asker: _Asker, answer: Started | Declined) -> None:
        if asker.channel is not None:
            asker.channel.send(answer)
        self._forget(asker)

    def _forget(self, asker: _Asker) -> None:
        del self._askers[asker.number]
        asker.close()

    def _let_go(self) -> None:
        """In a fork of this process: of what belongs to this process."""
        leave_sigchld(self._pipe)
        self._listener.close()
        for asker in self._askers.values():
            asker.close()
        self._askers.clear()  # with the tokens of others
