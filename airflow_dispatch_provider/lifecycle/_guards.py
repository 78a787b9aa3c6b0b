# SPDX-License-Identifier: Apache-2.0
"""Conditions of transitions: whether a row of the table in ``transitions`` holds.

Each is asked before the job comes into its new state, as ``guard(ledger, job, event)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.lifecycle.states import Outcome, RowState

_SUCCESS = Outcome.SUCCESS

Guard = Callable[[Ledger, Job, Any], bool]


def earlier_is_out(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.key in ledger.let_go


def succeeded(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(event.how is _SUCCESS)


def task_succeeded(ledger: Ledger, job: Job, event: Any) -> bool:
    """Airflow fails a task that has been scheduled again when it is told of the end of its first half, e.g. of a sensor
    in reschedule mode; and a container ends well, too, that starts something else than the task."""
    return job.is_task and event.how is _SUCCESS


def finished_well(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(job.ended_well and event.finished and event.mine)


def seen_to_succeed(ledger: Ledger, job: Job, event: Any) -> bool:
    """For a while: one question alone may fail while Airflow can read the row, and judges it by this success."""
    is_away = ledger.now - job.ended_at >= ledger.limits.look_again
    return bool(job.seen_well and is_away and event.asked >= job.moment)


def maybe_half(ledger: Ledger, job: Job, event: Any) -> bool:
    """It was offered: what has ended may be the first half of a task that deferred, whose rest another scheduler has
    queued. Airflow would fail that if told of this end."""
    return job.workload is None


def had_begun(ledger: Ledger, job: Job, event: Any) -> bool:
    """The engine knows it now, or has seen it before."""
    return bool(job.began if event.began is None else event.began)


def has_begun(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.began


def has_no_row(ledger: Ledger, job: Job, event: Any) -> bool:
    """Callbacks and connection tests: nobody but the engine knows whether they began."""
    return not job.is_task


def may_launch_without_row(ledger: Ledger, job: Job, event: Any) -> bool:
    return not job.is_task and event.began is False and not exhausted(ledger, job, event)


def exhausted(ledger: Ledger, job: Job, event: Any) -> bool:
    """Nothing counts as long as the execution API answers nobody."""
    return job.failures >= ledger.limits.launch_retries and not ledger.has_no_api(job)


def exhausted_without_row(ledger: Ledger, job: Job, event: Any) -> bool:
    return exhausted(ledger, job, event) and not job.is_task


def has_another_target(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.workload is not None and ledger.has_another_target(job)


def has_no_workload(ledger: Ledger, job: Job, event: Any) -> bool:
    """It was adopted: only Airflow can make it anew."""
    return job.workload is None


def queued_no_workload(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.QUEUED and job.workload is None


def queued_exhausted(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.QUEUED and exhausted(ledger, job, event)


def queued(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.QUEUED


def queued_and_mine(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.QUEUED and bool(event.mine)


def queued_unanswered(ledger: Ledger, job: Job, event: Any) -> bool:
    """Its backend has said nothing of it for long, e.g. since one of its servers cannot be asked."""
    is_waiting = queued_and_mine(ledger, job, event) and not job.runs
    return is_waiting and ledger.now - job.since >= ledger.limits.let_go_after


def never_asked(ledger: Ledger, job: Job, event: Any) -> bool:
    return not job.asked


def running(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.RUNNING


def over(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.OVER


def over_again(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.over and event.state is RowState.OVER


def queued_again(ledger: Ledger, job: Job, event: Any) -> bool:
    """The dispatch that is out was over; the row is that of the next one, which another scheduler never sent."""
    return job.over and queued_and_mine(ledger, job, event)


def not_mine(ledger: Ledger, job: Job, event: Any) -> bool:
    return not event.mine and event.state is not RowState.OVER


def over_or_not_mine(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.OVER or not event.mine


def over_or_anothers(ledger: Ledger, job: Job, event: Any) -> bool:
    """As ``over_or_not_mine``, but for what may have begun in vain: who else could know so?"""
    return over_or_not_mine(ledger, job, event) and not maybe_in_vain(ledger, job, event)


def runs_for_another(ledger: Ledger, job: Job, event: Any) -> bool:
    """Another scheduler has adopted it, with the very process that is left here."""
    return event.state is RowState.RUNNING and not event.mine


def runs_elsewhere(ledger: Ledger, job: Job, event: Any) -> bool:
    """The row runs though the dispatch of this job certainly did not, or had ended before the last heartbeat."""
    may_be_it = job.ended_well or job.may_have_begun
    return event.state is RowState.RUNNING and (not may_be_it or _has_beaten_since(job, event))


def cleared(ledger: Ledger, job: Job, event: Any) -> bool:
    """A user has cleared it while it ran, and Airflow waits for its end, however that is."""
    may_be_it = job.ended_well or job.offered_well or job.may_have_begun
    return bool(event.cleared and event.mine) and may_be_it and not _has_beaten_since(job, event)


def _has_beaten_since(job: Job, event: Any) -> bool:
    """Whether a process has sent a heartbeat after the dispatch of this job had ended."""
    return bool(job.looked_at - event.silent > job.ended_at + _SLACK)


_SLACK = 6.0
"""Seconds between two heartbeats of a task, and between an end and the news of it."""


def maybe_in_vain(ledger: Ledger, job: Job, event: Any) -> bool:
    """The row may run since it was let begin, and nobody has heard so. It need not be ours: two schedulers may have had
    the task, and the one with the dead dispatch alone knows; but that has run here."""
    is_it = job.nothing_ran and (event.mine or event.here)
    return is_it and running(ledger, job, event) and not _has_beaten_since(job, event)


def began_in_vain(ledger: Ledger, job: Job, event: Any) -> bool:
    return maybe_in_vain(ledger, job, event) and _is_silent(ledger, job, event, ledger.limits.silence)


def orphan_died(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.orphan and died_running(ledger, job, event)


def orphan_lives(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.orphan and running(ledger, job, event)


def died_running(ledger: Ledger, job: Job, event: Any) -> bool:
    """It had begun and is dead. Whoever adopted it, and has not seen it begin, leaves time to the scheduler that had
    sent it, which may know that nothing of it has run."""
    is_adopted = job.workload is None and not job.began
    return _is_silent(ledger, job, event, ledger.limits.silence * (2 if is_adopted else 1))


def _is_silent(ledger: Ledger, job: Job, event: Any, patience: float) -> bool:
    """Its process sends no heartbeat any more, as an earlier answer has shown, too. One that cannot reach the execution
    API is silent, and its next heartbeat comes after a while."""
    if event.state is not RowState.RUNNING or ledger.has_no_api(job):
        return False
    if not job.silent_since or ledger.now - job.silent_since < _SLACK:
        return False
    since = max(job.ended_at, ledger.api_since)
    return bool(event.silent >= patience and ledger.now - since >= patience)


def can_be_asked(ledger: Ledger, job: Job, event: Any) -> bool:
    """The backend by evidence, or some candidate, can be asked now."""
    return askable(ledger, job) is not None


def runs_unasked(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.runs and any(name in ledger.backends for name in job.candidates)


def runs(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.runs


def recalled_though_sent(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(event.sent) and job.is_task


def recalled_not_begun(ledger: Ledger, job: Job, event: Any) -> bool:
    return recalled_though_sent(ledger, job, event) and not job.runs


def is_recalled(ledger: Ledger, job: Job, event: Any) -> bool:
    """An operator has recalled this very dispatch."""
    return job.recalled == job.dispatch


def dead_and_cannot_revoke(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(event.dead) and cannot_revoke(ledger, job, event)


def cannot_revoke(ledger: Ledger, job: Job, event: Any) -> bool:
    return not ledger.backends[job.backend or ""].rules.revokes


def still_wanted(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.key not in ledger.jobs and not job.dead


def unanswered(ledger: Ledger, job: Job, event: Any) -> bool:
    """Its engine was told to stop it, once, and has said nothing. What has been queued again since has the same key."""
    return job.revoked == 1 and job.key not in ledger.jobs and job.backend in ledger.backends


def was_let_begin(ledger: Ledger, job: Job, event: Any) -> bool:
    """It was told to stop before it began. What Airflow has found dead is ended all the same."""
    return job.revoked > 0 and not job.began and not job.dead


def is_dead(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.dead


def began_there(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.RUNNING and job.backend in ledger.backends


def began_there_askable(ledger: Ledger, job: Job, event: Any) -> bool:
    return began_there(ledger, job, event) and ledger.backends[job.backend or ""].usable(ledger.now)


def adopted_running(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(event.began or job.runs)


def askable(ledger: Ledger, job: Job) -> str | None:
    for name in job.candidates:
        if name in ledger.backends and ledger.backends[name].usable(ledger.now):
            return name
    return None
