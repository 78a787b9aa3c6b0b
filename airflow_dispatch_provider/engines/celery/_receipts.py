# SPDX-License-Identifier: Apache-2.0
"""Batches that the broker got, or may have got, by their receipts, until a worker has each message. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class _Batch:
    sent_at: float
    dispatches: dict[str, int] = field(default_factory=dict)
    """By Celery id: those that no worker is known to have."""


class Receipts:
    """Not thread-safe. Times are monotonic seconds."""

    def __init__(self, token: str, kept_for: float) -> None:
        """
        :param token: begins all of them, and differs between all that use the broker
        :param kept_for: seconds after which the broker is not asked for a receipt any more: by then Airflow has taken
            back, as stuck, what no worker has begun with
        """
        self._token, self._kept_for = token, kept_for
        self._count = 0
        self._batches: dict[str, _Batch] = {}
        self._of: dict[str, str] = {}

    def new(self) -> str:
        self._count += 1
        return f"{self._token}.{self._count}"

    def add(self, receipt: str, celery_id: str, dispatch: int, now: float) -> None:
        batch = self._batches.setdefault(receipt, _Batch(now))
        batch.dispatches[celery_id] = dispatch
        self._of[celery_id] = receipt

    def settled(self, celery_id: str) -> None:
        """Whether the broker loses it does not matter any more."""
        receipt = self._of.pop(celery_id, None)
        if receipt is not None:
            dispatches = self._batches[receipt].dispatches
            del dispatches[celery_id]
            if not dispatches:
                del self._batches[receipt]

    def to_ask_for(self, now: float) -> list[str]:
        return [receipt for receipt, batch in self._batches.items() if batch.sent_at >= now - self._kept_for]

    def lost(self, missing: Collection[str]) -> list[int]:
        """Forget batches that the broker does not have; gives the dispatches in them, in the order of sending."""
        batches = [self._batches.pop(receipt) for receipt in list(self._batches) if receipt in missing]
        for batch in batches:
            for celery_id in batch.dispatches:
                del self._of[celery_id]
        return [dispatch for batch in batches for dispatch in batch.dispatches.values()]
