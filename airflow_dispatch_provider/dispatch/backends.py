# SPDX-License-Identifier: Apache-2.0
"""The backends of a router, which come and go while it runs.

A backend that is no longer configured, or is configured otherwise, is *leaving*: it gets no new work, gives back what
it has not sent, and keeps its engine until nothing of it is out. Then that is stopped on a thread of its own. One that
is configured otherwise, or would use what only one may use, is started after that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from airflow_dispatch_provider.dispatch.backend import Backend, in_start_order, is_local
from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.dispatch.preparing import Prepared
from airflow_dispatch_provider.engines.engine import Engine
from airflow_dispatch_provider.masking import LateTraceback, describe
from airflow_dispatch_provider.settings.changes import is_same
from airflow_dispatch_provider.settings.model import Settings

log = logging.getLogger(__name__)

STOP_WITHIN = 30.0
"""Seconds that an engine has to stop, when nothing of it is out any more."""

_OVERTIME = 10.0
"""Seconds after these: what has not stopped by then is not waited for."""

MakeEngine = Callable[[Backend, Prepared], Engine]


class _Stop:
    """An engine that is being stopped. Its thread alone uses it."""

    def __init__(self, backend: Backend, engine: Engine, now: float) -> None:
        self.backend, self._engine, self._deadline = backend, engine, now + STOP_WITHIN
        self._thread = threading.Thread(target=self._run, name=f"dispatch-stop-{backend.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        name = self.backend.name
        try:
            self._engine.stop(self._deadline)
        except BaseException as error:
            log.error("Backend %r could not be stopped. %s%s", name, describe(error), LateTraceback(error))

    def is_over(self, now: float) -> bool:
        """Whether it has stopped, or is not waited for any more."""
        if not self._thread.is_alive():
            log.info("Backend %r has stopped.", self.backend.name)
            return True
        if now < self._deadline + _OVERTIME:
            return False
        seconds = STOP_WITHIN + _OVERTIME
        message = "Backend %r has not stopped within %.0f s, and is not waited for."
        log.warning(message, self.backend.name, seconds)
        return True

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)


class Backends(Mapping[str, Backend]):
    """Those that have an engine, by name; the leaving ones among them."""

    def __init__(self, make_engine: MakeEngine) -> None:
        """
        :param make_engine: makes the engine of a new backend, which has not been started
        """
        self._make_engine = make_engine
        self._there: dict[str, Backend] = {}
        self._leaving: set[str] = set()
        self._stopping: dict[str, _Stop] = {}
        self._prepared: Prepared | None = None
        self._to_start: dict[str, Backend] = {}

    def __getitem__(self, name: str) -> Backend:
        return self._there[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._there)

    def __len__(self) -> int:
        return len(self._there)

    def make(self, prepared: Prepared) -> dict[str, Engine]:
        """The first ones, for a loop that starts them in this order."""
        self._there, self._prepared = dict(prepared.new), prepared
        ordered = in_start_order(self._there.values())
        return {backend.name: self._make_engine(backend, prepared) for backend in ordered}

    def there_for(self, settings: Settings) -> dict[str, Backend]:
        """Those that these settings keep, or have to part with."""
        return {
            name: backend
            for name, backend in self._there.items()
            if name in settings.backends or name not in self._leaving
        }

    @property
    def in_use(self) -> set[str]:
        """The others."""
        return self._there.keys() - self._leaving

    def use(self, prepared: Prepared, loop: Loop) -> None:
        """Use other settings. Whatever is new waits for ``start_what_can``."""
        self._prepared, self._to_start = prepared, dict(prepared.new)
        for name, backend in self._there.items():
            wanted = prepared.settings.backends.get(name)
            if wanted is not None and name not in prepared.new and is_same(backend.settings, wanted):
                self._keep(backend, loop)
                backend.settings = wanted
                loop.engines[name].slots = wanted.configured_slots
            elif name not in self._leaving:
                self._leaving.add(name)
                log.info("Backend %r gets no new work; %d of its jobs are out.", name, _out(loop, name))
        for backend in self._to_start.values():
            if backend.name in self._there:
                log.info("Backend %r is started anew when it is empty.", backend.name)
            elif names := self._in_the_way_of(backend):
                log.info("Backend %r is started when %s is empty.", backend.name, ", ".join(map(repr, names)))

    def _keep(self, backend: Backend, loop: Loop) -> None:
        if backend.name in self._leaving:
            self._leaving.discard(backend.name)
            log.info("Backend %r is in the file again, and goes on being used.", backend.name)

    def stop_what_is_empty(self, loop: Loop, now: float) -> bool:
        """Stop the engines of leaving backends of which nothing is out; whether there was one. Called at every
        heartbeat, but not while settings are prepared, which may need a leaving backend again.

        :param now: monotonic seconds
        """
        if not self._leaving:
            return False
        used = loop.machine.slots_used
        empty = [name for name in self._there if name in self._leaving and name not in used]
        for name in empty:
            self._leaving.discard(name)
            backend, engine = self._there.pop(name), loop.remove(name)
            log.info("Backend %r is empty, and is stopped.", name)
            self._stopping[name] = _Stop(backend, engine, now)
        return bool(empty)

    def start_what_can(self, loop: Loop, now: float) -> None:
        """Start new backends in whose way nothing is any more; the machine has to be told of them. Called at every
        heartbeat.

        :param now: monotonic seconds
        """
        for name in [name for name, stop in self._stopping.items() if stop.is_over(now)]:
            del self._stopping[name]
        ready = [backend for backend in self._to_start.values() if not self._in_the_way_of(backend)]
        for backend in in_start_order(ready):
            assert self._prepared is not None
            del self._to_start[backend.name]
            engine = self._make_engine(backend, self._prepared)
            self._there[backend.name] = backend
            log.info("Backend %r is being started (%s).", backend.name, backend.settings.executor)
            loop.add(backend.name, engine, ends_last=is_local(backend))

    def _in_the_way_of(self, new: Backend) -> list[str]:
        stopping = [each.backend for each in self._stopping.values()]
        going = [*(self._there[name] for name in self._leaving), *stopping]
        return [other.name for other in going if other.name == new.name or new.clashes(other)]

    def wait(self, seconds: float) -> None:
        """For those that are being stopped, at the end of the scheduler.

        :param seconds: for each, at most
        """
        for stop in self._stopping.values():
            stop.wait(seconds)


def _out(loop: Loop, name: str) -> int:
    return loop.machine.slots_used.get(name, 0)
