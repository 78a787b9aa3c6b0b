# SPDX-License-Identifier: Apache-2.0
"""Effects of transitions: what the table in ``transitions`` has done.

Each is called after the job has come into its new state, as ``effect(ledger, job, event)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle._backend import Stage
from airflow_dispatch_provider.lifecycle._guards import askable
from airflow_dispatch_provider.lifecycle._ledger import Ledger, Question
from airflow_dispatch_provider.lifecycle.events import Ended
from airflow_dispatch_provider.lifecycle.job import Job, Waits
from airflow_dispatch_provider.lifecycle.states import Outcome, Row, RowState
from airflow_dispatch_provider.routing.circuit import growing_delay
from airflow_dispatch_provider.routing.reasons import Reason

Effect = Callable[[Ledger, Job, Any], None]

NOTHING_BEGAN = (
    "it ended with success and never began the task: does what is started there run its arguments?"
)
FELL_SILENT = "it ended with success, and its row still runs, without a heartbeat"

# Python 3.11 takes four times as long for a member of an Enum as for a name of a module.
_SUCCESS = Outcome.SUCCESS
_SEND, _START = Stage.SEND, Stage.START

# Effects: holding and sending


def hold(ledger: Ledger, job: Job, event: Any) -> None:
    """In its old place: its age and number are what they were."""
    ledger.hold(job)


def wait_for_earlier(ledger: Ledger, job: Job, event: Any) -> None:
    job.waits = Waits.EARLIER
    ledger.timers.set(job, ledger.now + ledger.limits.earlier_grace)


def launch_later(ledger: Ledger, job: Job, event: Any) -> None:
    """Behind the others, after a delay that grows each time; then at any target."""
    _count_failed_launch(ledger, job)
    job.paused = ()
    delay = _delay(ledger, job.failures)
    if not ledger.has_no_api(job):
        job.failures += 1
    job.waits = Waits.LAUNCH
    if job.is_task:
        ledger.do(actions.Record(job.key, Waits.LAUNCH.value, job.trouble))
    job.to_the_back(ledger.next_sequence())
    ledger.timers.set(job, ledger.now + delay)


def hold_elsewhere(ledger: Ledger, job: Job, event: Any) -> None:
    """For another target, at once; this one may have it again after a while."""
    _count_failed_launch(ledger, job)
    ledger.pause(job, lambda times: _delay(ledger, times), refused=True)
    ledger.hold(job)


def note_lane(ledger: Ledger, job: Job, event: Any) -> None:
    """A lane that only its engine could find out: it is held by that from now on."""
    if event.lane is not None:
        job.lanes = {**job.lanes, job.backend or "": event.lane}


def hold_again(ledger: Ledger, job: Job, event: Any) -> None:
    """In its old place. A backend that gives it back again, unasked, is left alone with it for a while."""
    ledger.backends[job.backend or ""].returned += 1
    if job.withdrawn != job.dispatch:
        ledger.pause(job, lambda times: _delay(ledger, times - 1) if times else 0.0)
    ledger.hold(job)
    if job.waits is Waits.LAUNCH and job.is_task:
        ledger.do(actions.Record(job.key, Waits.LAUNCH.value, job.trouble))


def _count_failed_launch(ledger: Ledger, job: Job) -> None:
    if (backend := ledger.backends.get(job.backend or "")) is not None:
        backend.launch_failures += 1


def _count_begun(ledger: Ledger, job: Job) -> None:
    """Once for each dispatch; what is adopted has begun before."""
    if not (job.began or job.runs) and (backend := ledger.backends.get(job.backend or "")) is not None:
        backend.began += 1


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
    again = job.dispatch > 0
    ledger.occupy(job, target.backend)
    backend = ledger.backends[target.backend]
    backend.launched(job.dispatch, ledger.now)
    if event.ahead:
        backend.ahead[job.dispatch] = True
    job.over = job.began = job.runs = False
    if again:
        job.forget_end()
    dispatch = actions.Dispatch(
        job.dispatch, job.key, job.workload, target, event.route, reason, job.kind, again, event.ahead
    )
    ledger.batch(actions.Submit, target.backend, dispatch)


def _was_moved_on(ledger: Ledger, job: Job, backend: str) -> bool:
    """Whether its backend has it because another one could not take it."""
    moved = {each.backend for each in job.paused if each.refused or each.until > ledger.now}
    return bool(moved) and backend not in moved


def note_sent(ledger: Ledger, job: Job, event: Any) -> None:
    if job.paused:
        job.paused = ()
    ledger.worked(job, _SEND)
    _emit_id(ledger, job, event)


def note_begun(ledger: Ledger, job: Job, event: Any) -> None:
    _count_begun(ledger, job)
    job.began = True
    ledger.worked(job, _START)
    _emit_id(ledger, job, event)


def note_runs(ledger: Ledger, job: Job, event: Any) -> None:
    """The row says that it runs; the process may be that of another copy, so its dispatch may still be refused."""
    _count_begun(ledger, job)
    job.runs = True
    ledger.worked(job, _START)


def note_over(ledger: Ledger, job: Job, event: Any) -> None:
    job.over = True


def note_not_over(ledger: Ledger, job: Job, event: Any) -> None:
    job.over = False


def note_mine(ledger: Ledger, job: Job, event: Any) -> None:
    """It is this scheduler's from now on, whatever the database was asked before."""
    job.moment = ledger.moment


def note_offered(ledger: Ledger, job: Job, event: Any) -> None:
    """Whether its workload is still the right one is not known: only Airflow can make it anew."""
    job.workload = None
    note_mine(ledger, job, event)


def note_orphan(ledger: Ledger, job: Job, event: Any) -> None:
    """Without a workload of ours: Airflow alone can run it anew."""
    job.orphan = job.runs and job.workload is None


def _emit_id(ledger: Ledger, job: Job, event: Any) -> None:
    if event.info is not None or (job.began and not job.is_task):
        ledger.do(actions.EmitId(job.key, event.info, job.began, job.kind))


# Effects: ends


def emit(ledger: Ledger, job: Job, event: Any) -> None:
    """As the engine says."""
    if event.how is _SUCCESS or event.began:
        _count_begun(ledger, job)
        ledger.worked(job, _START)
    ledger.do(actions.Emit(job.key, event.how, event.reason or None, event.value, job.kind))


def emit_success(ledger: Ledger, job: Job, event: Any) -> None:
    """As the engine has said, and the database confirms; its backend may have been removed since."""
    if job.backend in ledger.backends:
        ledger.worked(job, _START)
    ledger.do(actions.Emit(job.key, _SUCCESS, None, job.value, job.kind))


def emit_failed(ledger: Ledger, job: Job, event: Any) -> None:
    """With what went wrong last. What ended well and has a row that runs had begun after all."""
    ran = job.ended_well and isinstance(event, Row) and event.state is RowState.RUNNING
    trouble = FELL_SILENT if ran else job.trouble
    value = None if job.ended_well else job.value
    ledger.do(actions.Emit(job.key, Outcome.FAILED, trouble or None, value, job.kind))


def emit_end(ledger: Ledger, job: Job, event: Any) -> None:
    """As the engine has said."""
    if job.ended_well or job.offered_well:
        emit_success(ledger, job, event)
    else:
        emit_failed(ledger, job, event)


def note_half(ledger: Ledger, job: Job, event: Any) -> None:
    """Where a task has ended well, and its row is over and ours, it has run, and deferred."""
    if job.ended_well and event.state is RowState.OVER and event.mine and job.backend in ledger.backends:
        ledger.worked(job, _START)


def note_trouble(ledger: Ledger, job: Job, event: Any) -> None:
    job.trouble = event.reason


def suspect_sending(ledger: Ledger, job: Job, event: Any) -> None:
    job.trouble = event.reason
    ledger.met(job, _SEND)


def suspect_start(ledger: Ledger, job: Job, event: Any) -> None:
    """It came to nothing before it began, as the database confirms."""
    if job.backend in ledger.backends and not job.mishap and not ledger.has_no_api(job):
        ledger.met(job, _START)


def doubt(ledger: Ledger, job: Job, event: Any) -> None:
    """Remember the end until the database has said whether it had begun."""
    ended = isinstance(event, Ended)
    if ended and event.how is _SUCCESS and job.workload is not None:
        job.forget_end()
        doubt_success(ledger, job, event)
        return
    ended_badly = ended and event.how is not _SUCCESS
    job.ended_at, job.silent_since = ledger.now, 0.0
    job.ended_well = job.seen_well = False
    job.offered_well = ended and not ended_badly
    job.may_have_begun = ended_badly and event.began is not False
    job.mishap = getattr(event, "mishap", False)
    job.trouble = getattr(event, "reason", "") or job.trouble
    job.nothing_ran = getattr(event, "nothing_ran", job.nothing_ran)
    job.value = getattr(event, "value", None)
    if job.may_have_begun and job.is_task and not job.mishap:
        # Its engine cannot know why it came to nothing.
        ledger.ask_api()
    look_up(ledger, job, event)


def doubt_success(ledger: Ledger, job: Job, event: Any) -> None:
    """As ``doubt``, for one that ended well and has its workload. Nearly every task comes here, and has nothing of an
    earlier end, which ``submit`` has forgotten: what is seldom said is only set then."""
    job.ended_at, job.ended_well, job.trouble = ledger.now, True, NOTHING_BEGAN
    if event.began:
        _count_begun(ledger, job)
        # An end that nobody has seen has a reason.
        job.seen_well = not event.reason
        ledger.worked(job, _START)
    if event.value is not None:
        job.value = event.value
    if event.mishap or event.nothing_ran:
        job.mishap, job.nothing_ran = event.mishap, event.nothing_ran
    look_up(ledger, job, event)


def look_again(ledger: Ledger, job: Job, event: Any) -> None:
    """Silence may be the judge now, and without the execution API every process is silent."""
    ledger.ask_api()
    look_up(ledger, job, event)


def look_up(ledger: Ledger, job: Job, event: Any) -> None:
    _ask(ledger, job, actions.LookUp)


def _ask(ledger: Ledger, job: Job, kind: Question) -> None:
    """And once more after a while, should no answer come."""
    job.looked_at = ledger.now
    ledger.ask(kind, job.key)
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


def look_later(ledger: Ledger, job: Job, event: Any) -> None:
    """And remember whether its process was silent: so is every one in an outage that nobody has told of here."""
    is_silent = event.silent >= ledger.limits.silence and not ledger.has_no_api(job)
    job.silent_since = (job.silent_since or ledger.now) if is_silent else 0.0
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


# Effects: taking back


def withdraw(ledger: Ledger, job: Job, event: Any) -> None:
    job.withdrawn = job.dispatch
    ahead = ledger.backends[job.backend or ""].ahead
    if job.dispatch in ahead:
        ahead[job.dispatch] = False
    ledger.batch(actions.Withdraw, job.backend or "", job.dispatch)


def note_recalled(ledger: Ledger, job: Job, event: Any) -> None:
    job.recalled = job.dispatch


def revoke(ledger: Ledger, job: Job, event: Any) -> None:
    """Its slot is free when the engine answers, or after a while, in the middle of which it is told again."""
    job.revoked, job.dead = 1, event.dead
    ledger.do(actions.Revoke(job.backend or "", job.dispatch))
    ledger.timers.set(job, ledger.now + ledger.limits.let_go_after / 2)


def revoke_again(ledger: Ledger, job: Job, event: Any) -> None:
    job.revoked += 1
    ledger.do(actions.Revoke(job.backend or "", job.dispatch))
    ledger.timers.set(job, ledger.now + ledger.limits.let_go_after / 2)


def let_run(ledger: Ledger, job: Job, event: Any) -> None:
    """It is not told to stop again: the row may be its own."""
    job.revoked, job.began = 0, True
    ledger.timers.set(job, ledger.now + ledger.limits.let_go_after)


def let_go(ledger: Ledger, job: Job, event: Any) -> None:
    ledger.timers.set(job, ledger.now + ledger.limits.let_go_after)


def give_up(ledger: Ledger, job: Job, event: Any) -> None:
    """One that was to be stopped has to end; what was only let go may end in its own way, and is forgotten."""
    if job.revoked:
        clean_up(ledger, job, event)
    else:
        forget(ledger, job, event)


def forget(ledger: Ledger, job: Job, event: Any) -> None:
    """Its engine leaves alone what it has of it."""
    if job.dispatch and job.backend in ledger.backends:
        ledger.do(actions.Forget(job.backend, job.dispatch))


def clean_up(ledger: Ledger, job: Job, event: Any) -> None:
    """The slot is free at once; what is left at the engine is ended."""
    if job.dispatch and job.backend in ledger.backends:
        ledger.do(actions.Revoke(job.backend, job.dispatch, over=True))


def clean_up_spared(ledger: Ledger, job: Job, event: Any) -> None:
    """As ``clean_up``; but what has not begun is not ended after a while: its task may be queued again before it asks
    for leave to begin, and then the execution API lets this very dispatch run it."""
    clean_up(ledger, job, event)
    if not (job.began or job.runs or job.over or getattr(event, "finished", False)):
        forget(ledger, job, event)


def back_in_care(ledger: Ledger, job: Job, event: Any) -> None:
    job.revoked = 0
    ledger.jobs[job.key] = job
    ledger.look_after(job)


def put_back(ledger: Ledger, job: Job, event: Any) -> None:
    """Never while an earlier such question may still be answered: by then the task may have been queued again. Its
    engine, if one has it, is told to drop it when the row is set back: not before, as it may begin."""
    job.asked = True
    _ask(ledger, job, actions.PutBack)


def put_back_later(ledger: Ledger, job: Job, event: Any) -> None:
    """Its row is locked, or was queued again: it is asked for again after a while."""
    job.asked = False
    ledger.timers.set(job, ledger.now + ledger.limits.look_again)


def restart(ledger: Ledger, job: Job, event: Any) -> None:
    job.asked = True
    _ask(ledger, job, actions.Restart)


def unstart(ledger: Ledger, job: Job, event: Any) -> None:
    """From now on it is one that runs, without a workload of ours."""
    job.runs, job.workload, job.asked = True, None, True
    _ask(ledger, job, actions.Unstart)


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
    ledger.occupy(job, job.backend or "", job.dispatch)


def _choose(ledger: Ledger, job: Job) -> None:
    name = askable(ledger, job)
    assert name is not None
    job.candidates = tuple(other for other in job.candidates if other != name)
    ledger.occupy(job, name)
