# SPDX-License-Identifier: Apache-2.0
"""Where a task would go, as the backends are now."""

from __future__ import annotations

from typing import Any

import pytest
from operate_answers import FakeAnswers, backend, now

from airflow_dispatch_provider.operate.explaining import explain_now
from airflow_dispatch_provider.operate.model import BackendState, BackendStatus, OrderInForce, Status
from airflow_dispatch_provider.operate.trying import Explained
from airflow_dispatch_provider.routing.model import TaskRef

TWO = {"backends": {name: {"executor": "LocalExecutor", "slots": 4} for name in "ab"}}


def explained(
    *backends: BackendStatus,
    routing: dict[str, Any] | None = None,
    problem: str | None = None,
    seed: str = "",
) -> Explained:
    answers = FakeAnswers()
    route = {"queue": "q", "to": ["a", "b"], "overflow_after": 30}
    answers.routing = {**TWO, "default": "a", "routes": [route], **(routing or {})}
    settings = answers.settings(None).load()
    return explain_now(settings, TaskRef("q", "dag", seed), Status(now(), [], [*backends], problem))


@pytest.mark.parametrize(
    ("first", "target", "reason"),
    [
        pytest.param({}, "a", "first_choice", id="room"),
        pytest.param({"free": 0}, None, "waits_overflow", id="full, and not waited long enough"),
        pytest.param({"state": BackendState.CORDONED}, "b", "failover", id="cordoned"),
        pytest.param({"state": BackendState.DRAINING}, "b", "failover", id="draining"),
        pytest.param({"state": BackendState.DRAINED}, "b", "failover", id="drained"),
        pytest.param({"state": BackendState.FAILING, "free": 0}, "b", "failover", id="failing"),
        pytest.param({"state": BackendState.REMOVED}, "b", "failover", id="removed"),
    ],
)
def test_the_state_of_backends_decides(first: dict[str, Any], target: str | None, reason: str) -> None:
    """As configured, the first target is the choice in all of these."""
    found = explained(backend("a", **first), backend("b"))
    assert found.now is not None
    assert (found.now.backend, found.now.reason) == (target, reason)
    assert found.configured is not None
    assert found.configured.backend == "a"


def test_targets_are_shown_with_their_state() -> None:
    """And with their trouble."""
    found = explained(
        backend("a", state=BackendState.FAILING, free=0, held=3, trouble="no broker"), backend("b")
    )
    first, second = found.targets
    assert (first.state, first.free, first.held, first.trouble) == (BackendState.FAILING, 0, 3, "no broker")
    assert (second.state, second.free) == (BackendState.OPEN, 5)


def test_a_target_that_somebody_has_drained_says_who() -> None:
    """And why."""
    order = OrderInForce("drain", "a", None, "ann", "disks", now(), None)
    found = explained(backend("a", state=BackendState.DRAINED, order=order), backend("b"))
    assert found.targets[0].trouble == "It is drained by ann: disks."


def test_an_order_counts_before_its_schedulers_have_followed_it() -> None:
    """They do within seconds: the next task does not go there."""
    order = OrderInForce("cordon", "a", None, "ann", "disks", now(), None)
    found = explained(backend("a", order=order), backend("b"))
    assert found.now is not None
    assert (found.now.backend, found.now.reason) == ("b", "failover")
    assert found.targets[0].trouble == "It is cordoned by ann: disks."


def test_without_a_scheduler_only_the_configuration_is_explained() -> None:
    """The problem of the status is told, or which backend nobody tells of."""
    assert explained(problem="Run airflow db migrate.").problem == "Run airflow db migrate."
    found = explained(backend("a"))
    assert (found.now, found.problem) == (None, "No scheduler tells of b.")
    assert found.configured is not None


def test_a_backend_of_another_team_is_another_backend() -> None:
    """Of the same name."""
    found = explained(backend("a", team="other"), backend("b"))
    assert found.problem == "No scheduler tells of a."


def test_with_weights_only_a_task_says_where_it_goes() -> None:
    """Shares are told in any case."""
    weights = [{"backend": "a", "weight": 1}, {"backend": "b", "weight": 3}]
    routing = {"routes": [{"queue": "q", "to": weights}]}
    found = explained(backend("a"), backend("b"), routing=routing)
    assert (found.configured, found.now) == (None, None)
    assert [target.share for target in found.targets] == [0.75, 0.25]
    assert explained(backend("a"), backend("b"), routing=routing, seed="dag/run/t/-1").now is not None


def test_an_executor_that_cannot_be_imported_is_named() -> None:
    """With its remedy; the scheduler may well have it."""
    backends = {**TWO["backends"], "a": {"executor": "nowhere.Executor", "slots": 1}}
    problem = explained(backend("a"), backend("b"), routing={"backends": backends}).targets[0].problem
    assert problem is not None
    assert "nowhere" in problem
