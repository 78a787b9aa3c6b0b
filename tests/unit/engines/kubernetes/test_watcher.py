# SPDX-License-Identifier: Apache-2.0
"""That a watch loses nothing, wherever it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes import status as pod_status
from airflow_dispatch_provider.engines.kubernetes import watcher
from airflow_dispatch_provider.engines.kubernetes._pods import Pods
from airflow_dispatch_provider.engines.kubernetes.pod_api import Reply
from airflow_dispatch_provider.engines.kubernetes.watcher import Watcher, has_gone_back, is_deaf
from airflow_dispatch_provider.lifecycle.events import Ended
from airflow_dispatch_provider.lifecycle.states import Outcome

from .fakes import NAMESPACE, FakeApi, named, pod, status, until

SUCCEEDED, VANISHED = (
    (Outcome.SUCCESS, ""),
    (Outcome.FAILED, "Pod airflow/p is gone, and nobody saw how it ended."),
)
GONE = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}


pytestmark = pytest.mark.usefixtures("little_waiting")


class Setting:
    """A watcher of one pod, which has been created, and what it tells."""

    def __init__(self) -> None:
        self.api: Any = FakeApi()
        self.pods = Pods()
        self.pods.expect(1, named("p"), None)
        self.pods.confirm(named("p"))
        self.api.pods = [pod("p", "Running")]
        self.watcher = Watcher(self.api, self, NAMESPACE, "airflow-worker=1")

    def sure_pods(self, namespace: str | None) -> Any:
        return set(self.versions(namespace))

    def versions(self, namespace: str | None) -> Any:
        return self.pods.versions(namespace)

    def see(self, event_type: str, manifest: Any) -> None:
        self.pods.see(pod_status.see(event_type, manifest, ()))

    def missing(self, pods: Any) -> None:
        self.pods.missing(pods)

    @property
    def ends(self) -> list[tuple[Outcome, str]]:
        return [(event.how, event.reason) for event in self.pods.events if isinstance(event, Ended)]


def running(test: Callable[[Setting], Awaitable[None]]) -> Setting:
    """Run the watcher beside a test, in one event loop."""

    async def both() -> Setting:
        setting = Setting()
        task = asyncio.create_task(setting.watcher.run())
        await asyncio.wait_for(test(setting), 30)
        task.cancel()
        return setting

    return asyncio.run(both())


def event(kind: str, version: str, *args: Any, **more: Any) -> dict[str, Any]:
    seen = pod("p", *args, **more)
    seen["metadata"]["resourceVersion"] = version
    return {"type": kind, "object": seen}


def test_a_list_shows_what_is_there_and_a_watch_goes_on_from_it():
    async def test(setting: Setting) -> None:
        setting.api.events.append(event("MODIFIED", "101", "Succeeded"))
        await until(lambda: setting.ends)

    setting = running(test)
    assert setting.ends == [SUCCEEDED]
    assert setting.api.watched_from == ["100"]


def test_a_watch_that_is_cut_goes_on_where_it_was():
    """Without a list, and without a word: it happens all the time."""

    async def test(setting: Setting) -> None:
        setting.api.events += [event("MODIFIED", "107", "Running"), OSError("cut")]
        await until(lambda: len(setting.api.watched_from) == 2)
        assert setting.watcher.trouble.reason is None

    setting = running(test)
    assert setting.api.watched_from == ["100", "107"]
    assert len(setting.api.names("list")) == 1


def test_a_bookmark_moves_the_place_to_go_on_from():
    async def test(setting: Setting) -> None:
        mark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "250"}}}
        setting.api.events += [mark, OSError("cut")]
        await until(lambda: len(setting.api.watched_from) == 2)

    assert running(test).api.watched_from == ["100", "250"]


@pytest.mark.parametrize("how", ["event", "answer"])
def test_a_place_that_is_too_old_is_found_again_by_a_list(how):
    """A pod that has ended meanwhile is reported once; one that is gone, as vanished."""

    async def test(setting: Setting) -> None:
        expired = status(410, "too old resource version", "Expired")
        setting.api.answers += [Reply(200, ""), Reply(200, ""), *([expired] if how == "answer" else [])]
        setting.api.events.append(GONE if how == "event" else OSError("cut"))
        await until(lambda: setting.api.watched_from)
        setting.api.pods = []
        await until(lambda: setting.ends)

    setting = running(test)
    assert setting.ends == [VANISHED]
    assert len(setting.api.names("list")) == 2


def test_two_failures_in_a_row_are_trouble_until_the_watch_is_open_again():
    async def test(setting: Setting) -> None:
        setting.api.answers += [OSError("refused"), OSError("refused")]
        await until(lambda: setting.watcher.trouble.reason)
        await until(lambda: not setting.watcher.trouble.reason)

    running(test)


def test_a_missing_permission_is_named():
    """It is the message that an operator needs."""
    words = 'pods is forbidden: User "airflow" cannot list resource "pods" in the namespace "airflow"'
    said = []

    async def test(setting: Setting) -> None:
        setting.api.answers += [status(403, words, "Forbidden")] * 2
        await until(lambda: setting.watcher.trouble.reason)
        said.append(setting.watcher.trouble.reason)

    running(test)
    assert "airflow lacks the permission to list pods in namespace airflow" in said[0]


P, Q = named("p"), named("q")
COMPARED = [
    # Before, in the list, a while later: whether the watch has kept something from us.
    ({P: "1"}, {P: "1"}, {P: "1"}, False),
    ({P: "1"}, {P: "2"}, {P: "2"}, False),
    ({P: "1"}, {P: "2"}, {P: "3"}, False),
    ({P: "1"}, {P: "2"}, {P: "1"}, True),
    # It is not there any more: the watch tells, or does not.
    ({P: "1"}, {}, {}, False),
    ({P: "1"}, {}, {P: "1"}, True),
    # It was created, and the watch has yet to tell.
    ({P: None}, {P: "1"}, {P: "1"}, False),
    ({P: None}, {P: "1"}, {P: None}, True),
    # Created while the list was made.
    ({}, {}, {Q: None}, False),
    ({}, {Q: "1"}, {}, False),
]


@pytest.mark.parametrize(("before", "listed", "after", "deaf"), COMPARED)
def test_a_watch_is_deaf_where_it_has_not_told_what_a_list_shows(before, listed, after, deaf):
    assert is_deaf(before, listed, after) is deaf


@pytest.mark.parametrize(
    ("version", "seen", "gone_back"),
    [("5", "700", True), ("700", "5", False), ("5", "5", False), ("5", None, False), ("x", "700", False)],
)
def test_a_cluster_whose_versions_have_gone_back_is_another_one(version, seen, gone_back):
    assert has_gone_back(version, seen) is gone_back


@pytest.mark.parametrize("how", ["older", "gone"])
def test_a_cluster_that_was_rebuilt_at_the_same_address_is_found_out(how, monkeypatch):
    """The watch goes on, and tells nothing."""
    monkeypatch.setattr(watcher, "LOOK", 0.01)
    monkeypatch.setattr(watcher, "LAG", 0.01)

    async def test(setting: Setting) -> None:
        looks = asyncio.create_task(setting.watcher.look_now_and_then())
        await until(lambda: setting.api.watched_from)
        setting.api.pods = []
        setting.api.version = "5" if how == "older" else "900"
        await until(lambda: setting.ends)
        looks.cancel()

    setting = running(test)
    assert setting.ends == [VANISHED]
    assert setting.api.watched_from[0] == "100"


def test_a_comparison_that_fails_changes_nothing(monkeypatch):
    monkeypatch.setattr(watcher, "LOOK", 0.01)
    monkeypatch.setattr(watcher, "LAG", 0.01)

    async def test(setting: Setting) -> None:
        setting.api.rules.append(lambda verb, *_: status(500) if verb == "list metadata" else None)
        looks = asyncio.create_task(setting.watcher.look_now_and_then())
        await until(lambda: len(setting.api.names("list metadata")) > 2)
        looks.cancel()

    setting = running(test)
    assert len(setting.api.names("list")) == 1
