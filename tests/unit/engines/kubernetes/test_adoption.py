# SPDX-License-Identifier: Apache-2.0
"""Whose pods are taken over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes import adoption
from airflow_dispatch_provider.engines.kubernetes.adoption import Adoption, Wanted
from airflow_dispatch_provider.engines.kubernetes.model import Created, End, Ended, Searched
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker

from .fakes import NAMESPACE, FakeApi, named, pod, status, until

LABELS = {"labels": {"airflow-worker": "9"}}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's key is its name, on every Airflow version."""
    monkeypatch.setattr(adoption, "identity", lambda pod, uuid_keys: pod["metadata"]["name"])
    monkeypatch.setattr(adoption, "AIRFLOW_V_3_4_PLUS", False)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch, little_waiting: None) -> None:
    monkeypatch.setattr(adoption, "GRACE", 0.01)


class Setting:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.reports: list[Any] = []
        self.later: list[Any] = []
        self.namespaces: list[str] = [NAMESPACE]
        self.tracker = Tracker(self.reports.append, lambda *_: None, lambda *_: None, ())

    def adopt(self, *wanted: str) -> set[Any]:
        """Keys of those that were taken over."""

        async def adopt() -> None:
            await self.adoption.adopt(Wanted({"1", "2"}, dict.fromkeys(wanted, "an-id")))

        asyncio.run(adopt())
        absent = {r.key for r in self.reports if isinstance(r, Ended) and r.end is End.VANISHED}
        return {*wanted} - absent

    @property
    def adoption(self) -> Adoption:
        return Adoption(
            self.api,
            self.namespaces,
            "9",
            self.tracker,
            lambda *call: self.later.append(call),
            self.reports.append,
        )


def test_pods_of_wanted_tasks_get_the_new_label_and_are_tracked():
    """In one list for all dead schedulers; those of other tasks are left alone."""
    setting = Setting()
    setting.api.pods = [pod("a", "Running"), pod("b", "Running")]
    assert setting.adopt("a") == {"a"}
    (asked,) = setting.api.names("list")
    assert "airflow-worker in (1,2,9)" in asked
    assert setting.api.names("label airflow-worker") == ["a"]
    assert setting.reports == [Created("a", named("a"))]


def test_a_task_without_a_pod_is_looked_for_twice_and_reported_as_vanished():
    """The dead scheduler may have asked for it at its last moment."""
    setting = Setting()
    setting.api.pods = [pod("b", "Running")]
    assert setting.adopt("a", "b") == {"b"}
    assert len(setting.api.names("list")) == 2
    assert [(r.key, r.pod) for r in setting.reports if isinstance(r, Ended)] == [("a", None)]


def test_a_pod_that_has_failed_already_is_reported():
    """No later event would tell."""
    setting = Setting()
    setting.api.pods = [pod("a", "Failed")]
    assert setting.adopt("a") == {"a"}
    assert [report.end for report in setting.reports if isinstance(report, Ended)] == [End.FAILED]


def test_a_pod_that_is_gone_meanwhile_is_not_adopted():
    setting = Setting()
    setting.api.pods = [pod("a", "Running")]
    setting.api.rules.append(lambda verb, *_: status(404, "not found") if verb.startswith("label") else None)
    assert setting.adopt("a") == set()


@pytest.mark.parametrize("answer", [OSError("cut"), status(500), status(429)])
def test_a_pod_that_cannot_be_labelled_now_is_adopted_all_the_same(answer):
    """It is there: to start a second copy would be wrong. A list by the new label does not show it, and it is not
    missed there."""
    setting = Setting()
    setting.api.pods = [pod("a", "Running")]
    setting.api.answers += [status(200), answer]
    assert setting.adopt("a") == {"a"}
    assert setting.later == [(named("a"), LABELS)]
    assert setting.tracker.sure_pods(NAMESPACE) == set()
    setting.tracker.see("MODIFIED", pod("a", "Running"))
    assert setting.tracker.sure_pods(NAMESPACE) == {named("a")}


def test_an_outage_is_waited_for():
    """Until the server answers, nobody knows what is gone."""
    setting = Setting()
    setting.api.pods = [pod("a", "Running")]
    setting.api.answers += [OSError("refused"), status(503), status(500)]
    assert setting.adopt("a") == {"a"}


def test_a_namespace_that_does_not_answer_keeps_no_pod_of_another_one_from_being_adopted():
    """Its role may have been taken away; what may be there is not reported as vanished."""
    setting = Setting()
    setting.namespaces = ["forbidden", NAMESPACE]
    setting.api.pods = [pod("a", "Running")]
    setting.api.rules.append(lambda verb, namespace, _: status(403) if namespace == "forbidden" else None)

    async def adopt() -> None:
        task = asyncio.create_task(setting.adoption.adopt(Wanted({"1"}, {"a": "1", "b": "2"})))
        await until(lambda: setting.reports)
        task.cancel()

    asyncio.run(adopt())
    assert setting.reports == [Created("a", named("a"))]


def test_a_search_tells_what_is_there_and_changes_nothing():
    """Several that come together are one list."""
    setting = Setting()
    setting.api.pods = [pod("a", "Running"), pod("c", "Running")]

    async def search() -> None:
        adoption = setting.adoption
        await asyncio.gather(*(adoption.search(Wanted({"1"}, {key: "id"})) for key in "ab"))

    asyncio.run(search())
    assert setting.reports == [
        Searched(frozenset({"a"}), frozenset()),
        Searched(frozenset(), frozenset({"b"})),
    ]
    assert [verb for verb, _ in setting.api.calls] == ["list"]
