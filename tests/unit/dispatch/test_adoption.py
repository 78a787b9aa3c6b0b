# SPDX-License-Identifier: Apache-2.0
"""Tasks of a scheduler that died: who may have them, and what the life cycle is offered."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from unit.lifecycle.builders import route

from airflow_dispatch_provider.bridge import task_instances
from airflow_dispatch_provider.dispatch.adoption import candidates, offers
from airflow_dispatch_provider.lifecycle.events import Offered
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable

REMOTE = {"a": False, "b": False, "c": False}


@pytest.mark.parametrize(
    ("targets", "is_local", "order"),
    [
        # As the route has them, then the others as they are configured.
        (["b", "c"], REMOTE, ["b", "c", "a"]),
        (["c", "b"], REMOTE, ["c", "b", "a"]),
        (["a"], REMOTE, ["a", "b", "c"]),
        # Who can tell for sure is asked first, whether it is on the route or not.
        (["b"], {**REMOTE, "c": True}, ["c", "b", "a"]),
        (["c", "b"], {**REMOTE, "b": True, "a": True}, ["b", "a", "c"]),
    ],
)
def test_who_is_asked_first(targets: list[str], is_local: dict[str, bool], order: list[str]) -> None:
    """Local backends, then those of its route, then the others."""
    table = RouteTable([route("q", *targets)], route("*", "a"), {})
    assert candidates(table, is_local, TaskRef("q")) == order


class Row:
    """A row of the table of task instances; columns that are not given are NULL."""

    def __init__(self, **columns: Any) -> None:
        vars(self).update(columns)

    def __getattr__(self, name: str) -> Any:
        return None


def task_instance(state: str, task_id: str = "t", **columns: Any) -> Any:
    given = {"id": uuid4(), "dag_id": "d", "run_id": "r", "task_id": task_id, "queue": "q"}
    index = {"map_index": 3, "region_index": 3}  # the same by two names since Airflow 3.4
    return task_instances.detached(Row(state=state, **given, **index, **columns))


def offered(*tis: Any, owners: Any = None) -> list[Offered]:
    def asked(ref: TaskRef) -> list[str]:
        return [f"may have {ref.queue}"]

    return list(offers(tis, lambda ti: f"key of {ti.task_id}", lambda tis: owners or {}, asked))


REF = TaskRef("q", "d", "d/r/t/3")


@pytest.mark.parametrize(
    ("state", "owner", "runs", "names"),
    [
        ("running", None, True, ("may have q",)),
        ("restarting", None, True, ("may have q",)),
        ("running", "b", True, ()),
        ("queued", None, False, ()),
        ("queued", "b", False, ()),
    ],
)
def test_evidence_makes_an_owner(state: str, owner: str | None, runs: bool, names: tuple[str, ...]) -> None:
    """A task that runs without any was dispatched all the same: whoever could have it is asked."""
    ti = task_instance(state)
    (found,) = offered(ti, owners={ti.id: owner} if owner else None)
    assert found[:5] == ("key of t", REF, runs, owner, names)
    assert (found.subject.id, found.subject.state) == (ti.id, state)
    assert found.subject is not ti


def test_one_that_cannot_be_offered_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It is said which one, and Airflow does with it as it does without executors that adopt."""

    def key_of(ti: Any) -> str:
        if ti.task_id == "bad":
            raise ValueError("no key")
        return str(ti.task_id)

    tis = [task_instance("running", "bad"), task_instance("running", "good")]
    found = list(offers(tis, key_of, lambda tis: {}, lambda ref: []))
    assert [each.key for each in found] == ["good"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
