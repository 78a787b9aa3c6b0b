# SPDX-License-Identifier: Apache-2.0
"""The words for why something waits, with how full its targets are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow_dispatch_provider.operate.documents import Document
from airflow_dispatch_provider.routing.reasons import Reason


def words_of(entry: dict[str, Any], documents: Sequence[Document]) -> str:
    """
    Of what waits, in one sentence without its full stop.

    :param entry: of a group or of a task
    :param documents: those of the schedulers that have it
    """
    words = str(entry["words"])
    if not entry["full"]:
        return words
    full = ", ".join(_slots(name, why, documents) for name, why in entry["full"])
    if not entry["left_out"]:
        return f"{words}: {full}"
    others, are = ", ".join(entry["left_out"]), "is" if len(entry["left_out"]) == 1 else "are"
    if entry["reason"] == Reason.WAITS_OVERFLOW:
        return f"{words}: {full}, then {others}"
    return f"{words}: {full}; {others} {are} left out (overflow_after: never)"


def _slots(name: str, why: str, documents: Iterable[Document]) -> str:
    """Its slots in use, and those that there are; where some are free, why it is full all the same."""
    about = [entry for document in documents for entry in document.about(name)]
    used, slots = (sum(entry[key] for entry in about) for key in ("used", "slots"))
    if not why and used < slots:
        why = "it takes no more at this moment"
    return f"{name} {used}/{slots}" + (f" ({why})" if why else "")
