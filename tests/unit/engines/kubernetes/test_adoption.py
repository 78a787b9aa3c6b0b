# SPDX-License-Identifier: Apache-2.0
"""Whose pods are taken over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes import adoption
from airflow_dispatch_provider.engines.kubernetes.model import Created, End, Ended
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker

from .fakes import NAMESPACE, FakeApi, named, pod, status

LABELS = {"labels": {"airflow-worker": "9"}}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's key is its name, on every Airflow version."""
    monkeypatch.setattr(adoption, "identity", lambda pod, uuid_keys: pod["metadata"]["name"])
    monkeypatch.setattr(adoption, "AIRFLOW_V_3_4_PLUS", False)


class Setting:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.reports: list[Any] = []
        self.later: list[Any] = []
        self.tracker = Tracker(self.reports.append, lambda *_: None, lambda *_: None, ())

    def adopt(self, *wanted: str) -> set[Any]:
        ids = dict.fromkeys(wanted, "an-id")
        return asyncio.run(
            adoption.adopt(
                self.api,
                [NAMESPACE],
                ["1", "2"],
                "9",
                ids,
                self.tracker,
                lambda *call: self.later.append(call),
            )
        )


def test_pods_of_wanted_tasks_get_the_new_label_and_are_tracked():
    """In one list for all dead schedulers; those of other tasks are left alone."""
    setting = Setting()
    setting.api.pods = [pod("a", "Running"), pod("b", "Running")]
    assert setting.adopt("a", "c") == {"a"}
    (asked,) = setting.api.names("list")
    assert "airflow-worker in (1,2)" in asked
    assert setting.api.names("label airflow-worker") == ["a"]
    assert setting.reports == [Created("a", named("a"))]


def test_a_pod_that_has_failed_already_is_reported():
    """No later event would tell."""
    setting = Setting()
    setting.api.pods = [pod("a", "Failed")]
    assert setting.adopt("a") == {"a"}
    assert [report.end for report in setting.reports if isinstance(report, Ended)] == [End.FAILED]


def test_a_pod_that_is_gone_meanwhile_is_not_adopted():
    setting = Setting()
    setting.api.pods = [pod("a", "Running")]
    setting.api.answers += [status(200), status(404, "not found", "NotFound")]
    assert setting.adopt("a") == set()


@pytest.mark.parametrize("answer", [OSError("cut"), status(500), status(429)])
def test_a_pod_that_cannot_be_labelled_now_is_adopted_all_the_same(answer):
    """It is there: to start a second copy would be wrong."""
    setting = Setting()
    setting.api.pods = [pod("a", "Running")]
    setting.api.answers += [status(200), answer]
    assert setting.adopt("a") == {"a"}
    assert setting.later == [(named("a"), LABELS)]
