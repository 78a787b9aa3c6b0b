# SPDX-License-Identifier: Apache-2.0
"""Whose trouble it is: one row for each case."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.kubernetes.answers import Answer, Scope, Verdict
from airflow_dispatch_provider.engines.kubernetes.judgement import best, counts, scope_of

DONE, FULL, THROTTLED, TROUBLE, GONE, INVALID = (Answer(verdict, verdict.value) for verdict in Verdict)
UNREACHABLE = Answer(Verdict.TROUBLE, "no connection", scope=Scope.SERVER)
BUSY = Answer(Verdict.THROTTLED, "429", scope=Scope.SERVER)
NEVER_FITS = Answer(Verdict.FULL, "more than the quota", scope=Scope.JOB)
CROSSED = Answer(Verdict.THROTTLED, "409", scope=Scope.JOB)

CASES = [
    # What the answer itself tells needs no witness.
    (UNREACHABLE, DONE, False, Scope.SERVER),
    (BUSY, DONE, False, Scope.SERVER),
    (NEVER_FITS, FULL, True, Scope.JOB),
    # A neutral pod could be created: it is the job's own affair, however many jobs there are like it.
    (TROUBLE, DONE, False, Scope.JOB),
    (TROUBLE, DONE, True, Scope.JOB),
    (FULL, DONE, True, Scope.JOB),
    # It meets the same: so does every pod of the namespace.
    (TROUBLE, TROUBLE, False, Scope.LANE),
    (FULL, FULL, False, Scope.LANE),
    (FULL, TROUBLE, False, Scope.LANE),
    # Nobody is served at all.
    (TROUBLE, UNREACHABLE, False, Scope.SERVER),
    (TROUBLE, BUSY, False, Scope.SERVER),
    (FULL, UNREACHABLE, False, Scope.SERVER),
    # It got as far as the quota, which is looked at last.
    (TROUBLE, FULL, False, Scope.JOB),
    (TROUBLE, FULL, True, Scope.JOB),
    (TROUBLE, CROSSED, False, Scope.JOB),
    (FULL, CROSSED, True, Scope.JOB),
    (CROSSED, DONE, True, Scope.JOB),
    # It was refused for what it is, which tells nothing: then different jobs tell what is full.
    (TROUBLE, INVALID, False, Scope.JOB),
    (TROUBLE, INVALID, True, Scope.JOB),
    (FULL, INVALID, False, Scope.JOB),
    (FULL, INVALID, True, Scope.LANE),
]


@pytest.mark.parametrize(("answer", "witness", "others", "scope"), CASES)
def test_scope(answer, witness, others, scope):
    """One job's trouble is its own until a different job, or a neutral request, meets the same."""
    assert scope_of(answer, witness, others) is scope


COUNTS = [
    (TROUBLE, DONE, False, True),
    (TROUBLE, DONE, True, True),
    (TROUBLE, FULL, True, True),
    (TROUBLE, CROSSED, True, True),
    (NEVER_FITS, NEVER_FITS, True, True),
    # Others were in its way.
    (CROSSED, CROSSED, False, False),
    # There will be room.
    (FULL, DONE, False, False),
    (FULL, INVALID, False, False),
    # Nothing shows that any pod can be created: one of many waits until something does.
    (TROUBLE, INVALID, False, True),
    (TROUBLE, INVALID, True, False),
]


@pytest.mark.parametrize(("answer", "witness", "others", "counted"), COUNTS)
def test_what_counts_against_a_job(answer, witness, others, counted):
    """After too many of these it fails."""
    assert counts(answer, witness, others) is counted


@pytest.mark.parametrize(
    ("witnesses", "says_most"),
    [
        ([TROUBLE, DONE], DONE),
        ([INVALID, FULL], FULL),
        ([INVALID, TROUBLE, INVALID], TROUBLE),
        ([INVALID], INVALID),
    ],
)
def test_the_witness_that_says_most(witnesses, says_most):
    """One that succeeds refutes all others."""
    assert best(witnesses) is says_most
