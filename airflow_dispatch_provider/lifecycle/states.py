# SPDX-License-Identifier: Apache-2.0
"""The states of a job, and what the database says of its task."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class State(str, Enum):
    """Where a job is in its life. ``transitions`` says what leads from one to the next."""

    NEW = "new"
    """Not in our care yet."""

    HELD = "held"
    """It has a route but no backend; costs nothing when the scheduler dies."""

    SUBMITTED = "submitted"
    """Given to a backend, whose engine may not have sent it yet."""

    SENT = "sent"
    """On its way to a worker, a pod or a process; from here on it may begin at any moment."""

    RUNNING = "running"
    """Its own process has begun."""

    ADOPTING = "adopting"
    """Offered by Airflow after the death of a scheduler; a backend has been asked whether it has it."""

    ORPHANED = "orphaned"
    """Running, as the database says, on a backend that cannot be asked now."""

    UNCLEAR = "unclear"
    """Its dispatch has come to nothing, and the database is asked whether the task had begun."""

    RETURNING = "returning"
    """It had not begun, and the database is asked to set it back to SCHEDULED: same try, no history row."""

    REVOKING = "revoking"
    """Let go. Nothing that is said of this dispatch is believed any more; only its slot still counts."""

    ENDED = "ended"
    """No longer in our care."""

    __str__ = str.__str__
    __hash__ = str.__hash__


OUT = frozenset({State.SUBMITTED, State.SENT, State.RUNNING, State.ADOPTING, State.ORPHANED, State.REVOKING})
"""The states of a job whose dispatch is out: it has a slot of its backend, and no other state has one."""


class Outcome(str, Enum):
    """How a dispatch ended, as its engine says."""

    SUCCESS = "success"
    FAILED = "failed"

    __str__ = str.__str__


class RowState(str, Enum):
    """The state of a task instance in the database, as far as it matters here."""

    QUEUED = "queued"
    RUNNING = "running"
    OVER = "over"
    """Anything else: finished, deferred, cleared, scheduled again, another try, gone."""

    __str__ = str.__str__


class Row(NamedTuple):
    """The row of a job's task in the database."""

    state: RowState
    mine: bool = True
    """Whether this scheduler is the one that queued or adopted it (``queued_by_job_id``)."""

    silent: float = 0.0
    """Seconds since the last heartbeat of the task's process, as far as the clocks of two hosts agree."""

    finished: bool = False
    """OVER: Airflow will not run this try any more, as it may one that deferred."""

    here: bool = False
    """RUNNING: its process runs, or ran last, on the host of this scheduler."""

    cleared: bool = False
    """RUNNING: a user wants another try, for which Airflow waits to be told the end of this one."""


_RESTARTING = "restarting"
_ALIVE = {"queued": RowState.QUEUED, "running": RowState.RUNNING, _RESTARTING: RowState.RUNNING}

_FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""Those that ``airflow.utils.state.State.finished`` has, which a test compares."""


def row_of(state: str, mine: bool, silent: float, here: bool = False) -> Row:
    """
    The row of a task instance.

    :param state: Airflow's word for its state
    """
    is_finished, is_cleared = state in _FINISHED, state == _RESTARTING
    return Row(_ALIVE.get(state, RowState.OVER), mine, silent, is_finished, here, is_cleared)


GONE = Row(RowState.OVER, finished=True)
"""There is no such row any more."""
