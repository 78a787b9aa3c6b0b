# SPDX-License-Identifier: Apache-2.0
"""How jobs become pods, and what the creator does about each kind of answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ServerDisconnectedError

from airflow_dispatch_provider.engines.kubernetes.creator import Creator
from airflow_dispatch_provider.engines.kubernetes.lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask
from airflow_dispatch_provider.engines.kubernetes.model import Created, Job, Rejected, Stuck
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox
from airflow_dispatch_provider.engines.kubernetes.pod_api import NotConnected
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker

from .fakes import NAMESPACE, FakeApi, FakeFactory, named, pod, status, until

OTHER = "other"
QUOTA = status(403, 'pods "x" is forbidden: exceeded quota: pods, requested: pods=1', "Forbidden")
REFUSED = ConnectionRefusedError("refused")


pytestmark = pytest.mark.usefixtures("little_waiting")


class Setting:
    """A creator and what is around it."""

    def __init__(self, limit: int = 4) -> None:
        self.api, self.outbox, self.factory = FakeApi(), Outbox(), FakeFactory()
        self.reports: list[Any] = []
        self.removed: list[str] = []
        self.tracker = Tracker(
            self.reports.append, lambda *_: None, lambda name: self.removed.append(name.name), ()
        )
        self.lanes = Lanes([NAMESPACE])
        self.creator = Creator(
            self.api,
            self.outbox,
            self.factory,
            self.tracker,
            self.reports.append,
            self.lanes,
            limit=limit,
            own=[NAMESPACE, OTHER],
            launch_retries=3,
            home=NAMESPACE,
            renew=lambda workload: f"{workload} renewed",
        )

    @property
    def trouble(self) -> str | None:
        return self.creator.trouble.reason or self.lanes.problem

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
    assert setting.trouble is setting.lanes.full is None


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
        await until(lambda: not setting.creator.sending)
        assert setting.outbox.waiting == 0

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
        setting.creator._own = own
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


def test_where_nothing_is_left_to_be_created_a_small_list_finds_out_that_it_is_over():
    """The router holds what it was given back until then; no manifest of a task is sent meanwhile."""

    async def test(setting: Setting) -> None:
        setting.api.answers += [REFUSED]
        setting.submit("a")
        await until(lambda: setting.creator.trouble.reason)
        assert [job.key for job in setting.outbox.withdraw_all()] == ["a"]
        await until(lambda: not setting.creator.trouble.reason)

    setting = running(test)
    assert [verb for verb, _ in setting.api.calls] == ["create", "one"]
    assert setting.reports == []


def test_a_job_whose_fate_is_unknown_cannot_be_withdrawn():
    """A second copy of it could be started elsewhere."""

    async def test(setting: Setting) -> None:
        setting.api.answers += [TimeoutError()]
        setting.submit("a")
        await until(lambda: setting.outbox.waiting)
        assert setting.outbox.withdraw_all() == []
        await setting.created("a")

    running(test)


def test_a_full_namespace_is_no_trouble():
    async def test(setting: Setting) -> None:
        setting.api.rules.append(lambda *_: QUOTA)
        setting.submit("a")
        await until(lambda: setting.lanes.full)
        assert setting.trouble is None
        setting.api.rules.clear()
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
        await until(lambda: setting.api.names("one"))

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


def labelled(answer: Any, *names: str) -> Callable[..., Any]:
    """A rule by which only those pods are answered so, neither others nor neutral ones."""
    return lambda verb, namespace, pod: answer if pod["metadata"]["name"] in names else None


NEVER = status(
    403,
    'pods "x" is forbidden: exceeded quota: q, requested: requests.cpu=8, used: requests.cpu=0,'
    " limited: requests.cpu=2",
    "Forbidden",
)
NO_ACCOUNT = status(
    403,
    'pods "x" is forbidden: error looking up service account airflow/w: serviceaccount "w" not found',
    "Forbidden",
)
OWN_TROUBLES = [
    status(500, 'failed calling webhook "inject": connection refused', "InternalError"),
    status(503, "no"),
    TimeoutError(),
    ServerDisconnectedError(),
    NEVER,
    NO_ACCOUNT,
]


@pytest.mark.parametrize("answer", OWN_TROUBLES, ids=repr)
@pytest.mark.parametrize("limit", [1, 4])
def test_a_pod_that_is_in_trouble_alone_keeps_no_other_and_fails_in_the_end(answer, limit):
    """It is tried as often as `launch_retries` says, behind the others; the user is told why it waits."""

    async def test(setting: Setting) -> None:
        setting.api.rules.append(labelled(answer, "pod-1"))
        setting.submit("odd")
        await until(lambda: setting.api.names("create"))
        setting.submit(*"abcdefgh")
        await setting.created(*"abcdefgh")
        assert (setting.trouble, setting.lanes.full) == (None, None)
        await until(lambda: any(isinstance(report, Rejected) for report in setting.reports))

    setting = running(test, limit)
    told = [report for report in setting.reports if not isinstance(report, Created)]
    assert [type(report) for report in told] == [Stuck, Stuck, Rejected]
    assert {report.key for report in told} == {"odd"}
    assert setting.api.names("create").count("pod-1") == 4
    assert len(setting.outbox) == setting.outbox.waiting == 0


def test_many_pods_in_trouble_keep_no_other():
    """More than there are requests at a time; no neutral pod meets the same."""

    async def test(setting: Setting) -> None:
        odd = [f"odd{index}" for index in range(20)]
        setting.api.rules.append(labelled(OWN_TROUBLES[0], *(f"pod-{index}" for index in range(1, 21))))
        setting.submit(*odd)
        setting.submit(*"abcdefgh")
        await setting.created(*"abcdefgh")

    assert running(test).trouble is None


def test_a_pod_that_does_not_fit_at_the_moment_waits_and_keeps_no_other():
    """Others are smaller. It is no failure: room comes."""
    big = status(
        403,
        'pods "x" is forbidden: exceeded quota: q, requested: cpu=2, used: cpu=1, limited: cpu=2',
        "Forbidden",
    )

    async def test(setting: Setting) -> None:
        setting.api.rules.append(labelled(big, "pod-1"))
        setting.submit("big", *"abcd")
        await setting.created(*"abcd")
        await until(lambda: setting.api.names("create").count("pod-1") > 6)
        assert setting.lanes.full is None
        setting.api.rules.clear()
        await setting.created("big")

    assert not [report for report in running(test).reports if isinstance(report, Rejected)]


@pytest.mark.parametrize(
    "answer",
    [OWN_TROUBLES[0], NO_ACCOUNT, QUOTA, status(404, 'namespaces "airflow" not found', kind="namespaces")],
)
def test_what_a_neutral_pod_meets_too_fails_nothing(answer):
    """It is trouble of the namespace: the job waits until it is over, however long."""

    async def test(setting: Setting) -> None:
        setting.api.rules.append(lambda verb, *_: answer if verb in ("create", "dry run") else None)
        setting.submit("a", "b")
        await until(lambda: setting.trouble or setting.lanes.full)
        await until(lambda: len(setting.api.calls) > 12)
        assert setting.reports == []
        setting.api.rules.clear()
        await setting.created("a", "b")

    setting = running(test)
    assert (setting.trouble, setting.lanes.full) == (None, None)


@pytest.mark.parametrize("answer", [QUOTA, OWN_TROUBLES[0]])
def test_a_closed_namespace_keeps_no_other_one(answer):
    """Full is a namespace, and not the backend."""

    async def test(setting: Setting) -> None:
        setting.factory.namespaces = dict.fromkeys("defg", OTHER)
        setting.lanes._essential = (NAMESPACE, OTHER)
        setting.api.rules.append(
            lambda verb, namespace, _: answer if namespace == NAMESPACE and verb != "one" else None
        )
        setting.submit(*"abc")
        await until(lambda: setting.outbox.waiting == 3)
        setting.submit(*"defg")
        await setting.created(*"defg")
        assert (setting.trouble, setting.lanes.full) == (None, None)
        setting.api.rules.clear()
        await setting.created(*"abc")

    running(test)


def test_where_no_neutral_pod_can_be_made_many_in_trouble_neither_fail_nor_keep_others():
    """The template asks for no CPU, say, and the quota wants it: every neutral pod is refused."""

    async def test(setting: Setting) -> None:
        setting.factory.has_plain = False
        setting.api.rules.append(labelled(OWN_TROUBLES[0], *(f"pod-{number}" for number in range(1, 5))))
        setting.submit("odd1", "odd2", "odd3", "odd4")
        await until(lambda: len(setting.api.calls) > 30)
        assert not [report for report in setting.reports if isinstance(report, Rejected)]
        setting.submit(*"abcd")
        await setting.created(*"abcd")
        assert setting.trouble is None
        # Now something shows that others can be created.
        await until(lambda: sum(isinstance(report, Rejected) for report in setting.reports) == 4)

    running(test)


def test_a_pod_that_was_created_before_clears_a_namespace_whose_template_is_wrong():
    """The template's service account is missing, and jobs name others."""

    async def test(setting: Setting) -> None:
        plain = lambda verb, _, pod: NO_ACCOUNT if verb == "dry run" and "account" not in pod else None  # noqa: E731
        setting.api.rules += [plain, labelled(NO_ACCOUNT, "pod-2")]
        build = setting.factory.build
        setting.factory.build = lambda workload, key: {**build(workload, key), "account": "its own"}
        setting.submit("a")
        await setting.created("a")
        setting.submit("b", *"cdef")
        await setting.created(*"cdef")
        assert setting.trouble is None

    running(test)


def test_a_pod_that_is_revoked_while_it_waits_is_not_asked_for_again():
    """Not even as a trial."""

    async def test(setting: Setting) -> None:
        setting.api.rules.append(labelled(OWN_TROUBLES[0], "pod-1"))
        setting.submit("odd")
        await until(lambda: setting.outbox.waiting)
        setting.tracker.revoke(named("pod-1"))
        asked = len(setting.api.calls)
        await until(lambda: not setting.outbox.waiting)
        assert len(setting.api.calls) == asked

    assert running(test).reports == []


def test_another_try_has_a_token_of_its_own_and_keeps_the_name():
    """The first one's may have expired while it waited."""

    async def test(setting: Setting) -> None:
        setting.api.rules.append(lambda verb, *_: QUOTA if verb != "one" else None)
        job = Job("a", workload="a")
        setting.outbox.put([job])
        setting.creator.wake()
        await until(lambda: setting.outbox.waiting)
        job.minted -= 60
        setting.api.rules.clear()
        await setting.created("a")
        assert job.workload == "a renewed renewed"

    assert running(test).reports[-1] == Created("a", named("pod-1"))


def test_an_error_of_our_own_in_one_job_keeps_no_other():
    async def test(setting: Setting) -> None:
        expect = setting.tracker.expect
        setting.tracker.expect = lambda pod, key: 1 / 0 if key == "odd" else expect(pod, key)
        setting.submit("odd", *"abcd")
        await setting.created(*"abcd")
        await until(lambda: any(isinstance(report, Rejected) for report in setting.reports))

    running(test)


def test_a_hanging_request_is_no_silence_while_others_are_answered():
    """One pod's webhook may hang; a small list tells that the server does not."""

    async def test(setting: Setting) -> None:
        setting.api.gate.clear()
        setting.submit("odd")
        await until(lambda: setting.api.calls)
        asked = setting.creator.busy_since
        setting.api.answered = asked + 5.0
        assert setting.creator.busy_since == asked + 5.0
        setting.api.gate.set()
        await setting.created("odd")
        assert setting.creator.busy_since is None

    running(test)
