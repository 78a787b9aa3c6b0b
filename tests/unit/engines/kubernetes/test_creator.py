# SPDX-License-Identifier: Apache-2.0
"""How jobs become pods, and what the creator does about each kind of answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ServerDisconnectedError

from airflow_dispatch_provider.engines.kubernetes import trouble
from airflow_dispatch_provider.engines.kubernetes.creator import Creator
from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask
from airflow_dispatch_provider.engines.kubernetes.model import Created, Job, Rejected
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox
from airflow_dispatch_provider.engines.kubernetes.pod_api import NotConnected
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker

from .fakes import NAMESPACE, FakeApi, FakeFactory, named, pod, status, until

QUOTA = status(403, 'pods "x" is forbidden: exceeded quota: pods, requested: pods=1', "Forbidden")
REFUSED = ConnectionRefusedError("refused")


@pytest.fixture(autouse=True)
def little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off takes so little time that a test can still see it."""
    monkeypatch.setattr(trouble.random, "uniform", lambda low, high: 0.05)


class Setting:
    """A creator and what is around it."""

    def __init__(self, limit: int = 4) -> None:
        self.api, self.outbox, self.factory = FakeApi(), Outbox(), FakeFactory()
        self.reports: list[Any] = []
        self.removed: list[str] = []
        self.tracker = Tracker(
            self.reports.append, lambda *_: None, lambda name: self.removed.append(name.name), ()
        )
        self.creator = Creator(
            self.api, self.outbox, self.factory, self.tracker, self.reports.append, limit, [NAMESPACE]
        )

    def submit(self, *keys: str) -> None:
        self.outbox.put(Job(key, workload=key) for key in keys)
        self.creator.wake()

    async def created(self, *keys: str) -> None:
        await until(lambda: {r.key for r in self.reports if isinstance(r, Created)} >= set(keys))


def running(test: Callable[[Setting], Awaitable[None]], limit: int = 4) -> Setting:
    """Run the creator beside a test, in one event loop."""

    async def both() -> Setting:
        setting = Setting(limit)
        task = asyncio.create_task(setting.creator.run())
        await asyncio.wait_for(test(setting), 30)
        task.cancel()
        return setting

    return asyncio.run(both())


def test_each_job_becomes_one_pod_at_most_so_many_at_a_time():
    async def test(setting: Setting) -> None:
        setting.submit(*"abcdefgh")
        await setting.created(*"abcdefgh")

    setting = running(test, limit=3)
    assert len(setting.api.names("create")) == 8
    assert setting.api.most_at_once == 3
    assert setting.factory.built == list("abcdefgh")


@pytest.mark.parametrize(
    "answer",
    [
        status(500, "etcdserver: request timed out"),
        status(503, "apiserver is shutting down"),
        status(429, "too many requests", "TooManyRequests"),
        status(401, "Unauthorized", "Unauthorized"),
        status(403, 'pods is forbidden: User "a" cannot create resource "pods" in API group ""', "Forbidden"),
        status(404, 'namespaces "airflow" not found', "NotFound", kind="namespaces"),
        QUOTA,
        REFUSED,
        ServerDisconnectedError(),
        TimeoutError(),
        NotConnected("no such file"),
    ],
    ids=repr,
)
def test_what_is_no_fault_of_the_task_is_tried_again_under_the_same_name(answer):
    async def test(setting: Setting) -> None:
        setting.api.answers.append(answer)
        setting.submit("a")
        await setting.created("a")

    setting = running(test)
    assert setting.reports == [Created("a", named("pod-1"))]
    assert setting.api.names("create") == ["pod-1", "pod-1"]
    assert setting.creator.trouble.reason is setting.creator.full.reason is None


def test_a_pod_that_an_unanswered_request_has_created_counts_as_created():
    """The server says that the name is taken: it is taken by us."""

    async def test(setting: Setting) -> None:
        setting.api.answers += [ServerDisconnectedError(), status(409, "already exists", "AlreadyExists")]
        setting.submit("a")
        await setting.created("a")

    assert running(test).reports == [Created("a", named("pod-1"))]


def test_a_pod_that_shows_in_the_watch_is_not_asked_for_again():
    async def test(setting: Setting) -> None:
        setting.api.gate.clear()
        setting.api.answers += [ServerDisconnectedError()]
        setting.submit("a")
        await until(lambda: setting.api.calls)
        setting.tracker.see("ADDED", pod("pod-1"))
        setting.api.gate.set()
        await until(lambda: setting.api.names("dry run"))

    setting = running(test)
    assert setting.reports == [Created("a", named("pod-1"))]
    assert setting.api.names("create") == ["pod-1"]


@pytest.mark.parametrize(
    "answer",
    [
        status(422, 'Pod "x" is invalid: spec.containers: Required value', "Invalid"),
        status(400, "Pod in version v1 cannot be handled", "BadRequest"),
        status(403, 'pods "x" is forbidden: violates PodSecurity "restricted"', "Forbidden"),
        status(409, 'pods "x" already exists', "AlreadyExists"),
    ],
    ids=repr,
)
def test_an_impossible_pod_fails_its_task_alone(answer):
    async def test(setting: Setting) -> None:
        setting.api.answers.append(answer)
        setting.submit("bad", "good")
        await setting.created("good")

    setting = running(test, limit=1)
    rejected = [report for report in setting.reports if isinstance(report, Rejected)]
    assert [report.key for report in rejected] == ["bad"]
    assert "HTTP" in rejected[0].reason
    assert len(setting.tracker) == 1


def test_a_task_of_which_no_pod_can_be_made_fails_alone():
    async def test(setting: Setting) -> None:
        setting.factory.error = InvalidTask("pod_mutation_hook raised ValueError: no")
        setting.submit("bad")
        await until(lambda: setting.reports)

    assert running(test).reports == [Rejected("bad", "pod_mutation_hook raised ValueError: no")]


@pytest.mark.parametrize(("own", "rejected"), [(["other", NAMESPACE], False), (["other"], True)])
def test_a_missing_permission_is_the_tasks_fault_only_in_a_namespace_of_its_own_choice(own, rejected):
    """Every namespace that the backend is configured for is the operator's affair."""

    async def test(setting: Setting) -> None:
        setting.creator._namespaces = own
        words = 'pods is forbidden: User "a" cannot create resource "pods" in the namespace "airflow"'
        setting.api.answers.append(status(403, words, "Forbidden"))
        setting.submit("a")
        await until(lambda: setting.reports)

    assert [type(report) for report in running(test).reports] == [Rejected if rejected else Created]


def test_in_trouble_one_request_at_a_time_asks_whether_it_is_over():
    """Not all that waits: it would be thrown at a server that has just come back."""

    async def test(setting: Setting) -> None:
        setting.api.answers += [REFUSED]
        setting.submit("a")
        await until(lambda: setting.creator.trouble.reason)
        assert setting.outbox.withdraw_all()
        setting.api.most_at_once = 0
        setting.api.answers += [REFUSED, REFUSED, REFUSED]
        setting.submit(*"bcdefgh")
        await until(lambda: not setting.api.answers)
        assert setting.api.most_at_once == 1
        await setting.created(*"bcdefgh")

    running(test)


def test_where_nothing_is_left_to_be_created_a_dry_run_finds_out_that_it_is_over():
    """The router holds what it was given back until then."""

    async def test(setting: Setting) -> None:
        setting.api.answers += [REFUSED]
        setting.submit("a")
        await until(lambda: setting.creator.trouble.reason)
        assert [job.key for job in setting.outbox.withdraw_all()] == ["a"]
        await until(lambda: not setting.creator.trouble.reason)

    setting = running(test)
    assert setting.api.names("dry run") == ["pod-1"]
    assert setting.reports == []


def test_a_job_whose_fate_is_unknown_cannot_be_withdrawn():
    """A second copy of it could be started elsewhere."""

    async def test(setting: Setting) -> None:
        setting.api.answers += [TimeoutError()]
        setting.submit("a")
        await until(lambda: setting.creator.trouble.reason)
        assert setting.outbox.withdraw_all() == []
        assert setting.creator.sending == 1
        await setting.created("a")

    running(test)


def test_a_full_namespace_is_no_trouble():
    async def test(setting: Setting) -> None:
        setting.api.answers += [QUOTA] * 3
        setting.submit("a")
        await until(lambda: setting.creator.full.reason)
        assert setting.creator.trouble.reason is None
        await setting.created("a")

    running(test)


def test_a_job_that_was_revoked_while_its_request_failed_is_not_tried_again():
    async def test(setting: Setting) -> None:
        setting.api.gate.clear()
        setting.api.answers += [REFUSED]
        setting.submit("a")
        await until(lambda: setting.api.calls)
        setting.tracker.revoke(named("pod-1"))
        setting.api.gate.set()
        await until(lambda: setting.api.names("dry run"))

    setting = running(test)
    assert setting.api.names("create") == ["pod-1"]
    assert (len(setting.outbox), setting.reports, setting.removed) == (0, [], [])


def test_a_pod_that_was_revoked_while_it_was_being_created_is_removed():
    async def test(setting: Setting) -> None:
        setting.api.gate.clear()
        setting.submit("a")
        await until(lambda: setting.api.calls)
        setting.tracker.revoke(named("pod-1"))
        setting.api.gate.set()
        await until(lambda: setting.removed)

    setting = running(test)
    assert (setting.removed, setting.reports) == (["pod-1"], [])
