# SPDX-License-Identifier: Apache-2.0
"""The API server of these tests is a real one, and fails in the way that it is asked to."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

import pytest
from kubernetes import client, config

from devkit.servers.kube import Cluster, ForeignCluster, KubeError, KubeServer, merged_kubeconfig

from .pods import create, pod

pytestmark = pytest.mark.integration("kubernetes")

PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "list"]}


def core(path: Path, context: str | None = None) -> client.CoreV1Api:
    """The official client, as users configure it."""
    return client.CoreV1Api(config.new_client_from_config(str(path), context))


def assert_refused(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_pod_is_accepted(kube: Cluster) -> None:
    """The official client creates one without anything else in the namespace; what is no pod is a 422."""
    namespace = kube.create_namespace()
    api = core(kube.kubeconfig())
    assert api.create_namespaced_pod(namespace, pod("first")).status.phase == "Pending"
    with pytest.raises(client.ApiException, match="Unprocessable"):
        api.create_namespaced_pod(namespace, pod("Not a name"))


def test_the_version_is_that_of_the_module(shared_kube: KubeServer) -> None:
    """Clients that decide by the version see the one that go.mod pins, where it was built from there."""
    version = shared_kube.request("GET", "/version")
    assert version["gitVersion"].startswith(f"v{version['major']}.{version['minor']}.")


def test_a_cluster_of_somebody_else_is_left_clean(shared_kube: KubeServer) -> None:
    """The namespaces made in it are deleted again."""
    cluster = ForeignCluster(str(shared_kube.kubeconfig()), patience=1)
    namespace = cluster.create_namespace()
    cluster.delete_namespaces()
    found = shared_kube.request("GET", f"/api/v1/namespaces/{namespace}")
    assert found["status"]["phase"] == "Terminating"


def test_rbac_is_enforced(shared_kube: KubeServer) -> None:
    """A user may do nothing until it is allowed, and then just that."""
    namespace, other = shared_kube.create_namespace(), shared_kube.create_namespace()
    with pytest.raises(KubeError, match='"scheduler" cannot create resource "pods"'):
        create(shared_kube, namespace, pod("one"), "scheduler")
    shared_kube.allow("scheduler", namespace, [PODS])
    create(shared_kube, namespace, pod("one"), "scheduler")
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert len(shared_kube.request("GET", path, user="scheduler")["items"]) == 1
    with pytest.raises(KubeError, match="cannot delete"):
        shared_kube.request("DELETE", f"{path}/one", user="scheduler")
    with pytest.raises(KubeError, match="cannot create"):
        create(shared_kube, other, pod("one"), "scheduler")


def test_a_quota_is_enforced(shared_kube: KubeServer) -> None:
    """One pod more than the quota is a 403, until the quota is raised or its use is counted down."""
    namespace = shared_kube.create_namespace()
    shared_kube.set_quota(namespace, pods=1)
    create(shared_kube, namespace, pod("one"))
    with pytest.raises(KubeError, match="exceeded quota") as refused:
        create(shared_kube, namespace, pod("two"))
    assert refused.value.status == http.client.FORBIDDEN
    shared_kube.set_quota(namespace, pods=1, used=0)
    create(shared_kube, namespace, pod("two"))


def test_a_killed_one_comes_back_with_its_data(own_kube: KubeServer) -> None:
    """A client made before the outage goes on after it: same port, certificate, tokens and objects."""
    namespace = own_kube.create_namespace()
    api = core(own_kube.kubeconfig())
    api.create_namespaced_pod(namespace, pod("one"))
    own_kube.kill()
    assert_refused(own_kube.port)
    own_kube.restart()
    assert [item.metadata.name for item in api.list_namespaced_pod(namespace).items] == ["one"]
    own_kube.restart(empty=True)
    assert namespace not in [item.metadata.name for item in api.list_namespace().items]


def test_a_paused_one_answers_nothing(own_kube: KubeServer) -> None:
    """Connections are accepted, and the answer comes when it is resumed."""
    context = ssl.create_default_context(cafile=str(own_kube.ca_file))
    own_kube.pause()
    waiting = http.client.HTTPSConnection("127.0.0.1", own_kube.port, timeout=0.3, context=context)
    with pytest.raises(TimeoutError):
        waiting.request("GET", "/readyz")
    own_kube.resume()
    assert own_kube.request("GET", "/readyz")["text"] == "ok"


def test_a_token_ends_with_a_restart(own_kube: KubeServer) -> None:
    """A user's old credential is answered with 401, and another user's still works."""
    api = core(own_kube.kubeconfig("worker"))
    own_kube.change_token("worker")
    own_kube.restart()
    with pytest.raises(client.ApiException, match="Unauthorized"):
        api.list_namespaced_pod("default")
    core(own_kube.kubeconfig()).list_namespaced_pod("default")
    with pytest.raises(client.ApiException, match="Forbidden"):
        core(own_kube.kubeconfig("worker")).list_namespaced_pod("default")


def test_one_file_reaches_two_clusters(shared_kube: KubeServer, own_kube: KubeServer, tmp_path: Path) -> None:
    """Each context of a merged kubeconfig is another cluster; the first is the current one."""
    path = merged_kubeconfig(tmp_path / "both", {"one": shared_kube, "two": own_kube.entry("worker")})
    namespace = shared_kube.create_namespace()
    for context in (None, "one"):
        assert core(path, context).read_namespace(namespace)
    with pytest.raises(client.ApiException, match='User \\\\"worker\\\\" cannot get'):
        core(path, "two").read_namespace(namespace)


def test_nothing_is_left_of_it(own_kube: KubeServer) -> None:
    """Also of a paused one, and stopping twice is harmless."""
    folders = own_kube.folder, own_kube.etcd.folder
    own_kube.pause()
    own_kube.stop()
    own_kube.stop()
    assert not any(folder.exists() for folder in folders)
    assert_refused(own_kube.port)
    assert_refused(own_kube.etcd.port)
