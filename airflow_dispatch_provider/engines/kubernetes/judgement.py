# SPDX-License-Identifier: Apache-2.0
"""Whose trouble it is that a pod cannot be created: the job's alone, its namespace's, or the server's. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict

WAITS = (Verdict.FULL, Verdict.TROUBLE, Verdict.THROTTLED)
"""Verdicts after which a job waits."""

_AT_THE_QUOTA = (Verdict.FULL, Verdict.THROTTLED)
"""Verdicts on a pod that has got as far as the quota of its namespace."""


def scope_of(answer: Answer, witness: Answer, others: bool) -> Scope:
    """
    One job's trouble is its own until a different job, or a neutral request, meets the same.

    :param answer: to the create, ``FULL``, ``TROUBLE`` or ``THROTTLED``
    :param witness: to a dry run of a neutral pod in the same namespace
    :param others: since the last pod that was created there, a different job has met the same verdict
    :return: never ``UNKNOWN``
    """
    if answer.scope is not Scope.UNKNOWN:
        return answer.scope
    if witness.verdict is Verdict.DONE:
        return Scope.JOB
    if witness.scope is Scope.SERVER:
        return Scope.SERVER
    if witness.verdict is Verdict.TROUBLE or witness.verdict is answer.verdict:
        return Scope.LANE
    if witness.verdict in _AT_THE_QUOTA:
        # A quota is looked at last: what troubles the job does not trouble the neutral pod.
        return Scope.JOB
    # Refused for what it is, e.g. for its dry run: it tells nothing. Others may still be created where there is room.
    return Scope.LANE if others and answer.verdict is Verdict.FULL else Scope.JOB


def counts(answer: Answer, witness: Answer, others: bool) -> bool:
    """Whether a job whose own trouble this is fails after too many of them. A pod for which there is no room at the
    moment, or that met others on its way, waits, and so does one of many where nothing shows that any pod can be
    created."""
    if answer.verdict is Verdict.THROTTLED:
        return False
    if answer.scope is Scope.JOB:
        return True
    return answer.verdict is not Verdict.FULL and (
        witness.verdict in (Verdict.DONE, *_AT_THE_QUOTA) or not others
    )


def best(witnesses: Iterable[Answer]) -> Answer:
    """The answer that says most: one that succeeded refutes the others; one that was refused says nothing."""
    return min(witnesses, key=_weight)


def _weight(answer: Answer) -> int:
    if answer.verdict is Verdict.DONE:
        return 0
    return 1 if answer.verdict in WAITS else 2
