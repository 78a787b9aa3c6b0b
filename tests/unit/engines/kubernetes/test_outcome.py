# SPDX-License-Identifier: Apache-2.0
"""The next step after a pod has ended: one row for each case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_dispatch_provider.bridge.task_instances import Stored
from airflow_dispatch_provider.engines.kubernetes.model import End, Ended, PodName
from airflow_dispatch_provider.engines.kubernetes.outcome import Launches, Next, after, state_after

ME, DEAD, OTHER = 7, 3, 9
FIRST = Launches(
    done=1, most=1, excluded_reasons=("Error",), adopted=False, former_owner=None, token_expired=False
)
SECOND = replace(FIRST, done=2)
ADOPTED = replace(FIRST, adopted=True, former_owner=DEAD)
EXPIRED = replace(FIRST, token_expired=True)


def ended(
    end: End, state: str | None, owner: int = ME, reason: str | None = None, started: bool = False
) -> Ended:
    row = None if state is None else Stored(state, owner)
    return Ended("key", PodName("airflow", "pod"), end, "why", started, reason, row)


LOST = (End.FAILED, End.DELETED, End.VANISHED)
CASES = [
    # It ended well: its row says how the task went.
    (ended(End.SUCCEEDED, "running"), FIRST, Next.FINISH),
    (ended(End.SUCCEEDED, "queued"), FIRST, Next.FINISH),
    (ended(End.SUCCEEDED, None), FIRST, Next.FINISH),
    # Another scheduler has it by now.
    *((ended(end, "running", OTHER), FIRST, Next.FINISH) for end in LOST),
    *((ended(end, "queued", OTHER), FIRST, Next.FINISH) for end in LOST),
    # It is gone, and the task had ended before.
    (ended(End.VANISHED, "success"), FIRST, Next.FINISH),
    # The task's code had begun.
    *((ended(end, "running", started=True), FIRST, Next.FAIL) for end in LOST),
    *((ended(end, "running", started=True), ADOPTED, Next.FAIL) for end in LOST),
    (ended(End.FAILED, "success"), FIRST, Next.FAIL),
    (ended(End.FAILED, None), FIRST, Next.FAIL),
    # It had not: another pod costs no try, as often as the option says.
    *((ended(end, "queued"), FIRST, Next.LAUNCH_AGAIN) for end in LOST),
    *((ended(end, "queued"), SECOND, Next.FAIL) for end in LOST),
    (ended(End.FAILED, "queued"), replace(SECOND, most=-1), Next.LAUNCH_AGAIN),
    # That a container ran is no proof that the task's code did: the row is.
    (ended(End.FAILED, "queued", reason="OOMKilled", started=True), FIRST, Next.LAUNCH_AGAIN),
    # Where the user has said that this reason does not pass ...
    (ended(End.FAILED, "queued", reason="Error", started=True), FIRST, Next.FAIL),
    (ended(End.FAILED, "queued", reason="Error"), replace(FIRST, excluded_reasons=()), Next.LAUNCH_AGAIN),
    # ... unless it is what an expired token looks like: a pod that waited for a node for too long.
    (ended(End.FAILED, "queued", reason="Error", started=True), EXPIRED, Next.LAUNCH_AGAIN),
    (ended(End.FAILED, "queued", reason="Error"), replace(EXPIRED, done=2), Next.LAUNCH_AGAIN),
    (ended(End.FAILED, "queued", reason="Error"), replace(EXPIRED, done=11), Next.FAIL),
    (ended(End.FAILED, "running", reason="Error"), EXPIRED, Next.FAIL),
    # Of an adopted one only Airflow knows how to launch it, as often as it has to be.
    *((ended(end, "queued"), ADOPTED, Next.PUT_BACK) for end in LOST),
    (ended(End.FAILED, "queued", reason="Error"), ADOPTED, Next.PUT_BACK),
    # The adoption is not stored yet: whose it is cannot be told.
    *((ended(end, "queued", DEAD), ADOPTED, Next.LOOK_AGAIN) for end in End),
    *((ended(end, "running", DEAD), ADOPTED, Next.LOOK_AGAIN) for end in End),
    # A scheduler that was only slow adopts what it had itself.
    (ended(End.FAILED, "queued"), replace(ADOPTED, former_owner=ME), Next.PUT_BACK),
]


@pytest.mark.parametrize(("report", "launches", "does"), CASES)
def test_what_is_done(report, launches, does):
    """A try is used only where the task's code had begun, or nothing else is left."""
    assert after(report, ME, launches) is does


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        ("running", "success"),
        ("queued", "success"),
        (None, "success"),
        ("deferred", "deferred"),
        ("failed", "failed"),
    ],
)
def test_what_the_task_told_is_not_contradicted(row, reported):
    """An undecided one gets an event that frees its slot, and Airflow finds out."""
    assert state_after(row) == reported
