# SPDX-License-Identifier: Apache-2.0
"""Effects of transitions and conditions for them: the words of which the table in ``transitions`` is made.

An effect is called after the job has come into its new state, as ``effect(ledger, job, event)``; a guard before, as
``guard(ledger, job, event)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle._backend import Stage
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.events import Ended
from airflow_dispatch_provider.lifecycle.job import Job, Waits
from airflow_dispatch_provider.lifecycle.states import Outcome, RowState
from airflow_dispatch_provider.routing.circuit import growing_delay
from airflow_dispatch_provider.routing.reasons import Reason

Guard = Callable[[Ledger, Job, Any], bool]
Effect = Callable[[Ledger, Job, Any], None]

# Guards


def earlier_is_out(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.key in ledger.let_go


def succeeded(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(event.how is Outcome.SUCCESS)


def succeeded_maybe_half(ledger: Ledger, job: Job, event: Any) -> bool:
    """Another scheduler may have queued the rest of it, which Airflow would fail if told of this success."""
    return job.offered and event.how is Outcome.SUCCESS


def had_begun(ledger: Ledger, job: Job, event: Any) -> bool:
    """The engine knows it now, or has seen it before."""
    return bool(job.began if event.began is None else event.began)


def has_begun(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.began


def has_no_row(ledger: Ledger, job: Job, event: Any) -> bool:
    """Callbacks and connection tests: nobody but the engine knows whether they began."""
    return not job.is_task


def has_no_row_nor_begun(ledger: Ledger, job: Job, event: Any) -> bool:
    return not job.is_task and event.began is False and not exhausted(ledger, job, event)


def exhausted(ledger: Ledger, job: Job, event: Any) -> bool:
    """Nothing counts as long as the execution API answers nobody."""
    return job.failures >= ledger.limits.launch_retries and ledger.api_trouble is None


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


def never_asked(ledger: Ledger, job: Job, event: Any) -> bool:
    return not job.asked


def running(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.RUNNING


def over(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.OVER


def over_again(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.over and event.state is RowState.OVER


def not_mine(ledger: Ledger, job: Job, event: Any) -> bool:
    return not event.mine and event.state is not RowState.OVER


def over_or_not_mine(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.OVER or not event.mine


def runs_elsewhere(ledger: Ledger, job: Job, event: Any) -> bool:
    """The row runs though the dispatch of this job certainly did not, or had ended before the last heartbeat."""
    if event.state is not RowState.RUNNING:
        return False
    return not job.may_have_begun or job.looked_at - event.silent > job.ended_at + _SLACK


_SLACK = 6.0
"""Seconds between two heartbeats of a task, and between an end and the news of it."""


def orphan_died(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.orphan and died_running(ledger, job, event)


def orphan_lives(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.orphan and running(ledger, job, event)


def died_running(ledger: Ledger, job: Job, event: Any) -> bool:
    """It had begun and is dead. A process that cannot reach the execution API is silent, too."""
    if ledger.api_trouble is not None or event.state is not RowState.RUNNING:
        return False
    since = max(job.ended_at, ledger.api_since)
    return bool(event.silent >= ledger.limits.silence and ledger.now - since >= ledger.limits.silence)


def can_be_asked(ledger: Ledger, job: Job, event: Any) -> bool:
    """The backend by evidence, or some candidate, can be asked now."""
    return _askable(ledger, job) is not None


def runs_unasked(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.runs and any(name in ledger.backends for name in job.candidates)


def runs(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.runs


def dead_and_cannot_revoke(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(event.dead) and cannot_revoke(ledger, job, event)


def cannot_revoke(ledger: Ledger, job: Job, event: Any) -> bool:
    return not ledger.backends[job.backend or ""].rules.revokes


def still_wanted(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.key not in ledger.jobs and not job.dead


def unanswered(ledger: Ledger, job: Job, event: Any) -> bool:
    """Its engine was told to stop it, once, and has said nothing. What has been queued again since has the same key."""
    return job.revoked == 1 and job.key not in ledger.jobs and job.backend in ledger.backends


def is_dead(ledger: Ledger, job: Job, event: Any) -> bool:
    return job.dead


def began_there(ledger: Ledger, job: Job, event: Any) -> bool:
    return event.state is RowState.RUNNING and job.backend in ledger.backends


def began_there_askable(ledger: Ledger, job: Job, event: Any) -> bool:
    return began_there(ledger, job, event) and ledger.backends[job.backend or ""].usable(ledger.now)


def adopted_running(ledger: Ledger, job: Job, event: Any) -> bool:
    return bool(event.began or job.runs)


def _askable(ledger: Ledger, job: Job) -> str | None:
    for name in job.candidates:
        if name in ledger.backends and ledger.backends[name].usable(ledger.now):
            return name
    return None


# Effects: holding and sending


def hold(ledger: Ledger, job: Job, event: Any) -> None:
    """In its old place: its age and number are what they were."""
    ledger.hold(job)


def wait_for_earlier(ledger: Ledger, job: Job, event: Any) -> None:
    job.waits = Waits.EARLIER
    ledger.timers.set(job, ledger.now + ledger.limits.earlier_grace)


def launch_later(ledger: Ledger, job: Job, event: Any) -> None:
    """Behind the others, after a delay that grows each time; then at any target."""
    job.paused = ()
    delay = _delay(ledger, job.failures)
    if ledger.api_trouble is None:
        job.failures += 1
    job.waits = Waits.LAUNCH
    if job.is_task:
        ledger.do(actions.Record(job.key, Waits.LAUNCH.value, job.trouble))
    job.to_the_back(ledger.next_sequence())
    ledger.timers.set(job, ledger.now + delay)


def hold_elsewhere(ledger: Ledger, job: Job, event: Any) -> None:
    """For another target, at once; this one may have it again after a while."""
    ledger.pause(job, lambda times: _delay(ledger, times), refused=True)
    ledger.hold(job)


def hold_again(ledger: Ledger, job: Job, event: Any) -> None:
    """In its old place. A backend that gives it back again, unasked, is left alone with it for a while."""
    if job.withdrawn != job.dispatch:
        ledger.pause(job, lambda times: _delay(ledger, times - 1) if times else 0.0)
    ledger.hold(job)
    if job.waits is Waits.LAUNCH and job.is_task:
        ledger.do(actions.Record(job.key, Waits.LAUNCH.value, job.trouble))


def _delay(ledger: Ledger, failures: int) -> float:
    return growing_delay(failures, ledger.limits.launch_delay, ledger.limits.launch_delay_max)


def prefer_others(ledger: Ledger, job: Job, event: Any) -> None:
    """When it is launched again, another target comes first, if there is one."""
    if ledger.has_another_target(job):
        ledger.pause(job, lambda times: 0.0, refused=True)


def submit(ledger: Ledger, job: Job, event: Any) -> None:
    target, reason = event.target, event.reason
    if job.paused and reason is Reason.FIRST_CHOICE and _was_moved_on(ledger, job, target.backend):
        reason = Reason.REFUSED
    ledger.occupy(job, target.backend)
    ledger.backends[target.backend].submitted += 1
    job.over = job.began = job.runs = False
    dispatch = actions.Dispatch(job.dispatch, job.key, job.workload, target, event.route, reason, job.kind)
    ledger.batch(actions.Submit, target.backend, dispatch)


def _was_moved_on(ledger: Ledger, job: Job, backend: str) -> bool:
    """Whether its backend has it because another one could not take it."""
    moved = {each.backend for each in job.paused if each.refused or each.until > ledger.now}
    return bool(moved) and backend not in moved


def note_sent(ledger: Ledger, job: Job, event: Any) -> None:
    if job.paused:
        job.paused = ()
    ledger.worked(job, Stage.SEND)
    _emit_id(ledger, job, event)


def note_begun(ledger: Ledger, job: Job, event: Any) -> None:
    job.began = True
    ledger.worked(job, Stage.START)
    _emit_id(ledger, job, event)


def note_runs(ledger: Ledger, job: Job, event: Any) -> None:
    """The row says that it runs; the process may be that of another copy, so its dispatch may still be refused."""
    job.runs = True
    ledger.worked(job, Stage.START)


def note_over(ledger: Ledger, job: Job, event: Any) -> None:
    job.over = True


def note_not_over(ledger: Ledger, job: Job, event: Any) -> None:
    job.over = False


def note_offered(ledger: Ledger, job: Job, event: Any) -> None:
    """Whether its workload is still the right one is not known: only Airflow can make it anew."""
    job.offered, job.workload = True, None


def note_orphan(ledger: Ledger, job: Job, event: Any) -> None:
    """Without a workload of ours: Airflow alone can run it anew."""
    job.orphan = job.runs and job.workload is None


def _emit_id(ledger: Ledger, job: Job, event: Any) -> None:
    if event.info is not None or (job.began and not job.is_task):
        ledger.do(actions.EmitId(job.key, event.info, job.began, job.kind))


# Effects: ends


def emit(ledger: Ledger, job: Job, event: Any) -> None:
    """As the engine says."""
    if event.how is Outcome.SUCCESS or event.began:
        ledger.worked(job, Stage.START)
    ledger.do(actions.Emit(job.key, event.how, event.reason or None, event.value, job.kind))


def emit_failed(ledger: Ledger, job: Job, event: Any) -> None:
    """With what went wrong last."""
    ledger.do(actions.Emit(job.key, Outcome.FAILED, job.trouble or None, job.value, job.kind))


def note_trouble(ledger: Ledger, job: Job, event: Any) -> None:
    job.trouble = event.reason


def suspect_sending(ledger: Ledger, job: Job, event: Any) -> None:
    job.trouble = event.reason
    ledger.met(job, Stage.SEND)


def suspect_start(ledger: Ledger, job: Job, event: Any) -> None:
    """It came to nothing before it began, as the database confirms."""
    if ledger.api_trouble is None and job.backend in ledger.backends:
        ledger.met(job, Stage.START)


def doubt(ledger: Ledger, job: Job, event: Any) -> None:
    """Remember the end until the database has said whether it had begun."""
    job.ended_at = ledger.now
    ended_badly = isinstance(event, Ended) and event.how is Outcome.FAILED
    job.may_have_begun = ended_badly and event.began is None
    job.trouble = getattr(event, "reason", "") or job.trouble
    job.value = getattr(event, "value", None)
    look_up(ledger, job, event)


def look_up(ledger: Ledger, job: Job, event: Any) -> None:
    job.looked_at = ledger.now
    ledger.ask(actions.LookUp, job.key)
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


def look_later(ledger: Ledger, job: Job, event: Any) -> None:
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


# Effects: taking back


def withdraw(ledger: Ledger, job: Job, event: Any) -> None:
    job.withdrawn = job.dispatch
    ledger.batch(actions.Withdraw, job.backend or "", job.dispatch)


def revoke(ledger: Ledger, job: Job, event: Any) -> None:
    """Its slot is free when the engine answers, or after a while, in the middle of which it is told again."""
    job.revoked, job.dead = 1, event.dead
    ledger.do(actions.Revoke(job.backend or "", job.dispatch))
    ledger.timers.set(job, ledger.now + ledger.limits.let_go_after / 2)


def revoke_again(ledger: Ledger, job: Job, event: Any) -> None:
    job.revoked += 1
    ledger.do(actions.Revoke(job.backend or "", job.dispatch))
    ledger.timers.set(job, ledger.now + ledger.limits.let_go_after / 2)


def let_go(ledger: Ledger, job: Job, event: Any) -> None:
    ledger.timers.set(job, ledger.now + ledger.limits.let_go_after)


def give_up(ledger: Ledger, job: Job, event: Any) -> None:
    """What was to be stopped is the engine's affair no longer; what was only let go may still end in its own way."""
    if job.revoked:
        clean_up(ledger, job, event)


def clean_up(ledger: Ledger, job: Job, event: Any) -> None:
    """The slot is free at once; what is left at the engine is ended."""
    if job.dispatch and job.backend in ledger.backends:
        ledger.do(actions.Revoke(job.backend, job.dispatch, over=True))


def back_in_care(ledger: Ledger, job: Job, event: Any) -> None:
    job.revoked = 0
    ledger.jobs[job.key] = job
    ledger.look_after(job)


def put_back(ledger: Ledger, job: Job, event: Any) -> None:
    """Never while an earlier such question may still be answered: by then the task may have been queued again."""
    job.asked = True
    ledger.ask(actions.PutBack, job.key)
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


def put_back_later(ledger: Ledger, job: Job, event: Any) -> None:
    """Its row is locked, or was queued again: it is asked for again after a while."""
    job.asked = False
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


def restart(ledger: Ledger, job: Job, event: Any) -> None:
    job.asked = True
    ledger.ask(actions.Restart, job.key)
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


def soon(ledger: Ledger, job: Job, event: Any) -> None:
    """At the next Tick: by then Airflow has committed that the task is ours."""
    ledger.timers.set(job, ledger.now)


# Effects: adopting


def ask_first(ledger: Ledger, job: Job, event: Any) -> None:
    """Choose the backend to be asked; it is asked at the next Tick."""
    _choose(ledger, job)
    soon(ledger, job, event)


def ask_next(ledger: Ledger, job: Job, event: Any) -> None:
    _choose(ledger, job)
    adopt(ledger, job, event)


def adopt(ledger: Ledger, job: Job, event: Any) -> None:
    found = actions.Found(job.dispatch, job.key, job.ref, job.runs)
    ledger.batch(actions.Adopt, job.backend or "", found)


def keep_slot(ledger: Ledger, job: Job, event: Any) -> None:
    """At the first candidate, which cannot be asked now."""
    name = next(name for name in job.candidates if name in ledger.backends)
    job.candidates = tuple(other for other in job.candidates if other != name)
    ledger.occupy(job, name)


def keep_slot_there(ledger: Ledger, job: Job, event: Any) -> None:
    """It began where it was, meanwhile."""
    job.runs = True
    ledger.occupy(job, job.backend or "")


def _choose(ledger: Ledger, job: Job) -> None:
    name = _askable(ledger, job)
    assert name is not None
    job.candidates = tuple(other for other in job.candidates if other != name)
    ledger.occupy(job, name)
