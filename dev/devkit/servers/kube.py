# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes API server over a real etcd, in a folder of its own, without controllers or nodes.

``node_agent.py`` runs the pods. Run as a program, it serves until it is interrupted.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import secrets
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from devkit.arguments import parser_of
from devkit.programs import kube_build
from devkit.servers.process import ServerProcess, free_port

ADMIN = "admin"
USERS = ("scheduler", "worker", "stranger")
CONTEXT = "kube"

_ADMIN_GROUP = "system:masters"
# What these plugins do needs controllers, or more API groups than are served.
_DISABLED_ADMISSION = ("ServiceAccount", "TaintNodesByCondition", "StorageObjectInUseProtection")

# Groups that no executor asks for; without them a server starts sooner and is smaller.
_DISABLED_APIS = (
    "api/beta",
    "apps/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "batch/v1",
    "policy/v1",
    "resource.k8s.io/v1",
)

POD_TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: from-template}
spec:
  restartPolicy: Never
  containers: [{name: base, image: none}]
"""
"""For ``[kubernetes_executor] pod_template_file``: node_agent.py has no images."""

Json = dict[str, Any]


class KubeError(Exception):
    """The API server refused a request."""

    def __init__(self, error: urllib.error.HTTPError) -> None:
        text = error.read().decode(errors="replace")
        message = json.loads(text).get("message") if text.startswith("{") else text
        super().__init__(f"{error.code}: {message}")
        self.status = error.code


class Cluster(Protocol):
    """A cluster that tests only use."""

    def kubeconfig(self) -> Path:
        """A file whose current context reaches the cluster with every permission."""

    def create_namespace(self, prefix: str = "test") -> str:
        """Make a namespace under a new name; returns the name."""


class ForeignCluster:
    """A cluster that runs already and is only used, through the current context of a kubeconfig.

    :param patience: seconds to wait for a new namespace's service account, without which it takes no pods.
    """

    def __init__(self, kubeconfig: str, patience: int = 30) -> None:
        self._kubeconfig = kubeconfig
        self._patience = patience
        self._namespaces: list[str] = []

    def kubeconfig(self) -> Path:
        return Path(self._kubeconfig)

    def create_namespace(self, prefix: str = "test") -> str:
        name = f"{prefix}-{secrets.token_hex(4)}"
        self._api().create_namespace({"metadata": {"name": name}})
        self._namespaces.append(name)
        self._wait_for_account(name)
        return name

    def delete_namespaces(self) -> None:
        """Those that were made here, with all that is in them."""
        while self._namespaces:
            self._api().delete_namespace(self._namespaces.pop())

    def _wait_for_account(self, namespace: str) -> None:
        from kubernetes import watch

        events = watch.Watch().stream(
            self._api().list_namespaced_service_account,
            namespace,
            field_selector="metadata.name=default",
            timeout_seconds=self._patience,
        )
        next(iter(events), None)

    def _api(self) -> Any:
        from kubernetes import client, config

        return client.CoreV1Api(config.new_client_from_config(self._kubeconfig))


class Etcd(ServerProcess):
    """One member that keeps its data, and never waits for the disk."""

    name = "etcd"

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __init__(self) -> None:
        super().__init__()
        self._peer_port = free_port()

    def _prepare(self) -> None:
        pass

    def _command(self) -> tuple[list[str], dict[str, str]]:
        peer = f"http://127.0.0.1:{self._peer_port}"
        options = {
            "name": "test",
            "data-dir": str(self._data),
            "listen-client-urls": self.url(),
            "advertise-client-urls": self.url(),
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"test={peer}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
        return [str(kube_build.programs() / "etcd"), *_flags(options)], _environ()

    def _answers(self) -> bool:
        try:
            with _direct().open(f"{self.url()}/health", timeout=1) as answer:
                return bool(json.load(answer).get("health") == "true")
        except OSError:
            return False


class KubeServer(ServerProcess):
    """An API server with RBAC, where ``admin`` may do everything and each of ``users`` nothing yet.

    ``kill``, ``pause``, ``resume`` and ``restart`` are about the API server; ``etcd`` has the same.

    :param users: names beside ``admin`` that ``kubeconfig`` can be asked for.
    :param arguments: more of kube-apiserver's own options, such as ``--max-requests-inflight=1``.
    """

    name = "kube-apiserver"
    start_timeout = 60.0

    def __init__(self, users: Sequence[str] = USERS, arguments: Sequence[str] = ()) -> None:
        super().__init__()
        self.etcd = Etcd()
        self._tokens = {user: secrets.token_hex(16) for user in (ADMIN, *users)}
        self._arguments = list(arguments)

    def stop(self) -> None:
        super().stop()
        self.etcd.stop()

    def restart(self, empty: bool = False) -> None:
        """Start it again on the same port with the same certificate; ``empty`` takes etcd's data away first."""
        if empty:
            self._end(signal.SIGTERM)
            self.etcd.restart(empty=True)
        super().restart()

    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificates that a client trusts; the server's self-signed certificate with its issuer."""
        return self.folder / "certificates" / "apiserver.crt"

    def token(self, user: str = ADMIN) -> str:
        return self._tokens[user]

    def change_token(self, user: str) -> None:
        """From the next ``restart`` on, what ``kubeconfig`` gave for this user before is answered with 401."""
        self._tokens[user] = secrets.token_hex(16)
        self._write_tokens()

    def kubeconfig(
        self, user: str = ADMIN, context: str = CONTEXT, namespace: str = "default", url: str | None = None
    ) -> Path:
        """A file with one context, the current one; ``url`` is that of a proxy in front of the server."""
        path = self.folder / f"kubeconfig-{secrets.token_hex(4)}.yaml"
        return _write_kubeconfig(path, {context: self.entry(user, namespace, url)})

    def entry(self, user: str = ADMIN, namespace: str = "default", url: str | None = None) -> Json:
        """A context as ``merged_kubeconfig`` takes it: its cluster, user and namespace."""
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        return {
            "cluster": {"server": url or self.url(), "certificate-authority-data": authority},
            "user": {"token": self.token(user)},
            "namespace": namespace,
        }

    def request(
        self, method: str, path: str, body: Json | None = None, user: str = ADMIN, timeout: float = 30
    ) -> Json:
        """Send one request, JSON both ways; raises KubeError for an answer that is not a success.

        PATCH sends a merge patch. An answer in plain text, such as a log, is under ``text``.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = json.dumps(body).encode() if body is not None else None
        with self._open(method, path, data, kind, user, timeout) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith(b"{") else {"text": text.decode(errors="replace")}

    def watch(self, path: str, version: str = "", timeout: float = 60) -> Iterator[Json]:
        """Events of what a path names, from this resource version or from what is there; ends with the timeout."""
        query = f"{'&' if '?' in path else '?'}watch=1&resourceVersion={version}&timeoutSeconds={timeout:.0f}"
        for line in self.lines(f"{path}{query}", timeout + 5):
            yield json.loads(line)

    def lines(self, path: str, timeout: float = 60) -> Iterator[str]:
        """An answer line by line as it comes, such as a log with ``follow=true``."""
        with self._open("GET", path, None, "application/json", ADMIN, timeout) as answer:
            for line in answer:
                yield line.decode(errors="replace")

    def wait_for_pod(
        self, namespace: str, name: str, condition: Callable[[Json | None], object], timeout: float = 60
    ) -> Json | None:
        """The pod when it is so, None being one that is not there; raises TimeoutError when it never is."""
        path = f"/api/v1/namespaces/{namespace}/pods?fieldSelector=metadata.name={name}"
        listed = self.request("GET", path)
        pod = next(iter(listed["items"]), None)
        if condition(pod):
            return pod
        for event in self.watch(path, listed["metadata"]["resourceVersion"], timeout):
            pod = None if event["type"] == "DELETED" else event["object"]
            if condition(pod):
                return pod
        raise TimeoutError(f"not so in {timeout} s; pod {namespace}/{name} is {json.dumps(pod)}")

    def create_namespace(self, prefix: str = "test") -> str:
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def set_quota(self, namespace: str, pods: int, used: int = 0) -> None:
        """Let the namespace have this many pods, ``used`` of them taken; a deleted pod gives nothing back.

        The counting down is a controller's, which a test stands in for by calling this again.
        """
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        hard = {"pods": str(pods)}
        try:
            self.request("POST", path, {"metadata": {"name": "test"}, "spec": {"hard": hard}})
        except KubeError as error:
            if error.status != http.client.CONFLICT:
                raise
            self.request("PATCH", f"{path}/test", {"spec": {"hard": hard}})
        status = {"hard": hard, "used": {"pods": str(used)}}
        self.request("PATCH", f"{path}/test/status", {"status": status})

    def apply(self, manifest: Json) -> None:
        """Create a namespaced object that may be in a user's manifest of permissions."""
        api, kind = manifest["apiVersion"], manifest["kind"]
        prefix = "/api/v1" if api == "v1" else f"/apis/{api}"
        namespace = manifest["metadata"]["namespace"]
        self.request("POST", f"{prefix}/namespaces/{namespace}/{kind.lower()}s", manifest)

    def account_entry(self, namespace: str, account: str) -> Json:
        """The kubeconfig entry of a service account, as ``entry`` is for a user."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token = self.request("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        return {**self.entry(namespace=namespace), "user": {"token": token}}

    def allow(self, user: str, namespace: str, rules: Sequence[Json]) -> None:
        """Give a user a role of these rules, in place of what an earlier call gave it there."""
        group = "rbac.authorization.k8s.io"
        base = f"/apis/{group}/v1/namespaces/{namespace}"
        role = {"metadata": {"name": user}, "rules": list(rules)}
        binding = {
            "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
        for plural, body in (("roles", role), ("rolebindings", binding)):
            try:
                self.request("POST", f"{base}/{plural}", body)
            except KubeError as error:
                if error.status != http.client.CONFLICT:
                    raise
                self.request("PUT", f"{base}/{plural}/{user}", body)

    def _open(
        self, method: str, path: str, data: bytes | None, kind: str, user: str, timeout: float
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token(user)}", "Content-Type": kind}
        request = urllib.request.Request(f"{self.url()}{path}", data, headers, method=method)
        try:
            answer: http.client.HTTPResponse = _direct(self.ca_file).open(request, timeout=timeout)
            return answer
        except urllib.error.HTTPError as error:
            raise KubeError(error) from None

    def _prepare(self) -> None:
        self.etcd.start()
        self._write_tokens()

    def _write_tokens(self) -> None:
        lines = (
            f'{token},{user},{user},"{_ADMIN_GROUP if user == ADMIN else ""}"\n'
            for user, token in self._tokens.items()
        )
        self._token_file.write_text("".join(lines))

    def _command(self) -> tuple[list[str], dict[str, str]]:
        key = str(self.ca_file.with_suffix(".key"))  # made before it is read
        options = {
            "etcd-servers": self.etcd.url(),
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": str(self.port),
            "cert-dir": str(self.ca_file.parent),
            "token-auth-file": str(self._token_file),
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "service-cluster-ip-range": "10.0.0.0/24",
            "endpoint-reconciler-type": "none",
            "disable-admission-plugins": ",".join(_DISABLED_ADMISSION),
            "runtime-config": ",".join(f"{name}=false" for name in _DISABLED_APIS),
            # What is beyond --max-requests-inflight is then a 429 at once, except for the admin.
            "enable-priority-and-fairness": "false",
            # Else a shutdown waits for the watches to end by themselves.
            "shutdown-watch-termination-grace-period": "1s",
            "kubelet-preferred-address-types": "InternalIP",
            "allow-privileged": "true",
        }
        command = [str(kube_build.programs() / "kube-apiserver"), *_flags(options), *self._arguments]
        return command, _environ()

    def _answers(self) -> bool:
        try:
            with _direct(self.ca_file).open(f"{self.url()}/readyz", timeout=5) as answer:
                return bool(answer.status == http.client.OK)
        except OSError:  # also a certificate that is not written yet
            return False

    @property
    def _token_file(self) -> Path:
        return self.folder / "tokens.csv"


def merged_kubeconfig(path: Path, servers: Mapping[str, KubeServer | Json]) -> Path:
    """Write one file with a context for each server; the first is the current one.

    A value is a server, meant as its admin, or what its ``entry`` returned.
    """
    entries = {
        name: server.entry() if isinstance(server, KubeServer) else server for name, server in servers.items()
    }
    return _write_kubeconfig(path, entries)


def executor_options(
    kubeconfig: Path, folder: Path, namespace: str = "default", **more: str
) -> dict[str, str]:
    """``[kubernetes_executor]`` for a cluster whose pods are run by node_agent.py; writes the template there.

    :param more: further options, and others for these
    """
    template = folder / "pod_template.yaml"
    template.write_text(POD_TEMPLATE)
    return {
        "in_cluster": "False",
        "config_file": str(kubeconfig),
        "namespace": namespace,
        "pod_template_file": str(template),
        **more,
    }


def main() -> None:
    parser = parser_of("./dev/kube-server", description="Serve an empty Kubernetes API until interrupted.")
    parser.add_argument("--kubeconfig", type=Path, help="write the admin's kubeconfig to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), KubeServer() as server:
        path = merged_kubeconfig(options.kubeconfig or server.folder / "admin.yaml", {CONTEXT: server})
        print(f"export KUBECONFIG={path}", flush=True)
        signal.pause()


def _write_kubeconfig(path: Path, entries: Mapping[str, Json]) -> Path:
    contexts = {
        name: {"cluster": name, "user": name, "namespace": entry["namespace"]}
        for name, entry in entries.items()
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": next(iter(entries)),
        "clusters": [{"name": name, "cluster": entry["cluster"]} for name, entry in entries.items()],
        "users": [{"name": name, "user": entry["user"]} for name, entry in entries.items()],
        "contexts": [{"name": name, "context": context} for name, context in contexts.items()],
    }
    path.write_text(json.dumps(config, indent=1))
    path.chmod(0o600)
    return path


def _flags(options: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _environ() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath)}


def _direct(ca_file: Path | None = None) -> urllib.request.OpenerDirector:
    """An opener without the proxies of the environment."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca_file:
        context = ssl.create_default_context(cafile=str(ca_file))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)
