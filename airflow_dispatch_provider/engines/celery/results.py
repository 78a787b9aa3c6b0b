# SPDX-License-Identifier: Apache-2.0
"""Results as a Celery result backend has them, and what the watcher needs of each kind of backend."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import Any, Protocol, TypeVar

from celery import states

from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.masking import describe

T = TypeVar("T")

log = logging.getLogger(__name__)

_REPORTED_IDS = 10_000

CHUNK = 500
"""How many ids are asked for in one round trip."""

FINAL = frozenset({states.SUCCESS, states.FAILURE, states.REVOKED})
REPORTED = FINAL | {states.STARTED}


class ResultBackendError(DispatchError):
    """Celery's result backend cannot be used at all; says what to change."""


@dataclass(frozen=True, slots=True)
class Result:
    """Celery's report of one task."""

    celery_id: str

    state: str
    """Celery's STARTED, SUCCESS, FAILURE or REVOKED; PENDING where the backend was asked, and knows nothing."""

    info: Any = None
    """The exception, the return value, or what Celery says of the worker."""

    @property
    def final(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True)
class Timing:
    """All in seconds."""

    answer: float = 10.0
    """A server that takes longer for a single answer counts as gone."""

    tick: float = 0.5
    """Newly watched ids are collected for so long, and then asked for together."""

    poll: float = 1.0
    """Least time between two questions for everything that is watched, where results do not come by themselves."""

    reconcile: float = 60.0
    """The same where they do: it finds what a lost message has left behind."""

    ping: float = 10.0
    """A silent subscription is tested this often."""

    stuck: float = 30.0
    """A thread that has not moved for so long is reported as a problem."""

    min_backoff: float = 0.5
    max_backoff: float = 30.0


class ResultSource(Protocol):
    """A connection to a result backend. Whatever a method raises means that a new one has to be opened."""

    interval: float
    """Seconds after which everything that is watched has to be asked for again."""

    note: str | None
    """The shortcoming of this way to get results, and the remedy; for the log."""

    once: bool
    """Results are told only once, whether they are asked for or not."""

    def ask(self, ids: Collection[str], watched: Mapping[str, bool]) -> Iterator[list[Result]]:
        """Results that the backend has for these ids, a list for each round trip.

        ``watched`` says of each watched id whether it is known to have started. It changes meanwhile.
        """

    def receive(self, watched: Mapping[str, bool], timeout: float, stopping: Event) -> list[Result]:
        """Wait at most so many seconds for results that come by themselves."""

    def close(self) -> None:
        """May raise."""


class Polled:
    """A backend that sends nothing by itself."""

    def __init__(self, timing: Timing) -> None:
        self.interval = timing.poll
        self.note: str | None = None
        self.once = False

    def receive(self, watched: Mapping[str, bool], timeout: float, stopping: Event) -> list[Result]:
        stopping.wait(timeout)
        return []

    def close(self) -> None:
        """Nothing to close."""


class Reader:
    """Makes results of what a backend keeps. A value that cannot be read is reported once, and left out."""

    def __init__(
        self, decode: Callable[[Any], Any], unreadable: tuple[type[Exception], ...] = (Exception,)
    ) -> None:
        self._decode = decode
        self._unreadable = unreadable
        self._reported: set[str] = set()

    def read(self, celery_id: str, value: Any) -> list[Result]:
        """One result, or none where there is nothing to report."""
        try:
            meta = self._decode(value)
            state = meta["status"]
            return [Result(celery_id, state, meta.get("result"))] if state in REPORTED else []
        except self._unreadable as error:
            if celery_id not in self._reported:
                if len(self._reported) >= _REPORTED_IDS:
                    self._reported.clear()
                self._reported.add(celery_id)
                log.warning("The result of Celery task %s is ignored: %s", celery_id, describe(error))
            return []


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of at most ``CHUNK`` items."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
