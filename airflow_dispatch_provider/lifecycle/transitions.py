# SPDX-License-Identifier: Apache-2.0
"""The life of a job: one table, each row one case.

For a job in ``state`` that ``event`` is about, the first row counts whose ``when`` holds; without ``when`` it always
does. The job comes into the state ``then``, and what ``do`` names is done, in this order. Where no row fits, nothing
happens: late news, or news that changes nothing.

A dispatch that is out has a slot (``states.OUT``), from the moment at which it comes into such a state until it leaves
them; no effect counts slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_dispatch_provider.lifecycle import _effects as do
from airflow_dispatch_provider.lifecycle import _guards as if_
from airflow_dispatch_provider.lifecycle import _telling as tell
from airflow_dispatch_provider.lifecycle._effects import Effect
from airflow_dispatch_provider.lifecycle._guards import Guard
from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    CannotRevoke,
    Ended,
    Offered,
    Queued,
    Recall,
    Rejected,
    Returned,
    Revoke,
    Sent,
    Stalled,
    Unanswered,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.job import Job
from airflow_dispatch_provider.lifecycle.states import Row, State
from airflow_dispatch_provider.lifecycle.states import State as S
from airflow_dispatch_provider.lifecycle.story import LONGEST, shorten
from airflow_dispatch_provider.routing.decide import Decision


class Due(NamedTuple):
    """The moment has come that was set when it came into its state."""


class Down(NamedTuple):
    """Its backend cannot be used any more."""

    reason: str = ""
    """How people have ordered so; empty: it fails."""


class Back(NamedTuple):
    """Its backend can be used again."""


class Case(NamedTuple):
    """One row of the table."""

    state: State
    event: type[Any]
    when: Guard | None
    then: State
    do: tuple[Effect, ...]
    words: str
    """The event and its reason, as the story of the job tells it."""


_OUT = (S.SUBMITTED, S.SENT, S.RUNNING, S.ADOPTING, S.ORPHANED)
"""Out and believed."""

_OWN = (S.SUBMITTED, S.SENT, S.RUNNING)

_SENT = (S.SENT, S.RUNNING, S.ADOPTING, S.ORPHANED)


def _in(
    states: State | tuple[State, ...],
    event: type[Any],
    when: Guard | None,
    then: State | None,
    *effects: Effect,
    why: str,
) -> Iterable[Case]:
    """A row for each of the states; ``then`` None: it stays in its state."""
    every = states if isinstance(states, tuple) else (states,)
    return [Case(state, event, when, then or state, effects, why) for state in every]


# fmt: off
_TABLE: tuple[Iterable[Case], ...] = (
    # Queued by Airflow
    _in(S.NEW, Queued, if_.earlier_is_out, S.HELD, do.wait_for_earlier,
        why="queued again; an earlier dispatch of it has not ended yet"),
    _in(S.NEW, Queued, None, S.HELD, do.hold,
        why="queued"),
    _in((S.HELD, S.UNCLEAR), Queued, None, S.ENDED,
        why="queued again, which replaces it"),
    _in(S.RETURNING, Queued, None, S.ENDED, do.clean_up_spared,
        why="set back to scheduled, and queued again"),
    _in(S.SUBMITTED, Queued, None, S.REVOKING, do.withdraw, do.let_go,
        why="queued again: this dispatch is let go"),
    _in(_SENT, Queued, None, S.REVOKING, do.let_go,
        why="queued again, after it deferred or was set back: this dispatch is let go"),

    # Sent
    _in(S.HELD, Decision, None, S.SUBMITTED, do.submit,
        why="dispatched"),
    _in(S.HELD, Due, None, None, do.hold,
        why="may be launched now"),
    _in(S.SUBMITTED, Sent, if_.is_recalled, S.RETURNING, tell.recalled, do.put_back,
        why="sent, though it was recalled: it is set back to scheduled"),
    _in(S.SUBMITTED, Sent, None, S.SENT, do.note_sent,
        why="sent"),
    _in((S.SENT, S.RUNNING), Sent, None, None, do.note_sent,
        why="the engine has given it another id"),
    _in(S.SENT, Stalled, None, None, tell.stalled,
        why="does not start"),
    _in(_OUT, Began, None, S.RUNNING, do.note_begun,
        why="began"),

    # Not sent
    _in((S.SUBMITTED, S.SENT), Returned, if_.has_no_workload, S.UNCLEAR, do.doubt,
        why="not sent, and adopted: only Airflow can queue it again"),
    _in((S.SUBMITTED, S.SENT), Returned, None, S.HELD, do.note_trouble, do.note_lane, do.hold_again,
        why="returned unsent, to its old place"),
    _in((S.SUBMITTED, S.SENT), Rejected, if_.has_another_target, S.HELD, do.suspect_sending, do.hold_elsewhere,
        why="could not be sent; another target has it next"),
    _in((S.SUBMITTED, S.SENT), Rejected, if_.exhausted_without_row, S.ENDED, do.suspect_sending, do.emit_failed,
        why="could not be sent, too often"),
    _in((S.SUBMITTED, S.SENT), Rejected, if_.exhausted, S.UNCLEAR, do.suspect_sending, do.doubt,
        why="could not be sent, too often; the database is asked before it fails"),
    _in((S.SUBMITTED, S.SENT), Rejected, if_.has_no_workload, S.UNCLEAR, do.doubt,
        why="not sent, and adopted: only Airflow can queue it again"),
    _in((S.SUBMITTED, S.SENT), Rejected, None, S.HELD, do.suspect_sending, do.launch_later,
        why="could not be sent; the others go first"),
    _in(S.RUNNING, Returned, if_.has_begun, None,
        why="said to be unsent, though its engine has seen it begin: not believed"),
    _in(S.RUNNING, Rejected, if_.has_begun, None,
        why="said to be unsent, though its engine has seen it begin: not believed"),
    _in((S.RUNNING, S.ADOPTING, S.ORPHANED), Returned, None, S.UNCLEAR, do.doubt,
        why="not sent, though the database has it as running"),
    _in((S.RUNNING, S.ADOPTING, S.ORPHANED), Rejected, None, S.UNCLEAR, do.doubt,
        why="not sent, though the database has it as running"),

    # Ended
    _in((S.ADOPTING, S.ORPHANED), Ended, None, S.UNCLEAR, do.doubt,
        why="ended; the database is asked whether that was all of it"),
    _in(_OWN, Ended, if_.maybe_half, S.UNCLEAR, do.doubt,
        why="ended, and was offered: the database is asked whether that was all of it"),
    _in(_OWN, Ended, if_.task_succeeded, S.UNCLEAR, do.doubt_success,
        why="ended well; the database is asked whether that was all of it"),
    _in(_OWN, Ended, if_.succeeded, S.ENDED, do.emit,
        why="succeeded"),
    _in(_OWN, Ended, if_.had_begun, S.ENDED, do.emit,
        why="had begun, and failed"),
    _in(_OWN, Ended, if_.may_launch_without_row, S.HELD, do.note_trouble, do.launch_later,
        why="ended before it began"),
    _in(_OWN, Ended, if_.has_no_row, S.ENDED, do.emit,
        why="failed"),
    _in(_OWN, Ended, None, S.UNCLEAR, do.doubt,
        why="ended; the database is asked whether it had begun"),

    # Whether it had begun
    _in(S.UNCLEAR, Row, if_.finished_well, S.ENDED, do.emit_success,
        why="succeeded, and is finished in the database"),
    _in(S.UNCLEAR, Row, if_.over_or_anothers, S.ENDED, do.note_half,
        why="over in the database, or another scheduler's"),
    _in(S.UNCLEAR, Row, if_.queued_no_workload, S.RETURNING, do.put_back,
        why="had not begun: it is set back to scheduled"),
    _in(S.UNCLEAR, Row, if_.queued_exhausted, S.ENDED, do.emit_failed,
        why="had not begun, and was launched too often"),
    _in(S.UNCLEAR, Row, if_.queued, S.HELD, do.suspect_start, do.launch_later, do.prefer_others,
        why="had not begun: it will be launched again"),
    _in(S.UNCLEAR, Row, if_.cleared, S.ENDED, do.emit_end,
        why="was cleared while it ran, and has ended: Airflow waits for that"),
    _in(S.UNCLEAR, Row, if_.began_in_vain, S.RETURNING, do.unstart,
        why="was let begin, and nothing of it has run, since the answer was lost: it is set back to scheduled"),
    _in(S.UNCLEAR, Row, if_.orphan_died, S.RETURNING, do.restart,
        why="ran for a scheduler that died, and sends no heartbeat any more: Airflow runs it anew"),
    _in(S.UNCLEAR, Row, if_.orphan_lives, None, do.look_later,
        why="runs where no backend of ours sees it; its heartbeat will tell"),
    _in(S.UNCLEAR, Row, if_.runs_elsewhere, S.ENDED,
        why="another dispatch of it runs, and Airflow watches that"),
    _in(S.UNCLEAR, Row, if_.died_running, S.ENDED, do.emit_failed,
        why="had begun, and sends no heartbeat any more"),
    _in(S.UNCLEAR, Row, None, None, do.look_later,
        why="the database has it as running; its heartbeat will tell"),
    _in(S.UNCLEAR, Unanswered, if_.seen_to_succeed, S.ENDED, do.emit_success,
        why="succeeded, as its engine has seen, and the database cannot be asked"),
    _in(S.UNCLEAR, Due, None, None, do.look_again,
        why="the database is asked again"),

    # Reconciled with the database
    _in(S.HELD, Row, if_.over_or_not_mine, S.ENDED,
        why="over in the database, or another scheduler's"),
    _in(S.HELD, Row, if_.running, S.ENDED,
        why="another dispatch of it runs, and Airflow watches that"),
    _in(S.SUBMITTED, Row, if_.not_mine, S.REVOKING, do.withdraw, do.let_go,
        why="another scheduler has it now"),
    _in(_SENT, Row, if_.not_mine, S.REVOKING, do.let_go,
        why="another scheduler has it now"),
    _in(_OUT, Row, if_.over_again, S.ENDED, do.clean_up,
        why="over in the database, and its engine says nothing"),
    _in(_OUT, Row, if_.over, None, do.note_over,
        why="over in the database; its engine has until the next look to say so"),
    _in(_OUT, Row, if_.queued_again, S.RETURNING, do.put_back,
        why="was over, and its engine says nothing; since queued again: it is set back to scheduled"),
    _in(S.SUBMITTED, Row, if_.running, None, do.note_not_over, do.withdraw,
        why="runs, maybe by an earlier dispatch"),
    _in(S.SENT, Row, if_.running, S.RUNNING, do.note_not_over, do.note_runs,
        why="runs, as the database says"),
    _in(S.ADOPTING, Row, if_.queued_unanswered, S.RETURNING, do.put_back,
        why="had not begun, and its backend does not answer: it is set back to scheduled"),
    _in(_OUT, Row, None, None, do.note_not_over,
        why="as before"),

    # Taken back
    _in((S.HELD, S.UNCLEAR), Revoke, None, S.ENDED,
        why="revoked"),
    _in(S.RETURNING, Revoke, None, S.ENDED, do.clean_up,
        why="revoked"),
    _in(_OUT, Revoke, if_.dead_and_cannot_revoke, S.ENDED, do.clean_up,
        why="found dead by Airflow, on a backend that cannot stop it"),
    _in(_OUT, Revoke, if_.cannot_revoke, None,
        why="cannot be revoked there: it stays as it is"),
    _in(_OUT, Revoke, None, S.REVOKING, do.revoke,
        why="revoked"),
    _in(S.SENT, Recall, if_.recalled_though_sent, S.RETURNING, do.note_recalled, tell.recalled, do.put_back,
        why="recalled before it began: it is set back to scheduled"),
    _in(S.SUBMITTED, Recall, if_.recalled_though_sent, None, do.note_recalled, do.withdraw, tell.withdrawn,
        why="recalled: taken back if it is not sent, and else set back to scheduled"),
    _in(S.ADOPTING, Recall, if_.recalled_not_begun, None, do.note_recalled,
        why="recalled: set back to scheduled, unless its backend has seen it begin"),
    _in((S.SUBMITTED, S.SENT), Recall, None, None, do.withdraw, tell.withdrawn,
        why="recalled, if it has not been sent"),
    _in(S.REVOKING, CannotRevoke, if_.is_dead, S.ENDED, do.clean_up,
        why="cannot be revoked there, and Airflow is done with it"),
    _in(S.REVOKING, CannotRevoke, if_.still_wanted, S.SENT, do.back_in_care,
        why="cannot be revoked there: it stays as it was"),
    _in(S.REVOKING, Began, if_.was_let_begin, None, do.let_run,
        why="began all the same: its row had been queued again, and the Execution API let it run that"),
    _in(S.REVOKING, Ended, None, S.ENDED,
        why="has ended after it was let go"),
    _in(S.REVOKING, Returned, None, S.ENDED,
        why="was never sent"),
    _in(S.REVOKING, Rejected, None, S.ENDED,
        why="was never sent"),
    _in(S.REVOKING, Unknown, None, S.ENDED,
        why="its backend does not know it"),
    _in(S.REVOKING, Due, if_.unanswered, None, do.revoke_again,
        why="its engine has said nothing: it is told once more"),
    _in(S.REVOKING, Due, None, S.ENDED, do.give_up,
        why="its engine said nothing more; its slot is free"),

    # Offered for adoption
    _in(S.NEW, Offered, if_.can_be_asked, S.ADOPTING, do.ask_first,
        why="offered by Airflow: its backend is asked"),
    _in(S.NEW, Offered, if_.runs_unasked, S.ORPHANED, do.keep_slot,
        why="runs on a backend that cannot be asked now"),
    _in(S.NEW, Offered, if_.runs, S.ENDED,
        why="runs, no backend of ours can have it, and Airflow watches it"),
    _in(S.NEW, Offered, None, S.RETURNING, do.soon,
        why="had not begun, and nobody has it: it is set back to scheduled"),
    _in(S.HELD, Offered, None, None, do.note_mine,
        why="offered, though it is held: an older row means nothing"),
    _in(S.UNCLEAR, Offered, None, S.ENDED,
        why="offered: another scheduler may have had it meanwhile"),
    _in(S.RETURNING, Offered, None, None, do.note_offered,
        why="offered, while it is given back: an older row means nothing"),
    _in(_OUT, Offered, None, None, do.note_offered,
        why="offered, though it is out: it was taken for dead, or deferred and was queued by another scheduler"),
    _in(S.ADOPTING, Due, None, None, do.adopt,
        why="the backend is asked"),
    _in((S.ADOPTING, S.ORPHANED), Adopted, if_.adopted_running, S.RUNNING, tell.adopted,
        why="adopted"),
    _in(S.ADOPTING, Adopted, if_.is_recalled, S.RETURNING, tell.recalled, do.put_back,
        why="adopted, and recalled before it began: it is set back to scheduled"),
    _in((S.ADOPTING, S.ORPHANED), Adopted, None, S.SENT, tell.adopted,
        why="adopted"),
    _in((S.ADOPTING, S.ORPHANED), Unknown, if_.can_be_asked, S.ADOPTING, do.ask_next,
        why="that backend does not have it; the next is asked"),
    _in((S.ADOPTING, S.ORPHANED), Unknown, if_.runs_unasked, S.ORPHANED, do.keep_slot,
        why="that backend does not have it; the next cannot be asked now"),
    _in((S.ADOPTING, S.ORPHANED), Unknown, None, S.UNCLEAR, do.note_orphan, do.doubt,
        why="no backend has it; the database is asked"),
    _in(S.RETURNING, Due, if_.never_asked, None, do.put_back,
        why="the database is asked to set it back to scheduled"),
    _in(S.RETURNING, Due, None, None, do.look_again,
        why="the database is asked what has become of that"),
    _in(S.RETURNING, Row, if_.queued_and_mine, None, do.put_back_later,
        why="could not be set back to scheduled yet; it will be tried again"),
    _in(S.RETURNING, Row, if_.maybe_in_vain, S.UNCLEAR, do.look_later,
        why="could not be set back to scheduled yet, or runs again; its heartbeat will tell"),
    _in(S.RETURNING, Row, if_.runs_for_another, S.ENDED, do.forget,
        why="began meanwhile, and another scheduler has it"),
    _in(S.RETURNING, Row, if_.over_or_not_mine, S.ENDED, do.clean_up_spared,
        why="set back to scheduled: Airflow queues it again"),
    _in(S.RETURNING, Row, if_.began_there_askable, S.ADOPTING, do.keep_slot_there, do.adopt,
        why="began meanwhile; its backend is asked"),
    _in(S.RETURNING, Row, if_.began_there, S.ORPHANED, do.keep_slot_there,
        why="began meanwhile on a backend that cannot be asked now"),
    _in(S.RETURNING, Row, if_.running, S.ENDED,
        why="began meanwhile, and Airflow watches it"),

    # Backends fail and recover
    _in(S.SUBMITTED, Down, None, None, do.withdraw, tell.withdrawn,
        why="its backend cannot be used: taken back if it is not sent"),
    _in(S.ADOPTING, Down, if_.runs, S.ORPHANED,
        why="runs on a backend that cannot be asked now"),
    _in(S.ADOPTING, Down, None, S.RETURNING, do.put_back,
        why="had not begun, and its backend cannot be asked: it is set back to scheduled"),
    _in(S.ORPHANED, Back, None, S.ADOPTING, do.adopt,
        why="its backend can be asked again"),
)
# fmt: on

TABLE: tuple[Case, ...] = tuple(case for rows in _TABLE for case in rows)

_WITH_REASON = (Down, Ended, Recall, Rejected, Returned, Stalled)

Rows = Mapping[type[Any], Mapping[State, Sequence[tuple[int, Case, Guard | None, bool, bool]]]]
"""By event and state: the number in ``TABLE``, the row, its guard, whether it leads to another state, whether its event
has a reason."""


def rows_of(cases: Mapping[int, Case]) -> Rows:
    """The rows by which a machine goes.

    :param cases: by their number in ``TABLE``, in order
    """
    rows: dict[type[Any], dict[State, list[tuple[int, Case, Guard | None, bool, bool]]]] = {
        case.event: {} for case in TABLE
    }
    for number, case in cases.items():
        row = number, case, case.when, case.then is not case.state, case.event in _WITH_REASON
        rows[case.event].setdefault(case.state, []).append(row)
    return rows


ROWS = rows_of(dict(enumerate(TABLE)))


def apply(ledger: Ledger, job: Job, event: Any) -> Case | None:
    """Let an event happen to a job; returns the row of the table, or None where none fits."""
    rows: Rows = ledger.rows
    for number, case, when, moves, has_reason in rows[type(event)].get(job.state, ()):
        if when is None or when(ledger, job, event):
            if moves:
                ledger.move(job, case.then)
            for effect in case.do:
                effect(ledger, job, event)
            if moves or case.do:
                story = job.story
                story += (ledger.now, number, job.backend, event.reason if has_reason else "")
                job.story = story if len(story) <= LONGEST else shorten(story)
            if job.state is State.ENDED:
                ledger.past.add(job.key, job.story)
            return case
    return None
