# SPDX-License-Identifier: Apache-2.0
"""Requests about pods, counted as Airflow's KubernetesExecutor counts its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from airflow_dispatch_provider.engines.engine import Measured

CREATION = "kubernetes_executor.pod_creation"
DELETION = "kubernetes_executor.pod_deletion"
PATCHING = "kubernetes_executor.pod_patching"

_DURATIONS = 10
"""Requests between two calls of ``take`` whose durations are kept."""


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def ok(self) -> bool: ...


A = TypeVar("A", bound=Answer)


class Tally:
    """Added to on the thread of the requests, and taken on the scheduler's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._durations: list[tuple[str, float]] = []

    async def measure(self, metric: str, request: Awaitable[A]) -> A:
        """Make a request, and count it by its status: 200 for every success, ``error`` where no answer came."""
        since, status = time.monotonic(), "error"
        try:
            answer = await request
            status = "200" if answer.ok else str(answer.status)
            return answer
        finally:
            self._add(metric, status, time.monotonic() - since)

    def _add(self, metric: str, status: str, seconds: float) -> None:
        with self._lock:
            self._counts[f"{metric}_status", status] += 1
            if len(self._durations) < _DURATIONS:
                self._durations.append((metric, seconds))

    def take(self) -> Measured:
        """The requests since the last call."""
        with self._lock:
            measured = Measured(self._counts, self._durations)
            self._counts, self._durations = Counter(), []
        return measured
