# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes engine on a real API server: what it says of pods that start, end, are deleted or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import lines_executed, wait_until

from airflow_dispatch_provider.engines.engine import Job
from airflow_dispatch_provider.engines.kubernetes import _driver
from airflow_dispatch_provider.lifecycle.events import (
    Adopted,
    Ended,
    Recovered,
    Rejected,
    Returned,
    Sent,
    Stalled,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import make_task
from devkit.servers.kube import KubeServer
from devkit.servers.node_agent import NodeAgent
from devkit.servers.pod_fates import EVICTED, EXIT, IMAGE_PULL_ERROR, NODE_LOST, OOM_KILLED, Fate

from .engines import HEIR, JOB_ID, pods_of, running
from .executors import options
from .troubles import TROUBLES, break_webhook_for, cpu, mend_webhook_for, set_quota, task_with

pytestmark = [pytest.mark.integration("kubernetes"), pytest.mark.recent]


@pytest.fixture
def namespace(shared_kube: KubeServer) -> str:
    return shared_kube.create_namespace()


@pytest.fixture
def given(shared_kube: KubeServer, namespace: str, tmp_path: Path) -> dict[str, Any]:
    return options(shared_kube.kubeconfig(), namespace, tmp_path)


@pytest.fixture
def node(shared_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> Callable[..., Any]:
    """A node where every pod meets that fate."""

    def start(*fate: Any, **more: Any) -> NodeAgent:
        return agent_on(
            shared_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(*fate, **more)
        )

    return start


def delete_by_hand(server: KubeServer, namespace: str, **how: Any) -> None:
    (pod,) = pods_of(server, namespace)
    server.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}", how or None)


def wait_for_running(server: KubeServer, namespace: str, count: int = 1) -> None:
    wait_until(lambda: [p["status"]["phase"] for p in pods_of(server, namespace)].count("Running") == count)


def wait_for_none(server: KubeServer, namespace: str) -> None:
    wait_until(lambda: not pods_of(server, namespace))


def test_a_pod_that_succeeds_is_told_once_and_cleaned_up(shared_kube, namespace, given, node):
    """The id for the outside world is that of the scheduler, as with Airflow's executor."""
    node(EXIT)
    with running(given) as hand:
        numbers = hand.submit(*(make_task() for _ in range(5)))
        hand.hears(Ended, numbers)
        for number in numbers:
            assert hand.said_of(number) == [Sent(number, str(JOB_ID)), Ended(number, Outcome.SUCCESS)]
        wait_for_none(shared_kube, namespace)


ENDS = [
    # A container that has started: only the database knows whether the task had begun.
    (Fate(EXIT, exit_code=1), None, "Error: container base, exit code 1"),
    (Fate(OOM_KILLED), None, "OOMKilled"),
    (Fate(EVICTED), None, "Evicted"),
    # One that could not.
    (Fate(IMAGE_PULL_ERROR), False, "ErrImagePull"),
]


@pytest.mark.parametrize(("fate", "began", "reason"), ENDS, ids=lambda value: getattr(value, "kind", None))
def test_how_a_pod_ends_and_whether_its_task_may_have_begun(given, node, fate, began, reason):
    node(fate.kind, exit_code=fate.exit_code, after=0.2)
    given["worker_pod_pending_fatal_container_state_reasons"] = "ErrImagePull"
    with running(given) as hand:
        (number,) = hand.submit(make_task())
        (end,) = hand.hears(Ended, [number])
        assert (end.how, end.began) == (Outcome.FAILED, began)
        assert reason in end.reason


def test_of_a_pod_whose_node_is_lost_the_database_is_asked(shared_kube, namespace, given, node):
    """Nobody saw it end, and it ends when the cluster gives it up."""
    node(NODE_LOST, after=0.2)
    with running(given) as hand:
        numbers = hand.submit(make_task())
        hand.hears(Sent, numbers)
        wait_until(lambda: "deletionTimestamp" in pods_of(shared_kube, namespace)[0]["metadata"])
        assert not [event for event in hand.poll() if isinstance(event, Ended)]
        delete_by_hand(shared_kube, namespace, gracePeriodSeconds=0)
        (end,) = hand.hears(Ended, numbers)
        assert (end.how, end.began) == (Outcome.FAILED, None)


def test_a_pod_that_waits_for_an_image_is_not_kept_to_start_later(shared_kube, namespace, given, node):
    """Though the options keep pods that failed."""
    node(IMAGE_PULL_ERROR)
    given["worker_pod_pending_fatal_container_state_reasons"] = "ErrImagePull"
    with running(given) as hand:
        hand.hears(Ended, hand.submit(make_task()))
        wait_until(lambda: all("deletionTimestamp" in p["metadata"] for p in pods_of(shared_kube, namespace)))


def test_a_pod_that_is_deleted_by_hand_before_it_started_had_not_begun(shared_kube, namespace, given):
    with running(given) as hand:
        numbers = hand.submit(make_task())
        hand.hears(Sent, numbers)
        delete_by_hand(shared_kube, namespace)
        (end,) = hand.hears(Ended, numbers)
        assert (end.how, end.began) == (Outcome.FAILED, False)


def test_of_a_pod_that_is_deleted_by_hand_after_it_started_the_database_is_asked(
    shared_kube, namespace, given, node
):
    node(EXIT, after=60)
    with running(given) as hand:
        numbers = hand.submit(make_task())
        wait_for_running(shared_kube, namespace)
        delete_by_hand(shared_kube, namespace)
        (end,) = hand.hears(Ended, numbers)
        assert (end.how, end.began) == (Outcome.FAILED, None)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_job_in_trouble_alone_is_rejected_and_keeps_no_other(shared_kube, namespace, given, node, trouble):
    """More of them than there are requests at a time, and first; the backend counts as well all the time."""
    node(EXIT)
    set_quota(shared_kube, namespace, **{"requests.cpu": "2"})
    break_webhook_for(shared_kube, namespace, inject="yes")
    with running(given) as hand:
        odd = hand.submit(*(TROUBLES[trouble]() for _ in range(40)))
        good = hand.submit(*(cpu("100m") for _ in range(4)))
        rejected = hand.hears(Rejected, odd)
        assert all(each.reason for each in rejected)
        assert {end.how for end in hand.hears(Ended, good)} == {Outcome.SUCCESS}
        assert Recovered("x") in hand.heard
        room = hand.room()
        assert (room.unavailable, room.closed) == (None, {})


def test_a_used_up_quota_closes_the_only_namespace_and_is_no_trouble(shared_kube, namespace, given):
    """The job that met it is returned, and may take the next target; when there is room, more is taken."""
    shared_kube.set_quota(namespace, pods=1, used=1)
    with running(given) as hand:
        numbers = hand.submit(*(make_task() for _ in range(40)))
        returned = hand.hears(Returned, numbers)
        assert "quota" in returned[0].reason
        room = hand.room()
        assert (room.takes, room.unavailable, list(room.closed)) == (0, None, [namespace])
        shared_kube.set_quota(namespace, pods=100)
        wait_until(lambda: hand.room().takes)
        hand.hears(Sent, hand.submit(make_task()))


def test_a_full_namespace_keeps_no_other_one(shared_kube, namespace, given, node):
    """Who does not know its namespace and submits to it nevertheless learns of it, and has the job back."""
    other = shared_kube.create_namespace()
    shared_kube.set_quota(namespace, pods=1, used=1)
    listed = {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": f"{namespace},{other}"}
    with running({**given, **listed}) as hand:
        hand.hears(Returned, hand.submit(make_task()))
        assert list(hand.room().closed) == [namespace]
        assert hand.room().takes
        waits = hand.submit(*(make_task() for _ in range(3)))
        hand.hears(Sent, hand.submit(*(task_with(namespace=other) for _ in range(3))))
        assert {each.lane for each in hand.hears(Returned, waits)} == {namespace}
        assert hand.engine.lane(make_task()) == namespace
        assert hand.engine.lane(task_with(namespace=other)) == other
        shared_kube.set_quota(namespace, pods=100)
        wait_until(lambda: not hand.room().closed)
        hand.hears(Sent, hand.submit(make_task()))


def test_a_pod_too_large_for_the_room_of_this_moment_waits_and_keeps_no_other(shared_kube, namespace, given):
    set_quota(shared_kube, namespace, **{"requests.cpu": "2"})
    with running(given) as hand:
        hand.hears(Sent, hand.submit(cpu("1")))
        hand.hears(Sent, hand.submit(cpu("100m")))
        (large,) = hand.submit(cpu("2"))
        hand.hears(Sent, hand.submit(*(cpu("100m") for _ in range(3))))
        assert hand.said_of(large) == []
        wait_until(lambda: hand.engine.withdraw([large]) == {large})


def test_a_webhook_that_fails_for_all_pods_is_trouble_until_it_is_mended(shared_kube, namespace, given):
    break_webhook_for(shared_kube, namespace)
    with running(given) as hand:
        numbers = hand.submit(make_task(), make_task())
        assert "webhook" in hand.hears(Returned, numbers)[0].reason
        assert "webhook" in hand.room().unavailable
        mend_webhook_for(shared_kube, namespace)
        wait_until(lambda: hand.room().unavailable is None)
        hand.hears(Sent, hand.submit(make_task()))
        assert not [event for event in hand.heard if isinstance(event, Rejected)]


def test_revoked_while_it_waits_for_a_node_says_why_it_never_started(shared_kube, namespace, given, node):
    node("unschedulable")
    with running(given) as hand:
        (number,) = hand.submit(make_task())
        hand.hears(Stalled, [number])
        hand.engine.revoke(number)
        (end,) = hand.hears(Ended, [number])
        assert (end.how, end.began) == (Outcome.FAILED, False)
        assert "never started: Unschedulable" in end.reason
        wait_for_none(shared_kube, namespace)


def test_revoked_while_it_runs_its_end_is_told_when_the_pod_is_gone(shared_kube, namespace, given, node):
    node(EXIT, after=60)
    with running(given) as hand:
        (number,) = hand.submit(make_task())
        wait_for_running(shared_kube, namespace)
        hand.engine.revoke(number)
        (end,) = hand.hears(Ended, [number])
        assert (end.how, end.began, end.reason) == (Outcome.FAILED, None, "revoked")
        assert pods_of(shared_kube, namespace) == []


def test_revoked_before_it_is_sent_there_is_no_pod(shared_kube, namespace, given):
    """One that is being asked for at that moment is removed."""
    with running(given) as hand:
        numbers = hand.submit(*(make_task() for _ in range(20)))
        for number in numbers:
            hand.engine.revoke(number)
        wait_until(
            lambda: {e.dispatch for e in hand.poll() if isinstance(e, Returned | Ended)} == set(numbers)
        )
        assert pods_of(shared_kube, namespace) == []


def test_over_in_airflow_it_may_end_by_itself_and_nothing_is_left(
    shared_kube, namespace, given, node, monkeypatch
):
    """One that has not started is removed at once, and one that does not end after a while."""
    monkeypatch.setattr(_driver, "overtime", lambda least: 0.5)
    node(EXIT, after=60)
    with running(given) as hand:
        (number,) = hand.submit(make_task())
        wait_for_running(shared_kube, namespace)
        hand.engine.revoke(number, over=True)
        assert "deletionTimestamp" not in pods_of(shared_kube, namespace)[0]["metadata"]
        wait_for_none(shared_kube, namespace)


def test_two_dispatches_of_one_task_are_told_apart(shared_kube, namespace, given, node):
    """It came back after it deferred: the first pod ends, and the second one goes on."""
    task = make_task()
    with running(given) as hand:
        (first,) = hand.submit(task)
        hand.hears(Sent, [first])
        (second,) = hand.submit(task)
        hand.hears(Sent, [second])
        assert len(pods_of(shared_kube, namespace)) == 2
        hand.engine.revoke(first)
        hand.hears(Ended, [first])
        node(EXIT)
        (end,) = hand.hears(Ended, [second])
        assert end.how is Outcome.SUCCESS


def test_a_second_engine_adopts_what_runs_and_what_waits(shared_kube, namespace, given, node):
    """A task without a pod is unknown; pods of tasks that nobody asks for are left alone."""
    tasks = [make_task() for _ in range(3)]
    with running(given) as first:
        first.hears(Sent, first.submit(*tasks))
    with running(given, HEIR) as heir:
        numbers = heir.adopt(*tasks[:2], make_task())
        heir.hears(Adopted, numbers[:2])
        heir.hears(Unknown, numbers[2:])
        labels = [pod["metadata"]["labels"]["airflow-worker"] for pod in pods_of(shared_kube, namespace)]
        assert sorted(labels) == [str(JOB_ID), str(HEIR), str(HEIR)]
        node(EXIT)
        assert {end.how for end in heir.hears(Ended, numbers[:2])} == {Outcome.SUCCESS}


def test_revoked_while_it_is_looked_for_its_pod_is_removed(shared_kube, namespace, given):
    task = make_task()
    with running(given) as first:
        first.hears(Sent, first.submit(task))
    with running(given, HEIR) as heir:
        (number,) = heir.adopt(task, runs=False)
        heir.engine.revoke(number)
        heir.hears(Ended, [number])
        wait_for_none(shared_kube, namespace)


def test_a_pod_that_is_relabelled_is_another_schedulers(shared_kube, namespace, given):
    """The database knows whose the task is."""
    with running(given) as hand:
        numbers = hand.submit(make_task())
        hand.hears(Sent, numbers)
        (pod,) = pods_of(shared_kube, namespace)
        path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
        shared_kube.request("PATCH", path, {"metadata": {"labels": {"airflow-worker": "99"}}})
        (end,) = hand.hears(Ended, numbers)
        assert (end.how, end.began) == (Outcome.FAILED, None)
        assert "another scheduler's" in end.reason


def test_what_succeeded_under_a_dead_scheduler_is_cleaned_up(shared_kube, namespace, given, node):
    with running(given) as first:
        first.hears(Sent, first.submit(make_task()))
    node(EXIT)
    wait_until(lambda: pods_of(shared_kube, namespace)[0]["status"]["phase"] == "Succeeded")
    with running(given, HEIR) as heir:
        heir.engine.tidy([str(HEIR), str(JOB_ID)])
        heir.engine.tidy([str(HEIR)])
        wait_for_none(shared_kube, namespace)


def test_five_hundred_at_once_take_no_time_of_the_schedulers_thread(shared_kube, namespace, given, node):
    """Lines executed in one heartbeat: a measure that is the same on every machine."""
    node(EXIT)
    with running(given) as hand:
        jobs = [Job(number, str(number), make_task()) for number in range(1, 501)]
        assert lines_executed(lambda: hand.engine.submit(jobs)) < 30 * len(jobs)
        ended: set[int] = set()

        def beat() -> None:
            hand.engine.room()
            ended.update(event.dispatch for event in hand.engine.poll() if isinstance(event, Ended))

        longest = 0
        while len(ended) < len(jobs):
            longest = max(longest, lines_executed(beat))
        assert longest < 30 * len(jobs)


def test_ids_without_an_ascii_letter_or_digit_run(given, node):
    """The provider's own labels of these would be refused."""
    node(EXIT)
    ids = [("レポート", "集計"), ("_", "_"), ("campaña", "año")]
    with running(given) as hand:
        numbers = hand.submit(*(make_task(dag_id=dag_id, task_id=task_id) for dag_id, task_id in ids))
        assert {end.how for end in hand.hears(Ended, numbers)} == {Outcome.SUCCESS}


def test_a_sidecar_that_outlives_the_task_keeps_nothing(shared_kube, namespace, given):
    """The pod is deleted, though the options would keep one that has completed."""
    with running({**given, "delete_worker_pods": "False"}) as hand:
        (number,) = hand.submit(make_task())
        hand.hears(Sent, [number])
        path = f"/api/v1/namespaces/{namespace}/pods"
        (pod,) = pods_of(shared_kube, namespace)
        over = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:00Z"}}
        states = {"base": over, "a-proxy": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        common = {"image": "none", "imageID": "", "ready": False, "restartCount": 0}
        statuses = [{"name": name, "state": state, **common} for name, state in states.items()]
        status = {"phase": "Running", "containerStatuses": statuses}
        shared_kube.request("PATCH", f"{path}/{pod['metadata']['name']}/status", {"status": status})
        assert hand.hears(Ended, [number])[0].how is Outcome.SUCCESS

        def is_going() -> bool:
            left = pods_of(shared_kube, namespace)
            return not left or bool(left[0]["metadata"].get("deletionTimestamp"))

        wait_until(is_going)
