# SPDX-License-Identifier: Apache-2.0
"""Why a workload went where it went, or why it waits: one constant a case, in the same words everywhere.

The event log, ``airflow dispatch explain``, log lines and metrics all use these.
"""

from __future__ import annotations

from enum import Enum


class Reason(str, Enum):
    """A named case of ``choose``; ``words`` says it to a person."""

    words: str

    def __new__(cls, value: str, words: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.words = words
        return member

    FIRST_CHOICE = "first_choice", "the route's first target has a free slot"
    OVERFLOW = "overflow", "a target before it is full and the route lets tasks overflow"
    FAILOVER = "failover", "a target before it takes no work (failing or cordoned)"
    REFUSED = "refused", "a target before it could not take this task, or it came to nothing there"
    CAPABLE = "capable", "a target before it cannot run this type of workload"

    WAITS_FULL = "waits_full", "every target that it may use is full"
    WAITS_OVERFLOW = "waits_overflow", "its target is full and it has not waited long enough to overflow"
    WAITS_BLOCKED = "waits_blocked", "no target that could run it takes work (failing or cordoned)"
    UNSUPPORTED = "unsupported", "no target of its route can run this type of workload"

    CORDONED = "cordoned", "the backend is cordoned"
    CIRCUIT_OPEN = "circuit_open", "the backend failed and is left alone until its next retry"
    UNKNOWN_BACKEND = "unknown_backend", "the backend is not configured"

    __str__ = str.__str__
    __hash__ = str.__hash__
