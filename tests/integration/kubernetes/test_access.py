# SPDX-License-Identifier: Apache-2.0
"""The rights and the credentials that the Kubernetes engine has at its API server, and those it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import wait_until

from airflow_dispatch_provider.engines.kubernetes.pod_api import Timing
from airflow_dispatch_provider.lifecycle.events import Ended, Rejected
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.testing import make_task
from devkit.servers.kube import KubeServer, merged_kubeconfig
from devkit.servers.node_agent import NodeAgent
from devkit.servers.pod_fates import EXIT, Fate

from .engines import Hand, pods_of, running
from .executors import options

pytestmark = pytest.mark.integration("kubernetes")

USER = "scheduler"
DOCS = Path(__file__).parents[3] / "docs" / "kubernetes.md"
QUICK = Timing(call=2.0, silence=3.0)


def documented() -> list[dict[str, Any]]:
    """The objects that the documentation has the user create."""
    (text,) = re.findall(r"<!-- manifest -->\n```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return list(yaml.safe_load_all(text))


def least() -> list[dict[str, Any]]:
    """The rules of their role."""
    (rules,) = (manifest["rules"] for manifest in documented() if manifest["kind"] == "Role")
    return list(rules)


@pytest.fixture
def namespace(own_kube: KubeServer) -> str:
    return own_kube.create_namespace()


@pytest.fixture
def node(own_kube: KubeServer, namespace: str, agent_on: Callable[..., NodeAgent]) -> NodeAgent:
    return agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))


def succeed(hand: Hand, numbers: list[int]) -> None:
    assert {end.how for end in hand.hears(Ended, numbers, timeout=120)} == {Outcome.SUCCESS}


def test_the_documented_manifest_is_enough(own_kube, tmp_path, agent_on):
    """As it stands: pods are created, watched and deleted with it, and nothing else is asked for."""
    namespace = "airflow"
    own_kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    for manifest in documented():
        own_kube.apply(manifest)
    agent_on(own_kube, namespaces=[namespace], processes=0, decide=lambda pod: Fate(EXIT))
    entry = own_kube.account_entry(namespace, "airflow-scheduler")
    kubeconfig = merged_kubeconfig(tmp_path / "kubeconfig.yaml", {"least": entry})
    with running(options(kubeconfig, namespace, tmp_path)) as hand:
        succeed(hand, hand.submit(*(make_task() for _ in range(3))))
        wait_until(lambda: not pods_of(own_kube, namespace))
        assert hand.room().unavailable is None


@pytest.mark.parametrize("verb", ["create", "list", "watch", "delete"])
@pytest.mark.usefixtures("node")
def test_a_missing_permission_is_named_and_fails_nothing(own_kube, namespace, tmp_path, verb, caplog):
    """It is for the operator, and not for the task."""
    pods, *others = least()
    own_kube.allow(USER, namespace, [{**pods, "verbs": [v for v in pods["verbs"] if v != verb]}, *others])
    with running(options(own_kube.kubeconfig(USER), namespace, tmp_path), timing=QUICK) as hand:
        numbers = hand.submit(*(make_task() for _ in range(3)))
        wait_until(lambda: hand.poll() is not None and f"to {verb} pods" in caplog.text)
        assert [event for event in hand.heard if isinstance(event, Rejected)] == []
        own_kube.allow(USER, namespace, least())
        if verb == "create":
            wait_until(lambda: hand.room().unavailable is None)
            numbers = hand.submit(make_task())
        succeed(hand, numbers)
        wait_until(lambda: not pods_of(own_kube, namespace))


@pytest.mark.usefixtures("node")
def test_expired_credentials_are_read_again(own_kube, namespace, tmp_path):
    """A new token in the same file: no restart is needed."""
    own_kube.allow(USER, namespace, least())
    kubeconfig = own_kube.kubeconfig(USER)
    with running(options(kubeconfig, namespace, tmp_path), timing=QUICK) as hand:
        succeed(hand, hand.submit(make_task()))
        own_kube.change_token(USER)
        own_kube.restart()
        wait_until(lambda: "credentials" in (hand.room().unavailable or ""))
        kubeconfig.write_bytes(own_kube.kubeconfig(USER).read_bytes())
        wait_until(lambda: hand.room().unavailable is None)
        succeed(hand, hand.submit(make_task()))


def test_a_plugin_for_credentials_that_hangs_keeps_nobody(own_kube, namespace, tmp_path):
    """The scheduler's thread never waits for it; it is ended, and tried again; the room says so."""
    pids = tmp_path / "pids"
    plugin = tmp_path / "token.sh"
    plugin.write_text(f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 600\n")
    plugin.chmod(0o755)
    config = yaml.safe_load(own_kube.kubeconfig().read_text())
    run = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(plugin)}
    config["users"][0]["user"] = {"exec": run}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(options(path, namespace, tmp_path), timing=Timing(connect=1.0)) as hand:
        hand.submit(make_task())
        wait_until(lambda: "credentials" in (hand.room().unavailable or ""))
        first = pids.read_text().split()[0]
        wait_until(lambda: not Path(f"/proc/{first}").exists())
