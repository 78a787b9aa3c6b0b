# SPDX-License-Identifier: Apache-2.0
"""The way to a cluster: nothing of a kubeconfig or of a user's code is quoted, and nothing is waited for for long."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kubernetes_files import kubeconfig

from airflow_dispatch_provider.engines.kubernetes import cluster as module
from airflow_dispatch_provider.engines.kubernetes.cluster import Cluster, FactoryError
from airflow_dispatch_provider.engines.kubernetes.kubeconfig import Kubeconfig, KubeconfigError

RIGHT = kubeconfig("https://k:6443")
SECRET = {
    "key too high": RIGHT.replace("user: {}", "client-key-data: hunter2"),
    "user that is text": RIGHT.replace("user: {}", "user: hunter2"),
    "no server": RIGHT.replace('server: "https://k:6443"', "certificate-authority-data: hunter2"),
    "server that is a list": RIGHT.replace('"https://k:6443"', "[hunter2]"),
    "no YAML": RIGHT + "a: *hunter2\n",
    "users that are an object": RIGHT.replace("[{name: u, user: {}}]", "{u: hunter2}"),
    "nameless user": RIGHT.replace("name: u, user: {}", "token: hunter2"),
    "token of OpenID": RIGHT.replace(
        "user: {}", "user: {auth-provider: {name: oidc, config: {client-secret: hunter2}}}"
    ),
}


class Conf:
    """``[kubernetes_executor]`` of one backend."""

    def __init__(self, **options: Any) -> None:
        self._options = {"in_cluster": False, "verify_ssl": True, **options}

    def get(self, section: str, option: str, fallback: Any = None) -> Any:
        return self._options.get(option, fallback)

    getboolean = get


@pytest.mark.parametrize("text", SECRET.values(), ids=SECRET)
def test_no_value_of_a_kubeconfig_is_quoted(text: str, tmp_path: Any) -> None:
    """Neither by what validates it nor by the clients that load it later."""
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    cluster = Cluster(Conf(config_file=str(path)))
    told = [str(problem) for problem in cluster.problems()]
    for load in (cluster.server, cluster.blocking_client, lambda: asyncio.run(cluster.connect())):
        try:
            load()
        except KubeconfigError as error:
            told += traceback.format_exception(error)
        except Exception as error:
            told.append(str(error))
    assert told
    assert "hunter2" not in "".join(told)


@pytest.mark.parametrize("key", ["certificate-authority", "config_file"])
def test_named_pipe_is_not_waited_for(key: str, tmp_path: Any) -> None:
    pipe, path = tmp_path / "pipe", tmp_path / "kubeconfig"
    os.mkfifo(pipe)
    path.write_text(RIGHT.replace("server:", f"certificate-authority: {pipe}, server:"))
    (problem,) = Cluster(Conf(config_file=str(pipe if key == "config_file" else path))).problems()
    assert "is a named pipe" in problem.found


def test_first_entry_of_a_name_and_last_current_context_count(tmp_path: Any) -> None:
    """As the clients merge the files of KUBECONFIG."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(RIGHT)
    two.write_text(
        RIGHT.replace("k:6443", "other").replace("name: c", "name: d").replace("text: c", "text: d")
    )
    found = Kubeconfig(f"{one}{os.pathsep}{two}{os.pathsep}{tmp_path}/none", None)
    assert found.contexts() == ["c", "d"]
    assert found.server() == "https://k:6443"


@pytest.mark.parametrize(
    "data", ["user: {token: t, tokenFile: /no/such}", "user: {auth-provider: {name: gcp}, tokenFile: /no}"]
)
def test_files_that_the_clients_do_not_open_are_no_mistake(data: str, tmp_path: Any) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        RIGHT.replace("https:", "http:").replace("server:", "certificate-authority: /no, server:")
    )
    path.write_text(path.read_text().replace("user: {}", data))
    assert not Cluster(Conf(config_file=str(path))).problems()


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a function the ``client_factory`` of a cluster."""

    def make(function: Any) -> Cluster:
        there: Any = ModuleType("dispatch_test_factory")
        there.client = function
        monkeypatch.setitem(sys.modules, "dispatch_test_factory", there)
        path = "dispatch_test_factory.client"
        return Cluster(Conf(client_factory=path, async_client_factory=path))

    return make


def test_factory_that_hangs_is_left_behind(factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FACTORY_TIMEOUT", 0.05)
    ended = threading.Event()
    (problem,) = factory(ended.wait).problems()
    ended.set()
    assert "no answer within" in problem.found


@pytest.mark.parametrize("error", [SystemExit(3), RuntimeError("hunter2"), KeyboardInterrupt()])
def test_factory_that_fails_tells_no_more_than_the_type(error: BaseException, factory: Any) -> None:
    def fail() -> None:
        raise error

    cluster = factory(fail)
    (problem,) = cluster.problems()
    assert problem.found == f"gives no client: {type(error).__name__}."
    with pytest.raises(FactoryError) as raised:
        cluster.server()
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_factory_names_the_server(factory: Any) -> None:
    host = SimpleNamespace(api_client=SimpleNamespace(configuration=SimpleNamespace(host="https://k/")))
    cluster = factory(lambda: host)
    assert not cluster.problems()
    assert cluster.server() == "https://k"
