# SPDX-License-Identifier: Apache-2.0
"""Has engines clean up, now and then, what schedulers that have died have left with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from typing import Protocol

from airflow_dispatch_provider.bridge.schedulers import tidy_interval
from airflow_dispatch_provider.engines.engine import Engine, Tidies


class Living(Protocol):
    """The part of a clerk that knows schedulers."""

    def ask_living(self) -> None:
        """Ask which schedulers live."""
        ...

    def take_living(self) -> Collection[str] | None:
        """The answer, once; None: it has not come."""
        ...


class Tidying:
    """The database is asked which schedulers live, and the engines are told when it has answered."""

    def __init__(self, engines: Mapping[str, Engine], clerk: Living) -> None:
        """
        :param engines: those that there are, live
        """
        self._engines, self._clerk = engines, clerk
        self._every, self._due = tidy_interval(), -inf

    def beat(self, now: float) -> None:
        """Called at every heartbeat.

        :param now: monotonic seconds
        """
        if now >= self._due:
            self._due = now + self._every
            if self._concerned():
                self._clerk.ask_living()
        living = self._clerk.take_living()
        if living is not None:
            for engine in self._concerned():
                engine.tidy(living)

    def _concerned(self) -> list[Tidies]:
        return [engine for engine in self._engines.values() if isinstance(engine, Tidies)]
