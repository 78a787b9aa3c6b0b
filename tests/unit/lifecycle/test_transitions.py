# SPDX-License-Identifier: Apache-2.0
"""The truth table of a job's life: for every row of the transitions, a case in which it counts."""

from __future__ import annotations

import pytest
from unit.lifecycle.builders import settings

from airflow_dispatch_provider.lifecycle._ledger import Ledger
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    BackendRules,
    Began,
    CannotRevoke,
    Ended,
    Limits,
    Offered,
    Queued,
    Recall,
    Rejected,
    Returned,
    Revoke,
    Room,
    Sent,
    Stalled,
    Unanswered,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.job import Job, Paused, Waits
from airflow_dispatch_provider.lifecycle.states import OUT, Outcome, Row, RowState, State
from airflow_dispatch_provider.lifecycle.transitions import ROWS as ALL_ROWS
from airflow_dispatch_provider.lifecycle.transitions import TABLE, Back, Down, Due, apply
from airflow_dispatch_provider.routing.decide import Decision
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, EXECUTE_TASK, Target, TaskRef
from airflow_dispatch_provider.routing.reasons import Reason

REF = TaskRef("q", "dag", "x")
NOW = 1000.0
SUCCESS, FAILED = Outcome.SUCCESS, Outcome.FAILED
QUEUED, OVER = Row(RowState.QUEUED), Row(RowState.OVER)
FINISHED = Row(RowState.OVER, finished=True)
ANOTHERS = Row(RowState.QUEUED, mine=False)
RUNS_FOR_ANOTHER = Row(RowState.RUNNING, mine=False)
DIED_FOR_ANOTHER = Row(RowState.RUNNING, mine=False, silent=500.0, here=True)
DIED_ELSEWHERE = Row(RowState.RUNNING, mine=False, silent=500.0)
ALIVE, DEAD = Row(RowState.RUNNING, silent=1.0), Row(RowState.RUNNING, silent=500.0)
CLEARED, CLEARED_ALIVE = DEAD._replace(cleared=True), ALIVE._replace(cleared=True)
DECISION = Decision(Job("x", 1, 0.0, 1), Target(backend="a"), "q", Reason.FIRST_CHOICE)
ONCE_MORE = Queued("x", REF)
FOUND_QUEUED, FOUND_RUNNING = Offered("x", REF, False), Offered("x", REF, True)

WAITS = {"waits": Waits.LAUNCH}
AGAIN_REVOKED = {"again": True, "revoked": 1}
CALLBACK = {"kind": EXECUTE_CALLBACK}
ADOPTED = {"workload": None}
B_REFUSED = {"paused": (Paused("b", 1, NOW + 9, True),)}
ALL_REFUSED = {"backend": "b", "paused": (Paused("a", 1, NOW, True),)}
RETURNED_BEFORE = {"paused": (Paused("a", 1, NOW), Paused("b", 3, NOW + 9))}
TRIED = {"failures": Limits().launch_retries}
TRIED_ALL = {**TRIED, **B_REFUSED}
NO_API = {"api": "away"}
IN_B = {"backend": "b", "dispatch": 7}
MAYBE_B = {"candidates": ("b",)}
B_DOWN = {**MAYBE_B, "down": "b"}
RUNS_IN_B_DOWN = {**B_DOWN, "runs": True}
ENDED_NOW = {"ended_at": NOW, "looked_at": NOW, "may_have_begun": True}
SILENT = {"ended_at": NOW - 60, "looked_at": NOW, "silent_since": NOW - 10}
ENDED_LONG_AGO = {**SILENT, "may_have_begun": True}
FIRST_LOOK = {**ENDED_LONG_AGO, "silent_since": 0.0}
IN_VAIN = {**ENDED_LONG_AGO, "nothing_ran": True}
ENDED_WITHOUT_API = {**ENDED_LONG_AGO, **NO_API}
ORPHAN = {**SILENT, "orphan": True}
ENDED_WELL = {"ended_at": NOW, "looked_at": NOW, "ended_well": True}
SEEN_WELL = {"ended_at": NOW - 10, "seen_well": True}
NEVER_BEGAN = SILENT
ASK_BOTH = "AskApi LookUp"
RECALLED, RECALLED_BEFORE = {"recalled": 1}, {"recalled": 0}
RECALL_ROW, DRAINED_ROW = "Record PutBack", "Withdraw Record"
SPARED = "Revoke Forget"

# fmt: off
ROWS = [
    # state                        given                      event                          then         what is done
    # Queued by Airflow
    ("new",                        {},                        ONCE_MORE,                     "held",      ""),
    ("new",                        {"earlier": True},         ONCE_MORE,                     "held",      ""),
    ("held unclear",               {},                        ONCE_MORE,                     "ended",     ""),
    ("returning",                  {},                        ONCE_MORE,                     "ended",     ""),
    ("returning",                  IN_B,                      ONCE_MORE,                     "ended",     SPARED),
    ("submitted",                  {},                        ONCE_MORE,                     "revoking",  "Withdraw"),
    ("out-submitted",              {},                        ONCE_MORE,                     "revoking",  ""),
    # Sent
    ("held",                       {},                        DECISION,                       "submitted", "Submit"),
    ("held",                       WAITS,                     Due(),                         "held",      ""),
    ("submitted",                  {},                        Sent(0),                       "sent",      ""),
    ("submitted",                  {},                        Sent(0, "id"),                 "sent",      "EmitId"),
    ("sent",                       {},                        Sent(0, "id"),                 "sent",      "EmitId"),
    ("running",                    {},                        Sent(0, "id"),                 "running",   "EmitId"),
    ("sent",                       {},                        Stalled(0, "no image"),        "sent",      "Record"),
    ("sent",                       CALLBACK,                  Stalled(0, "no image"),        "sent",      ""),
    ("submitted running",          {},                        Stalled(0, "no image"),        "=",         ""),
    ("out",                        {},                        Began(0),                      "running",   ""),
    # Not sent
    ("submitted sent",             {},                        Returned(0),                   "held",      ""),
    ("submitted sent",             ADOPTED,                   Returned(0),                   "unclear",   "LookUp"),
    ("running adopting orphaned",  {},                        Returned(0),                   "unclear",   "LookUp"),
    ("submitted sent",             RETURNED_BEFORE,           Returned(0),                   "held",      "Record"),
    ("submitted sent",             {},                        Rejected(0),                   "held",      ""),
    ("submitted sent",             TRIED,                     Rejected(0),                   "held",      ""),
    ("submitted sent",             B_REFUSED,                 Rejected(0),                   "held",      "Record"),
    ("submitted sent",             ALL_REFUSED,               Rejected(0),                   "held",      "Record"),
    ("submitted sent",             {**TRIED_ALL, **NO_API},   Rejected(0),                   "held",      "Record"),
    ("submitted sent",             TRIED_ALL,                 Rejected(0),                   "unclear",   "LookUp"),
    ("submitted sent",             {**TRIED_ALL, **CALLBACK}, Rejected(0),                   "ended",     "failed"),
    ("submitted sent",             ADOPTED,                   Rejected(0),                   "unclear",   "LookUp"),
    ("running adopting orphaned",  {},                        Rejected(0),                   "unclear",   "LookUp"),
    ("running",                    {"began": True},           Returned(0),                   "=",         ""),
    ("running",                    {"began": True},           Rejected(0),                   "=",         ""),
    # Ended
    ("own",                        {},                        Ended(0, SUCCESS, began=True), "unclear",   "LookUp"),
    ("running",                    {"began": True},           Ended(0, SUCCESS),             "unclear",   "LookUp"),
    ("own",                        CALLBACK,                  Ended(0, SUCCESS),             "ended",     "success"),
    ("own",                        {},                        Ended(0, SUCCESS),             "unclear",   "LookUp"),
    ("own",                        ADOPTED,                   Ended(0, SUCCESS),             "unclear",   "LookUp"),
    ("own",                        {},                        Ended(0, FAILED, began=True),  "ended",     "failed"),
    ("own",                        ADOPTED,                   Ended(0, FAILED, began=True),  "unclear",   ASK_BOTH),
    ("adopting orphaned",          {},                        Ended(0, SUCCESS),             "unclear",   "LookUp"),
    ("out",                        {},                     Ended(0, FAILED),              "unclear",   "AskApi LookUp"),
    ("running",                    {"began": True},           Ended(0, FAILED),              "ended",     "failed"),
    ("running",                    {"began": True},           Ended(0, FAILED, began=False), "unclear",   "LookUp"),
    ("own",                        CALLBACK,                  Ended(0, FAILED, began=False), "held",      ""),
    ("own",                        {**CALLBACK, **TRIED},     Ended(0, FAILED, began=False), "ended",     "failed"),
    ("own",                        CALLBACK,                  Ended(0, FAILED),              "ended",     "failed"),
    # Whether it had begun
    ("unclear",                    {},                        OVER,                          "ended",     ""),
    ("unclear",                    {},                        ANOTHERS,                      "ended",     ""),
    ("unclear",                    ENDED_WELL,                FINISHED,                      "ended",     "success"),
    ("unclear",                    ENDED_WELL,                OVER,                          "ended",     ""),
    ("unclear",                    ENDED_WELL,                ANOTHERS,                      "ended",     ""),
    ("unclear",                    ENDED_WELL,                QUEUED,                        "held",      "Record"),
    ("unclear",                    ENDED_WELL,                DEAD,                          "unclear",   ""),
    ("unclear",                    {**ENDED_WELL, **SILENT},  ALIVE,                         "ended",     ""),
    ("unclear",                    {**ENDED_WELL, **TRIED},   QUEUED,                        "ended",     "failed"),
    ("unclear",                    ADOPTED,                   QUEUED,                        "returning", "PutBack"),
    ("unclear",                    TRIED,                     QUEUED,                        "ended",     "failed"),
    ("unclear",                    {**TRIED, **NO_API},       QUEUED,                        "held",      "Record"),
    ("unclear",                    {},                        QUEUED,                        "held",      "Record"),
    ("unclear",                    NEVER_BEGAN,               DEAD,                          "ended",     ""),
    ("unclear",                    IN_VAIN,                   DEAD,                          "returning", "Unstart"),
    ("unclear",                    {**IN_VAIN, **ORPHAN},     DEAD,                          "returning", "Unstart"),
    ("unclear",                    {**IN_VAIN, **NO_API},     DEAD,                          "unclear",   ""),
    ("unclear",                    {**IN_VAIN, **ENDED_NOW},  DEAD,                          "unclear",   ""),
    ("unclear",                    IN_VAIN,                   ALIVE,                         "ended",     ""),
    ("unclear",                    IN_VAIN,                   ANOTHERS,                      "ended",     ""),
    ("unclear",                    IN_VAIN,                   RUNS_FOR_ANOTHER,              "ended",     ""),
    ("unclear",                    IN_VAIN,                   DIED_FOR_ANOTHER,              "returning", "Unstart"),
    ("unclear",                    {**IN_VAIN, **NO_API},     DIED_FOR_ANOTHER,              "unclear",   ""),
    ("unclear",                    {**IN_VAIN, **ENDED_NOW},  DIED_FOR_ANOTHER,              "unclear",   ""),
    ("unclear",                    ENDED_LONG_AGO,            DIED_FOR_ANOTHER,              "ended",     ""),
    ("unclear",                    IN_VAIN,                   DIED_ELSEWHERE,                "ended",     ""),
    ("returning",                  {**IN_VAIN, **IN_B},       DIED_ELSEWHERE,                "ended",     "Forget"),
    ("unclear",                    ENDED_LONG_AGO,            ALIVE,                         "ended",     ""),
    ("unclear",                    ENDED_LONG_AGO,            DEAD,                          "ended",     "failed"),
    ("unclear",                    ENDED_WELL,                CLEARED,                       "ended",     "success"),
    ("unclear",                    ENDED_NOW,                 CLEARED,                       "ended",     "failed"),
    ("unclear",                    {"offered_well": True},      CLEARED,                       "ended",     "success"),
    ("unclear",                    {"offered_well": True},      DEAD,                          "ended",     ""),
    ("unclear",                    IN_VAIN,                   CLEARED,                       "ended",     "failed"),
    ("unclear",                    ENDED_NOW,                 CLEARED._replace(mine=False),  "ended",     ""),
    ("unclear",                    NEVER_BEGAN,               CLEARED,                       "ended",     ""),
    ("unclear",                    ENDED_LONG_AGO,            CLEARED_ALIVE,                 "ended",     ""),
    ("unclear",                    ORPHAN,                    CLEARED,                       "returning", "Restart"),
    ("running",                    {},                        CLEARED_ALIVE,                 "running",   ""),
    ("unclear",                    SEEN_WELL,                 Unanswered(1, "x"),            "ended",     "success"),
    ("unclear",                    {**SEEN_WELL, "seen_well": False}, Unanswered(1, "x"),    "unclear",   ""),
    ("unclear",                    {**SEEN_WELL, "ended_at": NOW - 9}, Unanswered(1, "x"),   "unclear",   ""),
    ("unclear",                    {**SEEN_WELL, "moment": 2}, Unanswered(1, "x"),           "unclear",   ""),
    ("unclear",                    FIRST_LOOK,                DEAD,                          "unclear",   ""),
    ("unclear",                    {**IN_VAIN, **FIRST_LOOK}, DEAD,                          "unclear",   ""),
    ("unclear",                    ENDED_WITHOUT_API,         DEAD,                          "unclear",   ""),
    ("unclear",                    ENDED_NOW,                 ALIVE,                         "unclear",   ""),
    ("unclear",                    ENDED_NOW,                 DEAD,                          "unclear",   ""),
    ("unclear",                    {},                        Due(),                         "unclear",   ASK_BOTH),
    # Reconciled with the database
    ("held",                       {},                        OVER,                          "ended",     ""),
    ("held",                       {},                        ANOTHERS,                      "ended",     ""),
    ("held",                       {},                        ALIVE,                         "ended",     ""),
    ("held",                       {},                        QUEUED,                        "held",      ""),
    ("submitted",                  {},                        ANOTHERS,                      "revoking",  "Withdraw"),
    ("out-submitted",              {},                        ANOTHERS,                      "revoking",  ""),
    ("out",                        {},                        OVER,                          "=",         ""),
    ("out",                        {"over": True},            OVER,                          "ended",     "Revoke"),
    ("out",                        {"over": True},            QUEUED,                        "returning", "PutBack"),
    ("submitted",                  {},                        ALIVE,                         "submitted", "Withdraw"),
    ("sent",                       {},                        ALIVE,                         "running",   ""),
    ("out-adopting",               {},                        QUEUED,                        "=",         ""),
    ("adopting",                   {},                        QUEUED,                        "returning", "PutBack"),
    ("adopting",                   {"since": NOW - 59},       QUEUED,                        "=",         ""),
    ("adopting",                   {"runs": True},            QUEUED,                        "=",         ""),
    ("running adopting orphaned",  {},                        ALIVE,                         "=",         ""),
    # Taken back
    ("held unclear returning",     {},                        Revoke("x"),                   "ended",     ""),
    ("returning",                  IN_B,                      Revoke("x"),                   "ended",     "Revoke"),
    ("out",                        {},                        Revoke("x"),                   "revoking",  "Revoke"),
    ("out",                        {"backend": "c"},          Revoke("x"),                   "=",         ""),
    ("out",                        {"backend": "c"},          Revoke("x", dead=True),        "ended",     "Revoke"),
    ("out",                        {},                        Revoke("x", dead=True),        "revoking",  "Revoke"),
    ("submitted sent",             {},                        Recall("x"),                   "=",         "Withdraw"),
    ("running held",               {},                        Recall("x"),                   "=",         ""),
    ("sent",                       {},                     Recall("x", sent=True),           "returning", RECALL_ROW),
    ("sent",                       CALLBACK,                  Recall("x", sent=True),        "=",         "Withdraw"),
    ("submitted",                  {},                        Recall("x", sent=True),        "=",         "Withdraw"),
    ("submitted",                  {},                        Recall("x", True, "why"),      "=",         DRAINED_ROW),
    ("submitted",                  CALLBACK,                  Recall("x", True, "why"),      "=",         "Withdraw"),
    ("submitted",                  {},                        Recall("x", reason="why"),     "=",         DRAINED_ROW),
    ("running orphaned held",      {},                        Recall("x", sent=True),        "=",         ""),
    ("adopting",                   {},                        Recall("x", sent=True),        "=",         ""),
    ("adopting",                   {"runs": True},            Recall("x", sent=True),        "=",         ""),
    ("submitted",                  RECALLED,                  Sent(0, "id"),                 "returning", RECALL_ROW),
    ("submitted",                  RECALLED_BEFORE,           Sent(0, "id"),                 "sent",      "EmitId"),
    ("adopting",                   RECALLED,                  Adopted(0),                    "returning", RECALL_ROW),
    ("adopting",                   RECALLED,                  Adopted(0, began=True),        "running",   "Record"),
    ("adopting",                   {**RECALLED, "runs": True}, Adopted(0),                   "running",   "Record"),
    ("adopting",                   RECALLED_BEFORE,           Adopted(0),                    "sent",      "Record"),
    ("revoking",                   {},                        CannotRevoke(0),               "sent",      ""),
    ("revoking",                   {"dead": True},            CannotRevoke(0),               "ended",     "Revoke"),
    ("revoking",                   {"again": True},           CannotRevoke(0),               "revoking",  ""),
    ("revoking",                   {"revoked": 1},            Began(0),                      "revoking",  ""),
    ("revoking",                   {},                        Ended(0, SUCCESS),             "ended",     ""),
    ("revoking",                   {},                        Returned(0),                   "ended",     ""),
    ("revoking",                   {},                        Rejected(0),                   "ended",     ""),
    ("revoking",                   {},                        Unknown(0),                    "ended",     ""),
    ("revoking",                   {},                        Due(),                         "ended",     "Forget"),
    ("revoking",                   {"revoked": 1},            Due(),                         "revoking",  "Revoke"),
    ("revoking",                   {"revoked": 2},            Due(),                         "ended",     "Revoke"),
    ("revoking",                   AGAIN_REVOKED,             Due(),                         "ended",     "Revoke"),
    ("revoking",                   {},                        Sent(0, "id"),                 "revoking",  ""),
    ("revoking",                   {},                        Began(0),                      "revoking",  ""),
    ("revoking",                   {},                        Adopted(0),                    "revoking",  ""),
    # Offered for adoption
    ("new",                        MAYBE_B,                   FOUND_QUEUED,                  "adopting",  ""),
    ("new",                        {"candidates": ("gone",)}, FOUND_QUEUED,                  "returning", ""),
    ("new",                        {},                        FOUND_QUEUED,                  "returning", ""),
    ("new",                        B_DOWN,                    FOUND_QUEUED,                  "returning", ""),
    ("new",                        RUNS_IN_B_DOWN,            FOUND_RUNNING,                 "orphaned",  ""),
    ("new",                        {"runs": True},            FOUND_RUNNING,                 "ended",     ""),
    ("out",                        {},                        FOUND_QUEUED,                  "=",         ""),
    ("unclear",                    {},                        FOUND_QUEUED,                  "ended",     ""),
    ("held returning",             {},                        FOUND_QUEUED,                  "=",         ""),
    ("adopting",                   {},                        Due(),                         "adopting",  "Adopt"),
    ("adopting orphaned",          {},                        Adopted(0),                    "sent",      "Record"),
    ("adopting orphaned",          {},                        Adopted(0, began=True),        "running",   "Record"),
    ("adopting orphaned",          {"runs": True},            Adopted(0),                    "running",   "Record"),
    ("adopting orphaned",          MAYBE_B,                   Unknown(0),                    "adopting",  "Adopt"),
    ("adopting orphaned",          RUNS_IN_B_DOWN,            Unknown(0),                    "orphaned",  ""),
    ("adopting orphaned",          {},                        Unknown(0),                    "unclear",   "LookUp"),
    ("adopting orphaned",          {**ADOPTED, "runs": True}, Unknown(0),                    "unclear",   "LookUp"),
    ("unclear",                    ORPHAN,                    Due(),                         "unclear",   ASK_BOTH),
    ("unclear",                    ORPHAN,                    DEAD,                          "returning", "Restart"),
    ("unclear",                    ORPHAN,                    ALIVE,                         "unclear",   ""),
    ("returning",                  IN_VAIN,                   DEAD,                          "unclear",   ""),
    ("returning",                  IN_VAIN,                   ALIVE,                         "ended",     ""),
    ("returning",                  {**IN_VAIN, **IN_B},       DEAD,                          "unclear",   ""),
    ("returning",                  {**IN_VAIN, **IN_B},       DIED_FOR_ANOTHER,              "unclear",   ""),
    ("returning",                  {**IN_VAIN, **IN_B},       RUNS_FOR_ANOTHER,              "ended",     "Forget"),
    ("returning",                  {},                        Due(),                         "returning", "PutBack"),
    ("returning",                  {"asked": True},           Due(),                         "returning", ASK_BOTH),
    ("returning",                  {},                        QUEUED,                        "returning", ""),
    ("returning",                  IN_B,                      OVER,                          "ended",     SPARED),
    ("returning",                  {},                        ANOTHERS,                      "ended",     ""),
    ("returning",                  IN_B,                      ANOTHERS,                      "ended",     SPARED),
    ("returning",                  {**IN_B, "over": True},    ANOTHERS,                      "ended",     "Revoke"),
    ("returning",                  {},                        RUNS_FOR_ANOTHER,              "ended",     ""),
    ("returning",                  IN_B,                      RUNS_FOR_ANOTHER,              "ended",     "Forget"),
    ("returning",                  IN_B,                      ALIVE,                         "adopting",  "Adopt"),
    ("returning",                  {**IN_B, "down": "b"},     ALIVE,                         "orphaned",  ""),
    ("returning",                  {},                        ALIVE,                         "ended",     ""),
    # Backends fail and recover
    ("submitted",                  {},                        Down(),                        "submitted", "Withdraw"),
    ("submitted",                  {},                        Down("drained"),               "submitted", DRAINED_ROW),
    ("submitted",                  CALLBACK,                  Down("drained"),               "submitted", "Withdraw"),
    ("sent running orphaned held", {},                        Down(),                        "=",         ""),
    ("adopting",                   {"runs": True},            Down(),                        "orphaned",  ""),
    ("adopting",                   {},                        Down(),                        "returning", "PutBack"),
    ("orphaned",                   {},                        Back(),                        "adopting",  "Adopt"),
    ("submitted sent running",     {},                        Back(),                        "=",         ""),
]
# fmt: on

GROUPS = {
    "out": "submitted sent running adopting orphaned",
    "own": "submitted sent running",
    "out-submitted": "sent running adopting orphaned",
    "out-adopting": "submitted sent running orphaned",
}
EVERY = [(State(state), *row[1:]) for row in ROWS for state in GROUPS.get(row[0], row[0]).split()]


def ledger_with(state, given):
    """A ledger with one job in that state, at backend a unless the case says otherwise."""
    given = dict(given)
    ledger = Ledger("test", ALL_ROWS)
    ledger.use(settings(rules={"c": BackendRules(revokes=False)}))
    ledger.now, ledger.moment = NOW, 1
    for name, backend in ledger.backends.items():
        backend.room = Room(5, unavailable="away" if name == given.get("down") else None)
    given.pop("down", None)
    ledger.api_trouble, ledger.api_since = given.pop("api", None), NOW - 60
    if given.pop("earlier", False):
        ledger.let_go["x"].add(99)
    kind = given.pop("kind", EXECUTE_TASK)
    job = Job("x", 1, NOW - 100, 1, "workload", kind, None, REF.queue, REF.dag_id, REF.seed)
    again = given.pop("again", False)
    if state is State.NEW:
        job.workload = None
    _place(ledger, job, state, given.pop("backend", "a"), given)
    for name, value in given.items():
        setattr(job, name, value)
    if again:
        ledger.care_for(Job("x", 1, NOW, 2, "workload", REF.kind, None, REF.queue, REF.dag_id, REF.seed))
    ledger.take_actions()
    return ledger, job


def _place(ledger, job, state, backend, given):
    ledger.care_for(job)
    if state in OUT:
        ledger.occupy(job, backend)
    elif "dispatch" in given:
        job.backend = backend
    if state is State.HELD:
        ledger.hold(job)
    ledger.move(job, state)


def done(actions):
    """Names of the actions; how it ended for what Airflow is told."""
    names = [getattr(action, "how", None) or type(action).__name__ for action in actions]
    return " ".join(str(name) for name in names if name not in ("Log", "CountFailure"))


def slots(ledger):
    return sum(backend.out for backend in ledger.backends.values())


@pytest.mark.parametrize(
    ("state", "given", "event", "then", "does"),
    [pytest.param(*row, id=f"{n} {row[0]} {type(row[2]).__name__}") for n, row in enumerate(EVERY)],
)
def test_truth_table(state, given, event, then, does):
    """Which state follows, what is done, and that exactly what is out has a slot."""
    ledger, job = ledger_with(state, given)
    apply(ledger, job, event)
    assert (job.state, done(ledger.take_actions())) == (state if then == "=" else then, does)
    assert slots(ledger) == len(ledger.out) == (job.state in OUT)


def test_every_row_has_a_case():
    """No row of the transitions is without a case in the truth table."""
    met = set()
    for state, given, event, *_ in EVERY:
        ledger, job = ledger_with(state, given)
        case = apply(ledger, job, event)
        if case is not None:
            met.add(TABLE.index(case))
    missing = [TABLE[n] for n in range(len(TABLE)) if n not in met]
    assert not missing, "\n".join(f"{c.state} {c.event.__name__}: {c.words}" for c in missing)


def test_every_way_into_a_state_is_told():
    """Whatever changes a job's state is a step of its story, in words of its own."""
    for case in TABLE:
        assert case.words
        assert case.words[0].islower()
