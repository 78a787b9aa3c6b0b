# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes engine while its API server is away, hangs, fails, is cut off, restarted or rebuilt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

from airflow_dispatch_provider.engines.kubernetes import _driver, watcher
from airflow_dispatch_provider.engines.kubernetes.pod_api import Timing
from airflow_dispatch_provider.lifecycle.events import Adopted, Ended, Rejected, Returned, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import make_task
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.kube import KubeServer
from devkit.servers.node_agent import NodeAgent
from devkit.servers.pod_fates import EXIT, Fate

from .engines import HEIR, Hand, pods_of, running
from .executors import options

pytestmark = [pytest.mark.integration("kubernetes"), pytest.mark.recent]

QUICK = Timing(call=2.0, silence=3.0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_driver, "HUNG_AFTER", 1.0)


@pytest.fixture
def namespace(own_kube: KubeServer) -> str:
    return own_kube.create_namespace()


@pytest.fixture
def agent(own_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> NodeAgent:
    """Reaches the server directly, whatever is between it and the engine."""
    return agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))


@pytest.fixture
def given(own_kube: KubeServer, namespace: str, proxy: FaultyProxy, tmp_path: Path) -> dict[str, Any]:
    return options(own_kube.kubeconfig(url=proxy.url(own_kube.url())), namespace, tmp_path)


@pytest.fixture
def hand(given: dict[str, Any]) -> Iterator[Hand]:
    """With the proxy between it and the server."""
    with running(given, timing=QUICK) as hand:
        yield hand


def tasks(count: int = 1) -> list[Any]:
    return [make_task() for _ in range(count)]


def succeed(hand: Hand, numbers: list[int]) -> None:
    assert {end.how for end in hand.hears(Ended, numbers, timeout=120)} == {Outcome.SUCCESS}
    ends = Counter(event.dispatch for event in hand.heard if isinstance(event, Ended))
    assert set(ends.values()) == {1}


@pytest.mark.parametrize("mode", ["refuse", "reset", "hang"])
def test_while_the_server_is_away_the_backend_is_unavailable_and_nothing_is_lost(hand, proxy, agent, mode):
    """Unsent jobs can be withdrawn, or are returned; one that may have been sent is not, and becomes one pod."""
    succeed(hand, hand.submit(*tasks()))
    proxy.mode = mode
    numbers = hand.submit(*tasks(5))
    wait_until(lambda: hand.room().unavailable)
    taken = hand.engine.withdraw(numbers)
    returned = {event.dispatch for event in hand.poll() if isinstance(event, Returned)}
    proxy.mode = "forward"
    rest = [number for number in numbers if number not in taken | returned]

    def settled() -> bool:
        said = {e.dispatch for e in hand.poll() if isinstance(e, Returned | Ended)}
        return said >= set(rest)

    wait_until(settled, 120)
    wait_until(lambda: hand.room().unavailable is None)
    succeed(hand, hand.submit(*tasks(3)))
    assert not [event for event in hand.heard if isinstance(event, Rejected)]
    assert len(agent.started) == len(set(agent.started))


def test_a_server_that_is_away_at_the_start_is_waited_for(own_kube, namespace, tmp_path, agent_on):
    given = options(own_kube.kubeconfig(), namespace, tmp_path)
    own_kube.kill()
    with running(given, timing=QUICK) as hand:
        wait_until(lambda: hand.room().unavailable)
        own_kube.restart()
        wait_until(lambda: hand.room().unavailable is None)
        agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
        succeed(hand, hand.submit(*tasks()))


def test_an_answer_that_is_lost_makes_no_second_pod(hand, proxy, agent):
    succeed(hand, hand.submit(*tasks()))
    proxy.cut_after(0, "down")
    left = dict.fromkeys(hand.submit(*tasks()))
    wait_until(lambda: _go_on(hand, left) and not left, 120)
    assert len(agent.started) == len(set(agent.started)) == 2


def test_one_whose_answer_is_lost_cannot_be_withdrawn_and_is_removed_when_it_is_revoked(
    own_kube, namespace, hand, proxy
):
    """It may be there: nobody says of it that it was certainly not sent."""
    hand.hears(Sent, hand.submit(*tasks()))
    proxy.mode = "hang"
    (number,) = hand.submit(*tasks())
    wait_until(lambda: hand.room().unavailable)
    assert hand.engine.withdraw([number]) == set()
    hand.engine.revoke(number)
    proxy.mode = "forward"
    wait_until(
        lambda: [e for e in hand.poll() if isinstance(e, Returned | Ended) and e.dispatch == number], 90
    )
    wait_until(lambda: len(pods_of(own_kube, namespace)) == 1)


def test_one_that_is_revoked_in_an_outage_and_starts_meanwhile_is_left_alone(
    own_kube, namespace, hand, proxy, agent_on
):
    """Airflow may have queued its task again, and the Execution API let this pod run it."""
    (number,) = hand.submit(*tasks())
    hand.hears(Sent, [number])
    proxy.mode = "refuse"
    wait_until(lambda: hand.room().unavailable)
    hand.engine.revoke(number)
    agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT, after=8.0))
    wait_until(lambda: [pod["status"]["phase"] for pod in pods_of(own_kube, namespace)] == ["Running"])
    proxy.mode = "forward"
    (end,) = hand.hears(Ended, [number])
    assert end.how is Outcome.SUCCESS
    wait_until(lambda: not pods_of(own_kube, namespace))


def test_a_server_that_is_killed_again_and_again_loses_nothing(hand, own_kube, agent):
    """While pods are created, run, end and are deleted; what is returned is submitted again."""
    left = dict.fromkeys(hand.submit(*tasks(60)))
    for goal in (40, 20, 0):
        wait_until(lambda goal=goal: _go_on(hand, left) and len(left) <= goal, 120)
        if goal:
            own_kube.kill()
            own_kube.restart()
    assert not [event for event in hand.heard if isinstance(event, Rejected)]
    assert len(agent.started) == len(set(agent.started)) == 60


def _go_on(hand: Hand, left: dict[int, None]) -> bool:
    """As the life cycle does: what is returned waits until the backend is available."""
    for event in hand.engine.poll():
        hand.heard.append(event)
        if isinstance(event, Ended):
            assert event.how is Outcome.SUCCESS
            left.pop(event.dispatch)
        elif isinstance(event, Returned):
            left.pop(event.dispatch)
            left.update(dict.fromkeys(hand.submit(make_task())))
    return True


def test_a_watch_that_is_cut_all_the_time_loses_no_end(hand, proxy, agent):
    left = dict.fromkeys(hand.submit(*tasks(30)))
    for _ in range(5):
        proxy.cut_after(20_000, "down")
        cuts = proxy.cuts
        wait_until(lambda cuts=cuts: _go_on(hand, left) and (proxy.cuts > cuts or not left), 120)
    wait_until(lambda: _go_on(hand, left) and not left, 120)
    assert len(agent.started) == len(set(agent.started)) == 30


def test_what_runs_is_adopted_when_the_server_answers_again(
    own_kube, namespace, given, proxy, tmp_path, agent_on
):
    """No task counts as unknown because nobody could be asked."""
    work = tasks(3)
    with running(options(own_kube.kubeconfig(), namespace, tmp_path)) as first:
        first.hears(Sent, first.submit(*work))
    proxy.mode = "hang"
    with running(given, HEIR, timing=QUICK) as heir:
        numbers = heir.adopt(*work)
        wait_until(lambda: heir.room().unavailable)
        assert heir.poll() == []
        proxy.mode = "forward"
        heir.hears(Adopted, numbers)
        agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
        succeed(heir, numbers)


def test_a_cluster_that_is_rebuilt_at_the_same_address_is_found_out(
    own_kube, tmp_path, agent_on, monkeypatch
):
    """Its pods are gone, and nobody saw how they ended; the database is asked about each."""
    monkeypatch.setattr(watcher, "LOOK", 1.0)
    monkeypatch.setattr(watcher, "LAG", 0.5)
    name = "rebuilt"
    own_kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    with running(options(own_kube.kubeconfig(), name, tmp_path)) as hand:
        numbers = hand.submit(*tasks())
        hand.hears(Sent, numbers)
        own_kube.restart(empty=True)
        own_kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        (end,) = hand.hears(Ended, numbers)
        assert (end.how, end.began) == (Outcome.FAILED, None)
        wait_until(lambda: hand.room().unavailable is None)
        agent_on(own_kube, namespaces=[name], processes=0, decide=lambda pod: Fate(EXIT))
        succeed(hand, hand.submit(*tasks()))


def test_stopping_returns_what_was_not_sent_and_leaves_what_runs(own_kube, namespace, given, proxy):
    with running(given, timing=QUICK) as hand:
        hand.hears(Sent, hand.submit(*tasks()))
        proxy.mode = "refuse"
        wait_until(lambda: hand.submit(*tasks()) and hand.room().unavailable)
        late = hand.submit(*tasks(3))
        unsent = hand.engine.stop(0.0)
        assert set(late) <= unsent | {e.dispatch for e in hand.poll() if isinstance(e, Returned)}
    assert len(pods_of(own_kube, namespace)) == 1
