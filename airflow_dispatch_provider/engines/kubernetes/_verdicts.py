# SPDX-License-Identifier: Apache-2.0
"""Verdicts on answers of an API server: values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_RETRY_AFTER = 300.0
"""Seconds: a server that asks for a longer pause is asked again after this one."""


class Verdict(str, Enum):
    """The action to take about a request."""

    DONE = "done"
    """Nothing: what was asked for is the case."""

    FULL = "full"
    """The namespace has no room for this pod. The backend is well; the task waits."""

    THROTTLED = "throttled"
    """The server has too much to do. The task waits, and so does every other request, unless the scope is ``JOB``."""

    TROUBLE = "trouble"
    """It may work later: the server, the way to it, the rights of the backend, or something that the pod needs. The
    task waits."""

    GONE = "gone"
    """The pod does not exist (any more)."""

    INVALID = "invalid"
    """This very request will never be accepted: the task fails, and nothing else does."""


class Scope(str, Enum):
    """Who else would meet the same."""

    UNKNOWN = "unknown"
    """The answer does not tell; see ``judgement``."""

    JOB = "job"
    """Nobody: it is about this very pod."""

    LANE = "lane"
    """Every pod of the namespace."""

    SERVER = "server"
    """Every request."""


@dataclass(frozen=True)
class Answer:
    """A verdict, and its reason for people."""

    verdict: Verdict

    reason: str
    """One line for the task's event log or the health message, with the server's own words, tokens masked."""

    retry_after: float | None = None
    """Seconds (0 to ``MAX_RETRY_AFTER``) for which the server wants to be left alone; None: it did not say."""

    scope: Scope = Scope.UNKNOWN
    """As far as the answer itself tells; of ``FULL``, ``THROTTLED`` and ``TROUBLE`` only."""
