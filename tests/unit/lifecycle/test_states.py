# SPDX-License-Identifier: Apache-2.0
"""Airflow's words for the states of a task instance."""

from __future__ import annotations

from airflow.utils.state import State

from airflow_dispatch_provider.lifecycle.states import RowState, row_of


def test_airflows_finished_states_are_finished_and_no_others():
    """A task that deferred, or is to be tried again, is over for its dispatch and not for Airflow."""
    words = [str(getattr(state, "value", state)) for state in State.task_states]
    found = {word for word in words if row_of(word, True, 0.0).finished}
    assert found == {str(state.value) for state in State.finished}
    assert {word for word in words if row_of(word, True, 0.0).state is not RowState.OVER} == {
        "queued",
        "running",
        "restarting",
    }
