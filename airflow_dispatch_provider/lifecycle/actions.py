# SPDX-License-Identifier: Apache-2.0
"""Actions that the machine wants done. Whoever calls it does exactly these, in this order, and nothing else."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, Target, TaskRef
from airflow_dispatch_provider.routing.reasons import Reason


class Dispatch(NamedTuple):
    """One hand-over of a job to a backend."""

    number: int
    """Given once in the life of a machine."""

    key: Hashable
    workload: Any
    target: Target
    route: str
    reason: Reason
    kind: str = EXECUTE_TASK
    again: bool = False
    """The job was dispatched before: what names it in the outside world may name that dispatch."""

    ahead: bool = False
    """See ``Decision``."""


class Found(NamedTuple):
    """A task of a dead scheduler that a backend may have."""

    number: int
    key: Hashable
    ref: TaskRef
    runs: bool


class Submit(NamedTuple):
    """Give jobs to an engine, each with a fresh token, and write a row for each into the event log: it is the evidence
    by which another scheduler adopts them."""

    backend: str
    dispatches: list[Dispatch]


class Withdraw(NamedTuple):
    """Take back what is certainly not sent; answered by ``Returned`` for those and by nothing for the others."""

    backend: str
    dispatches: list[int]


class Revoke(NamedTuple):
    """Stop it wherever it is; answered by ``Ended``, ``Returned`` or ``CannotRevoke``. A number that the engine does
    not know is no error."""

    backend: str
    dispatch: int
    over: bool = False
    """Airflow is done with the task: what is left may finish in its own time, e.g. write its log, but has to end."""


class Forget(NamedTuple):
    """Nobody waits for an answer of this dispatch any more. It may be what runs the task, for another scheduler, say:
    it is not stopped. A number that the engine does not know is no error."""

    backend: str
    dispatch: int


class Adopt(NamedTuple):
    """Ask an engine for these; answered by ``Adopted`` or ``Unknown`` for each, when it can."""

    backend: str
    found: list[Found]


class Emit(NamedTuple):
    """Tell Airflow how a workload ended."""

    key: Hashable
    how: Outcome
    info: Any = None
    value: Any = None
    """An engine's own event value, to be passed on as it is; None: there is none."""

    kind: str = EXECUTE_TASK
    """The workload's type, as Airflow names it."""


class EmitId(NamedTuple):
    """Tell Airflow the id by which the outside world knows a workload, and that it runs. For a task never without an
    id: that erases the one it has."""

    key: Hashable
    info: Any
    runs: bool = False
    kind: str = EXECUTE_TASK


class Record(NamedTuple):
    """Write a row into the event log of a task, for its user: why it waits though there is room."""

    key: Hashable
    word: str
    detail: str


class Refresh(NamedTuple):
    """Move ``queued_dttm`` of these tasks forward, where they are queued and ours, so that Airflow does not take them
    for stuck."""

    keys: list[Hashable]


class LookUp(NamedTuple):
    """Ask the database about the tasks of these keys; answered by ``Rows``. May be lost: it is asked again."""

    asked: int
    keys: list[Hashable]


class PutBack(NamedTuple):
    """Set these tasks back to SCHEDULED, where they are queued and ours and have not been queued again since
    (``queued_dttm``); then as ``LookUp``. Questions are put to the database in the order in which they are asked."""

    asked: int
    keys: list[Hashable]


class Restart(NamedTuple):
    """Have Airflow run these tasks anew, as it does with running ones that no executor adopts, where they are ours and
    their processes send no heartbeat; then as ``LookUp``."""

    asked: int
    keys: list[Hashable]


class Unstart(NamedTuple):
    """Set these tasks back to SCHEDULED in the same try, where they run for this scheduler and their processes send no
    heartbeat: nothing of them has run, as their engine has said; then as ``LookUp``."""

    asked: int
    keys: list[Hashable]


class AskApi(NamedTuple):
    """Ask the execution API for nothing in particular: its answer is ``Recovered``, or ``Broken``."""


class Log(NamedTuple):
    """A line for the operator."""

    error: bool
    message: str
    arguments: tuple[object, ...] = ()


class CountFailure(NamedTuple):
    """Add one to the failures of a backend, for the metrics."""

    backend: str


Action = (
    Submit
    | Withdraw
    | Revoke
    | Forget
    | Adopt
    | Emit
    | EmitId
    | Record
    | Refresh
    | LookUp
    | PutBack
    | Restart
    | Unstart
    | AskApi
    | Log
    | CountFailure
)
