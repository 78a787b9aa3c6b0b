# SPDX-License-Identifier: Apache-2.0
"""Manifests of pods: their name stays, their token is fresh, and they carry the mark of their dispatch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes._creating import FRESH, Maker, Request
from airflow_dispatch_provider.engines.kubernetes._search import key_of
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes._verdicts import Verdict
from airflow_dispatch_provider.engines.kubernetes.status import MARK
from airflow_dispatch_provider.testing import make_task


class Factory:
    """Makes another name in another namespace each time."""

    def __init__(self, annotations: Any = None) -> None:
        self.annotations = annotations
        self.built: list[tuple[Any, Any]] = []

    def build(self, workload: Any, key: Any) -> dict[str, Any]:
        self.built.append((workload, key))
        number = len(self.built)
        return {
            "metadata": {"name": f"p{number}", "namespace": f"n{number}", "annotations": self.annotations},
            "spec": number,
        }

    def plain(self, namespace: str) -> None:
        return None


def maker(factory: Factory, renew: Any = lambda workload: workload) -> Maker:
    return Maker(None, factory, (), renew)  # type: ignore[arg-type]


@pytest.mark.parametrize("annotations", [None, {}, {"theirs": "x", MARK: "another"}])
def test_it_carries_the_mark_of_its_dispatch(annotations: Any) -> None:
    """Beside all that a template has there; the task is named as its database row is."""
    task, factory = make_task(), Factory(annotations)
    request = Request("key", task, "mark")
    maker(factory).build(request, 100.0)
    assert request.manifest == {
        "metadata": {"name": "p1", "namespace": "n1", "annotations": {**(annotations or {}), MARK: "mark"}},
        "spec": 1,
    }
    assert request.pod == PodName("n1", "p1")
    assert factory.built == [(task, key_of(task.ti))]


def test_its_token_is_made_anew_when_it_is_no_longer_fresh() -> None:
    """The name stays: the server may have a pod of that name already."""
    factory, renewed = Factory(), []
    made = maker(factory, lambda workload: renewed.append(workload) or f"{workload}+")  # type: ignore[func-returns-value]
    request = Request("key", "callback", "mark")
    made.build(request, 100.0)
    assert (renewed, request.minted) == (["callback"], 100.0)
    made.build(request, 100.0 + FRESH - 0.1)
    assert len(factory.built) == 1
    made.build(request, 100.0 + FRESH)
    assert factory.built == [("callback+", "key"), ("callback++", "key")]
    assert request.manifest is not None
    assert (request.pod, request.manifest["spec"]) == (PodName("n1", "p1"), 2)
    assert (renewed, request.minted) == (["callback", "callback+"], 100.0 + FRESH)


class Api:
    """Its answer to a create is lost; ``there`` is what it lists."""

    def __init__(self, *there: str) -> None:
        self.there = [{"metadata": {"annotations": {MARK: mark}}} for mark in there]
        self.listed: list[tuple[str | None, dict[str, Any]]] = []

    async def create_pod(self, namespace: str, manifest: Any, dry_run: bool = False) -> Any:
        raise TimeoutError

    async def list_pods(self, namespace: str | None, **how: Any) -> Any:
        self.listed.append((namespace, how))
        return self.there, "1"


@pytest.mark.parametrize(
    ("there", "verdict", "doubtful"),
    [
        (["mark"], Verdict.DONE, False),
        (["another"], Verdict.INVALID, False),
        # The request may still be on its way.
        ([], Verdict.TROUBLE, True),
    ],
)
def test_after_a_lost_answer_its_pod_is_looked_for(
    there: list[str], verdict: Verdict, doubtful: bool
) -> None:
    """By its name, and without all that is in a pod."""
    api, request = Api(*there), Request("key", "callback", "mark")
    made = Maker(api, Factory(), (), lambda workload: workload)  # type: ignore[arg-type]
    made.build(request, 0.0)
    answer = asyncio.run(made.ask(request))
    assert (answer.verdict, request.doubtful) == (verdict, doubtful)
    assert api.listed == [("n1", {"metadata_only": True, "fields": "metadata.name=p1"})]


def test_what_could_not_be_built_has_its_fresh_token_for_the_next_time() -> None:
    """It is not made anew for another request soon after."""
    renewed: list[Any] = []
    factory = Factory()
    made = maker(factory, lambda workload: renewed.append(workload) or workload)  # type: ignore[func-returns-value]
    request, build = Request("key", "callback", "mark"), factory.build
    factory.build = lambda workload, key: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        made.build(request, 100.0)
    factory.build = build  # type: ignore[method-assign]
    made.build(request, 101.0)
    assert (len(renewed), request.pod) == (1, PodName("n1", "p1"))
