# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dispatch_provider.cli.inspection import by_precedence
from airflow_dispatch_provider.operate.explanation import explain
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, BackendView, Route, Target, TaskRef
from airflow_dispatch_provider.routing.reasons import Reason
from airflow_dispatch_provider.routing.routes import RouteTable

UP = BackendView(4)
CORDONED = BackendView(4, Reason.CORDONED)
OPEN = BackendView(4, Reason.CIRCUIT_OPEN)
OTHER_KIND = BackendView(4, None, frozenset({EXECUTE_CALLBACK}))
A, B = Target(backend="a"), Target(backend="b")
DEFAULT = Route(queue="*", to=(Target(backend="z"),))

F, O, X, C = Reason.FIRST_CHOICE, Reason.OVERFLOW, Reason.FAILOVER, Reason.CAPABLE  # noqa: E741


@pytest.mark.parametrize(
    ("views", "overflow_after", "choice", "uses"),
    [
        pytest.param({"a": UP, "b": UP}, 30.0, "a", [[(F, 0)], [(O, 30), (X, 0)]], id="both up"),
        pytest.param({"a": UP, "b": UP}, 0.0, "a", [[(F, 0)], [(O, 0), (X, 0)]], id="overflow at once"),
        pytest.param({"a": UP, "b": UP}, "never", "a", [[(F, 0)], [(X, 0)]], id="never overflows"),
        pytest.param({"a": CORDONED, "b": UP}, 30.0, "b", [[], [(X, 0)]], id="first cordoned"),
        pytest.param({"a": OPEN, "b": UP}, "never", "b", [[], [(X, 0)]], id="first not there"),
        pytest.param({"a": UP, "b": CORDONED}, 30.0, "a", [[(F, 0)], []], id="second cordoned"),
        pytest.param({"a": CORDONED, "b": CORDONED}, 0.0, None, [[], []], id="both cordoned"),
        pytest.param({"a": OTHER_KIND, "b": UP}, 30.0, "b", [[], [(C, 0)]], id="first runs no tasks"),
    ],
)
def test_truth_table(views, overflow_after, choice, uses) -> None:
    route = Route(queue="q", to=(A, B), overflow_after=overflow_after)
    found = explain(RouteTable([route], DEFAULT), TaskRef("q"), {**views, "z": UP})
    assert (found.choice and found.choice.backend) == choice
    assert [[(use.reason, use.after) for use in target.uses] for target in found.targets] == uses


def test_second_target_on_the_same_backend_is_never_used() -> None:
    route = Route(queue="q", to=(A, Target(backend="a", queue="other")))
    found = explain(RouteTable([route], DEFAULT), TaskRef("q"), {"a": UP, "z": UP})
    assert found.targets[1].uses == ()


def test_last_resort_is_never_a_first_choice() -> None:
    route = Route(queue="q", to=(Target(backend="a", weight=0), Target(backend="b", weight=1)))
    found = explain(RouteTable([route], DEFAULT), TaskRef("q"), {"a": UP, "b": UP, "z": UP})
    assert [target.target.backend for target in found.targets] == ["b", "a"]
    assert [use.reason for use in found.targets[1].uses] == [O, X]


queues = st.sampled_from(["a", "ab", "a*", "*", "?b", "b"])
dags = st.none() | st.sampled_from(["d", "d*", "e"])
routes = st.lists(st.builds(Route, queue=queues, dag_id=dags, to=st.just(DEFAULT.to)), max_size=6)


@given(routes, st.sampled_from(["a", "ab", "b", "c"]), st.sampled_from(["d", "dd", "e", "f"]))
def test_precedence_as_listed_is_the_one_that_the_table_has(given: list[Route], queue: str, dag: str) -> None:
    """The first route of the list that fits is the one that the table finds."""
    found = RouteTable(given, DEFAULT).match(TaskRef(queue, dag)).route
    fitting = [
        route
        for route in by_precedence(given)
        if RouteTable([route], DEFAULT).match(TaskRef(queue, dag)).route is route
    ]
    assert found is (fitting[0] if fitting else DEFAULT)
