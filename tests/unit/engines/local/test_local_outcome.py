# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.local.messages import Ended
from airflow_dispatch_provider.engines.local.outcome import (
    UNSEEN,
    Outcome,
    describe_status,
    outcome_of,
)
from airflow_dispatch_provider.engines.local.pool import Gone, NotStarted, restart_delay


@pytest.mark.parametrize(
    ("event", "is_task", "expected"),
    [
        # the process has ended well: so has the workload
        (Ended(1, 0), True, Outcome("success")),
        (Ended(1, 0), False, Outcome("success")),
        # it said why it could not
        (Ended(1, 1, "RuntimeError: x"), True, Outcome("failure", "RuntimeError: x")),
        # it could not say why
        (Ended(1, -9), True, Outcome("failure", "The supervising process was ended by SIGKILL.")),
        (Ended(1, 3), False, Outcome("failure", "The supervising process ended with exit code 3.")),
        # nobody saw its end: the database knows about a task, nothing about the others
        (Gone(1), True, Outcome("success")),
        (Gone(1), False, Outcome("failure", UNSEEN)),
        # never ran
        (NotStarted(1), True, Outcome("queue again")),
        (NotStarted(1), False, Outcome("queue again")),
    ],
)
def test_what_an_end_means(event, is_task, expected):
    """Every end has one meaning, by kind of workload."""
    assert outcome_of(event, is_task=is_task) == expected


def test_a_signal_without_a_name_is_given_by_number():
    """Real-time signals have no name in Python."""
    assert describe_status(-40) == "The supervising process was ended by signal 40."


def test_pauses_between_template_processes_grow_to_a_bound():
    """The first restart is immediate, later ones wait longer, none more than a minute."""
    assert [restart_delay(n) for n in (1, 2, 3, 4, 5, 9, 50)] == [0, 1, 2, 4, 8, 60, 60]
