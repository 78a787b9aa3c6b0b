# SPDX-License-Identifier: Apache-2.0
"""Effects of transitions, to the letter: the actions with all their values, when a job is woken, what is remembered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from unit.lifecycle.test_transitions import (
    ADOPTED,
    ALIVE,
    B_REFUSED,
    CALLBACK,
    CLEARED,
    DEAD,
    DECISION,
    ENDED_NOW,
    ENDED_WELL,
    FAILED,
    FINISHED,
    FOUND_QUEUED,
    IN_B,
    MAYBE_B,
    NO_API,
    NOW,
    ONCE_MORE,
    ORPHAN,
    OVER,
    QUEUED,
    RUNS_IN_B_DOWN,
    SUCCESS,
    TRIED,
    TRIED_ALL,
    ledger_with,
)

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle._effects import FELL_SILENT, NOTHING_BEGAN, emit_failed
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Began,
    CannotRevoke,
    Ended,
    Recall,
    Rejected,
    Returned,
    Revoke,
    Sent,
    Stalled,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.job import Job, Paused, Waits
from airflow_dispatch_provider.lifecycle.states import GONE, State
from airflow_dispatch_provider.lifecycle.transitions import Back, Down, Due, apply
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, EXECUTE_TASK, Target
from airflow_dispatch_provider.routing.reasons import Reason

VALUE = {"value": "value"}
LAUNCHED_OFTEN = {"failures": 3, "paused": (Paused("b", 4, NOW + 9),)}
END = {
    "ended_at": 1.0,
    "looked_at": 1.0,
    "silent_since": 1.0,
    "may_have_begun": True,
    "ended_well": True,
    "seen_well": True,
    "offered_well": True,
    "mishap": True,
    "nothing_ran": True,
    "value": "value",
}
"""Remembered of how an earlier dispatch ended."""

NO_END = {name: getattr(Job, name) for name in END}

MOVED_ON = {"paused": (Paused("b", 1, NOW + 9),)}
MOVED_ON_LONG_AGO = {"paused": (Paused("b", 1, NOW),)}
REFUSED_LONG_AGO = {"paused": (Paused("b", 1, NOW, True),)}
GIVEN_BACK_HERE = {"paused": (Paused("a", 1, NOW + 9),)}


WITHDRAWN = "why: it is taken back from 'a', unless it has been sent"
SET_BACK = "an operator has taken it back from 'a': it is scheduled again, unless it begins first"
FOUND = "'a' was found to have it, and this scheduler watches it from now on"
BEGAN = "it began on 'a' before it could be set back to scheduled, and goes on there"


def submit(number, reason=Reason.FIRST_CHOICE):
    dispatch = actions.Dispatch(number, "x", "workload", Target(backend="a"), "q", reason, EXECUTE_TASK)
    return actions.Submit("a", [dispatch])


# fmt: off
ACTIONS = [
    # state       given                     event                                      what is done, to the letter
    ("held",      {},                       DECISION,                                  submit(1)),
    ("held",      MOVED_ON,                 DECISION,                                  submit(1, Reason.REFUSED)),
    ("held",      MOVED_ON_LONG_AGO,        DECISION,                                  submit(1)),
    ("held",      REFUSED_LONG_AGO,         DECISION,                                  submit(1, Reason.REFUSED)),
    ("held",      GIVEN_BACK_HERE,          DECISION,                                  submit(1)),
    ("submitted", {},                       Sent(1, "id"),                             actions.EmitId("x", "id")),
    ("submitted", CALLBACK,                 Sent(1),                                   None),
    ("sent",      {},                       Began(1),                                  None),
    ("sent",      {},                       Began(1, "id"),                            actions.EmitId("x", "id", True)),
    ("sent",      CALLBACK,                 Began(1),      actions.EmitId("x", None, True, EXECUTE_CALLBACK)),
    ("sent",      {},                       Stalled(1, "no image"),
     actions.Record("x", "waits_start", "no image")),
    ("submitted", B_REFUSED,                Rejected(1, "no"),
     actions.Record("x", "waits_launch", "no")),
    ("submitted", {**B_REFUSED, **CALLBACK}, Rejected(1, "no"),                        None),
    ("submitted", {**TRIED_ALL, **CALLBACK}, Rejected(1, "no"),
     actions.Emit("x", FAILED, "no", None, EXECUTE_CALLBACK)),
    ("submitted", {},                       Returned(1, "no"),                         None),
    ("running",   {},                       Ended(1, SUCCESS, True),                   actions.LookUp(1, ["x"])),
    ("running",   CALLBACK,                 Ended(1, SUCCESS, True),
     actions.Emit("x", SUCCESS, kind=EXECUTE_CALLBACK)),
    ("running",   {},                       Ended(1, SUCCESS),                         actions.LookUp(1, ["x"])),
    ("unclear",   ENDED_WELL,               FINISHED,                                  actions.Emit("x", SUCCESS)),
    ("unclear",   ENDED_WELL,               GONE,                                      actions.Emit("x", SUCCESS)),
    ("unclear",   {**ENDED_WELL, "backend": "gone"}, FINISHED,                         actions.Emit("x", SUCCESS)),
    ("unclear",   ENDED_WELL,               FINISHED._replace(mine=False),             None),
    ("unclear",   ENDED_WELL,               OVER,                                      None),
    ("unclear",   {},                       FINISHED,                                  None),
    ("running",   {},                       Ended(1, FAILED, True, "why", "value"),
     actions.Emit("x", FAILED, "why", "value")),
    ("running",   CALLBACK,                 Ended(1, FAILED),
     actions.Emit("x", FAILED, None, None, EXECUTE_CALLBACK)),
    ("running",   {},                       Ended(1, FAILED, False),                   actions.LookUp(1, ["x"])),
    ("unclear",   TRIED,                    QUEUED,                                    actions.Emit("x", FAILED)),
    ("unclear",   {**ENDED_NOW, **VALUE, "trouble": "why"}, CLEARED, actions.Emit("x", FAILED, "why", "value")),
    ("unclear",   {**ENDED_WELL, **VALUE},  CLEARED,                    actions.Emit("x", SUCCESS, None, "value")),
    ("unclear",   {"offered_well": True},     CLEARED,                    actions.Emit("x", SUCCESS)),
    ("unclear",   {**TRIED, **VALUE, "trouble": "why"}, QUEUED,    actions.Emit("x", FAILED, "why", "value")),
    ("unclear",   {"trouble": "why"},       QUEUED,                      actions.Record("x", "waits_launch", "why")),
    ("unclear",   ADOPTED,                  QUEUED,                                    actions.PutBack(1, ["x"])),
    ("unclear",   ORPHAN,                   DEAD,                                      actions.Restart(1, ["x"])),
    ("unclear",   {},                       Due(),  [actions.AskApi(), actions.LookUp(1, ["x"])]),
    ("submitted", {},                       ONCE_MORE,                                 actions.Withdraw("a", [1])),
    ("submitted", {},                       Recall("x"),                               actions.Withdraw("a", [1])),
    ("submitted", {},                       Recall("x", True, "why"),
     [actions.Withdraw("a", [1]), actions.Record("x", "withdrawn", WITHDRAWN)]),
    ("submitted", {},                       Down(),                                    actions.Withdraw("a", [1])),
    ("submitted", {},                       Down("why"),
     [actions.Withdraw("a", [1]), actions.Record("x", "withdrawn", WITHDRAWN)]),
    ("sent",      {},                       Recall("x", True),
     [actions.Record("x", "recalled", SET_BACK), actions.PutBack(1, ["x"])]),
    ("submitted", {"recalled": 1},          Sent(1, "id"),
     [actions.Record("x", "recalled", SET_BACK), actions.PutBack(1, ["x"])]),
    ("adopting",  {"recalled": 1},          Adopted(1),
     [actions.Record("x", "recalled", SET_BACK), actions.PutBack(1, ["x"])]),
    ("adopting",  {},                       Adopted(1),  actions.Record("x", "taken_over", FOUND)),
    ("adopting",  {"recalled": 1},          Adopted(1, True),  actions.Record("x", "began_first", BEGAN)),
    ("adopting",  {"recalled": 1, "runs": True}, Adopted(1),  actions.Record("x", "began_first", BEGAN)),
    ("sent",      {},                       Revoke("x"),                               actions.Revoke("a", 1)),
    ("revoking",  {"revoked": 1},           Due(),                                     actions.Revoke("a", 1)),
    ("revoking",  {"revoked": 2},           Due(),  actions.Revoke("a", 1, over=True)),
    ("revoking",  {"dead": True},           CannotRevoke(1),  actions.Revoke("a", 1, over=True)),
    ("returning", IN_B,                     Revoke("x"),  actions.Revoke("b", 7, over=True)),
    ("returning", {"backend": "gone", "dispatch": 7}, Revoke("x"),                     None),
    ("returning", {},                       Due(),                                     actions.PutBack(1, ["x"])),
    ("returning", {"asked": True},          Due(),  [actions.AskApi(), actions.LookUp(1, ["x"])]),
]
# fmt: on


@pytest.mark.parametrize(("row", "reason"), [(DEAD, FELL_SILENT), (QUEUED, "no image")])
def test_what_ended_well_and_runs_by_its_row_had_begun(row, reason) -> None:
    """Its user is not told that it never did; nor is Airflow told the engine's own word, which was success."""
    done: list[Any] = []
    said = "success", None
    job = SimpleNamespace(key="x", ended_well=True, trouble="no image", value=said, kind="ExecuteTask")
    emit_failed(SimpleNamespace(do=done.append), job, row)  # type: ignore[arg-type]
    assert [(action.info, action.value) for action in done] == [(reason, None)]


@pytest.mark.parametrize(
    ("state", "given", "event", "action"),
    [pytest.param(*row, id=f"{n} {row[0]} {type(row[2]).__name__}") for n, row in enumerate(ACTIONS)],
)
def test_what_is_done_names_the_job_and_its_dispatch(state, given, event, action):
    """With its kind, its trouble and the value of its engine where there is one."""
    ledger, job = ledger_with(State(state), given)
    apply(ledger, job, event)
    expected = action if isinstance(action, list) else [action]
    assert ledger.take_actions() == ([] if action is None else expected)


def test_a_backend_that_is_asked_for_a_task_is_told_all_that_is_known_of_it():
    """Each question has a number of its own, and a slot."""
    ledger, job = ledger_with(State.NEW, {**MAYBE_B, "runs": True})
    apply(ledger, job, FOUND_QUEUED)
    assert ledger.take_actions() == []
    assert ledger.timers.pop(NOW) == [job]
    apply(ledger, job, Due())
    assert ledger.take_actions() == [actions.Adopt("b", [actions.Found(1, "x", job.ref, True)])]
    assert job.candidates == ()


# fmt: off
WOKEN = [
    # state       given                      event              seconds until it is woken; None: it is not
    ("new",       {"earlier": True},         ONCE_MORE,         10),
    ("new",       {},                        ONCE_MORE,         None),
    ("new",       {},                        FOUND_QUEUED,      0),
    ("new",       MAYBE_B,                   FOUND_QUEUED,      0),
    ("submitted", B_REFUSED,                 Rejected(0),       1),
    ("submitted", {**B_REFUSED, "failures": 3}, Rejected(0),    8),
    ("submitted", {**TRIED_ALL, **NO_API},   Rejected(0),       60),
    ("submitted", {},                        Rejected(0),       1),
    ("submitted", {},                        Returned(0),       None),
    ("submitted", {"paused": (Paused("a", 1, NOW),)}, Returned(0),      1),
    ("submitted", {"paused": (Paused("a", 3, NOW),)}, Returned(0),      4),
    ("submitted", {"paused": (Paused("a", 3, NOW),), "withdrawn": 1}, Returned(0), None),
    ("sent",      {},                        Ended(0, FAILED),  10),
    ("unclear",   {},                        Due(),             10),
    ("unclear",   ENDED_NOW,                 ALIVE,             10),
    ("unclear",   ORPHAN,                    ALIVE,             10),
    ("unclear",   {},                        QUEUED,            1),
    ("unclear",   ADOPTED,                   QUEUED,            10),
    ("unclear",   ORPHAN,                    DEAD,              10),
    ("sent",      {},                        ONCE_MORE,         60),
    ("submitted", {},                        ONCE_MORE,         60),
    ("sent",      {},                        Revoke("x"),       30),
    ("revoking",  {"revoked": 1},            Due(),             30),
    ("returning", {},                        Due(),             10),
    ("returning", {"asked": True},           Due(),             10),
    ("returning", {"asked": True},           QUEUED,            10),
    ("adopting",  {},                        Down(),            10),
    ("adopting",  {},                        Unknown(0),        10),
]
# fmt: on


@pytest.mark.parametrize(
    ("state", "given", "event", "seconds"),
    [pytest.param(*row, id=f"{n} {row[0]} {type(row[2]).__name__}") for n, row in enumerate(WOKEN)],
)
def test_when_a_job_is_woken(state, given, event, seconds):
    """One that waits for an answer asks again; one that came to nothing is launched later, each time later."""
    ledger, job = ledger_with(State(state), given)
    apply(ledger, job, event)
    until = 1e9 if seconds is None else seconds
    assert ledger.timers.pop(NOW + until - 0.1) == []
    assert ledger.timers.pop(NOW + until) == ([] if seconds is None else [job])


# fmt: off
REMEMBERED = [
    # state       given                        event                          what is known of the job then
    ("new",       {"earlier": True},           ONCE_MORE,                     {"waits": Waits.EARLIER}),
    ("held",      {"over": True, "began": True, "runs": True}, DECISION,
     {"over": False, "began": False, "runs": False, "backend": "a", "dispatch": 1}),
    ("held",      {**END, "dispatch": 7},      DECISION,                      NO_END),
    ("revoking",  {"revoked": 1},              Began(0),                      {"revoked": 0, "began": True}),
    ("revoking",  {"revoked": 1, "dead": True}, Began(0),                     {"revoked": 1, "began": False}),
    ("revoking",  {"revoked": 1, "began": True}, Began(0),                    {"revoked": 1}),
    ("submitted", {"paused": (Paused("a", 2, NOW),)}, Sent(0),                {"paused": ()}),
    ("sent",      {},                          Began(0),                      {"began": True, "runs": False}),
    ("sent",      {"over": True},              ALIVE,                         {"runs": True, "over": False}),
    ("running",   {"over": True},              ALIVE,                         {"over": False}),
    ("submitted", {"over": True},              ALIVE,                         {"over": False}),
    ("submitted", {},                          Returned(0, "no"),
     {"trouble": "no", "paused": (Paused("a", 1, NOW),)}),
    ("submitted", {},                          Rejected(0, "no"),
     {"trouble": "no", "paused": (Paused("a", 1, NOW + 1, True),), "failures": 0}),
    ("submitted", {"paused": (Paused("a", 1, NOW, True),)}, Rejected(0, "no"),
     {"paused": (Paused("a", 2, NOW + 2, True),)}),
    ("submitted", B_REFUSED,                   Rejected(0, "no"),
     {"trouble": "no", "paused": (), "failures": 1, "waits": Waits.LAUNCH, "sequence": 1}),
    ("submitted", {**B_REFUSED, **NO_API},     Rejected(0, "no"),             {"failures": 0}),
    ("submitted", {**B_REFUSED, "backend": "b"}, Recall("x"),                 {"withdrawn": 1, "recalled": -1}),
    ("submitted", {},                        Recall("x", True),               {"recalled": 1}),
    ("sent",      {},                        Recall("x", True),               {"recalled": 1}),
    ("adopting",  {},                        Recall("x", True),               {"recalled": 1}),
    ("adopting",  {"runs": True},            Recall("x", True),               {"recalled": -1}),
    ("submitted", ADOPTED,                     Returned(0, "no"),
     {"ended_at": NOW, "looked_at": NOW, "may_have_begun": False, "mishap": False, "trouble": "no", "value": None}),
    ("running",   {},                          Ended(0, FAILED, None, "", "value", True),
     {"ended_at": NOW, "looked_at": NOW, "may_have_begun": True, "mishap": True, "trouble": "", "value": "value"}),
    ("running",   {"trouble": "before"},       Ended(0, FAILED, False),
     {"may_have_begun": False, "mishap": False, "trouble": "before"}),
    ("running",   {"workload": None},          Ended(0, SUCCESS),
     {"may_have_begun": False, "ended_well": False, "offered_well": True}),
    ("running",   {"workload": None, "offered_well": True}, Ended(0, FAILED),   {"offered_well": False}),
    ("running",   {},                          Ended(0, SUCCESS),
     {"ended_well": True, "looked_at": NOW, "trouble": NOTHING_BEGAN, "value": None}),
    ("running",   {},                          Ended(0, SUCCESS, True, "", "value", True, True),
     {"mishap": True, "nothing_ran": True, "value": "value"}),
    ("running",   {"ended_well": True, "seen_well": True}, Ended(0, FAILED),
     {"ended_well": False, "seen_well": False}),
    ("running",   {"workload": None},          Ended(0, FAILED, began=True),  {"may_have_begun": True}),
    ("unclear",   LAUNCHED_OFTEN,              QUEUED,                        {"failures": 4}),
    ("unclear",   {"backend": "a", "dispatch": 7}, QUEUED,                    {"paused": (Paused("a", 1, NOW, True),)}),
    ("unclear",   ENDED_NOW,                   Due(),                         {"looked_at": NOW, "ended_at": NOW}),
    ("unclear",   ENDED_NOW,                   DEAD,                          {"silent_since": NOW}),
    ("unclear",   {**ENDED_NOW, "silent_since": 9.0}, DEAD,                   {"silent_since": 9.0}),
    ("unclear",   {**ENDED_NOW, "silent_since": 9.0}, ALIVE,                  {"silent_since": 0.0}),
    ("unclear",   {**ENDED_NOW, **NO_API},     DEAD,                          {"silent_since": 0.0}),
    ("running",   {"silent_since": 9.0},       Ended(0, FAILED),              {"silent_since": 0.0}),
    ("running",   {},                          Ended(0, SUCCESS, True),       {"seen_well": True}),
    ("running",   {},                          Ended(0, SUCCESS, True, "unseen"), {"seen_well": False}),
    ("running",   {},                          Ended(0, SUCCESS),             {"seen_well": False}),
    ("sent",      {},                          FOUND_QUEUED,                  {"workload": None}),
    ("sent",      {},                          Revoke("x"),                   {"revoked": 1, "dead": False}),
    ("sent",      {},                          Revoke("x", dead=True),        {"revoked": 1, "dead": True}),
    ("revoking",  {"revoked": 1},              Due(),                         {"revoked": 2}),
    ("revoking",  {"revoked": 1},              CannotRevoke(0),               {"revoked": 0}),
    ("returning", {},                          Due(),                         {"asked": True}),
    ("returning", {"asked": True},             QUEUED,                        {"asked": False}),
    ("unclear",   {**ORPHAN, "asked": False},  DEAD,                          {"asked": True}),
    ("adopting",  {"runs": True, **ADOPTED},   Unknown(0),                    {"orphan": True}),
    ("adopting",  {"runs": True},              Unknown(0),                    {"orphan": False}),
    ("adopting",  ADOPTED,                     Unknown(0),                    {"orphan": False}),
    ("adopting",  {"candidates": ("b", "c")},  Unknown(0),
     {"candidates": ("c",), "backend": "b", "dispatch": 2}),
    ("adopting",  {**RUNS_IN_B_DOWN, "candidates": ("gone", "b")}, Unknown(0),
     {"candidates": ("gone",), "backend": "b", "dispatch": 2}),
    ("returning", IN_B,                        ALIVE,
     {"runs": True, "backend": "b", "dispatch": 7}),
    ("adopting",  {},                          Adopted(0, began=True),        {"orphan": False}),
    ("orphaned",  {},                          Back(),                        {"backend": "a", "dispatch": 1}),
]
# fmt: on


@pytest.mark.parametrize(
    ("state", "given", "event", "known"),
    [pytest.param(*row, id=f"{n} {row[0]} {type(row[2]).__name__}") for n, row in enumerate(REMEMBERED)],
)
def test_what_is_remembered_of_a_job(state, given, event, known):
    """As far as a later decision depends on it."""
    ledger, job = ledger_with(State(state), given)
    apply(ledger, job, event)
    assert {name: getattr(job, name) for name in known} == known


@pytest.mark.parametrize(("passed", "then"), [(0.9, State.ORPHANED), (1.0, State.ADOPTING)])
def test_one_that_began_meanwhile_is_asked_for_as_soon_as_its_backend_may_be_tried(passed, then):
    """Until then it keeps its slot there."""
    ledger, job = ledger_with(State.RETURNING, IN_B)
    backend = ledger.backends["b"]
    backend.circuit = backend.circuit.failed(NOW - passed, "away", 1.0)
    apply(ledger, job, ALIVE)
    assert job.state is then


@pytest.mark.parametrize(
    ("given", "event", "mends"),
    [
        ({}, Ended(1, SUCCESS, True), True),
        ({}, Ended(1, SUCCESS), False),
        ({}, Ended(1, FAILED, began=True), True),
        # Seen to begin before; that was the time to say so.
        ({"began": True}, Ended(1, FAILED), False),
        (CALLBACK, Ended(1, FAILED), False),
        (CALLBACK, Ended(1, SUCCESS), True),
    ],
)
def test_an_end_shows_that_its_backend_works_only_where_it_had_begun(given, event, mends):
    """Its circuit closes then."""
    ledger, job = ledger_with(State.SENT, given)
    ledger.broke(ledger.backends["a"], "away")
    apply(ledger, job, event)
    assert (ledger.backends["a"].circuit.retry_at is None) is mends


@pytest.mark.parametrize(
    ("row", "mends"), [(OVER, True), (OVER._replace(mine=False), False), (QUEUED, False)]
)
def test_a_half_that_ended_well_shows_that_its_backend_works(row, mends):
    """Its task has deferred: nobody is told, and its circuit closes."""
    ledger, job = ledger_with(State.UNCLEAR, {**ENDED_WELL, "backend": "a", "dispatch": 7})
    ledger.broke(ledger.backends["a"], "away")
    apply(ledger, job, row)
    assert (ledger.backends["a"].circuit.retry_at is None) is mends


def test_what_is_launched_later_goes_behind_its_equals():
    """One that is returned unsent keeps its place."""
    for event, first in ((Returned(1), "x"), (Rejected(1), "y")):
        ledger, job = ledger_with(State.SUBMITTED, B_REFUSED)
        ledger.next_sequence()
        other = Job("y", 1, NOW, ledger.next_sequence(), "workload", EXECUTE_TASK, None, "q", "dag", "y")
        apply(ledger, job, event)
        assert sorted([other, job], key=lambda each: each.sequence)[0].key == first


def test_what_its_engine_cannot_stop_is_in_our_care_again():
    """The database is asked about it, and it is refreshed, as before."""
    ledger, job = ledger_with(State.SENT, {})
    apply(ledger, job, Revoke("x"))
    assert ("x" in ledger.jobs, list(ledger.looks), list(ledger.refreshes)) == (False, [], [])
    apply(ledger, job, CannotRevoke(1))
    assert ledger.jobs == {"x": job}
    assert list(ledger.looks) == [(job, NOW + 30)]
    assert list(ledger.refreshes) == [(job, NOW + 150)]
