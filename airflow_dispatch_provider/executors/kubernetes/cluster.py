# SPDX-License-Identifier: Apache-2.0
"""The cluster that one backend's own options name, and clients for it.

Airflow's client functions read the global options only, so that all executors of a process would share one cluster.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

from kubernetes import client as blocking
from kubernetes import config as blocking_config
from kubernetes_asyncio import client, config

from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.executors.kubernetes.kubeconfig import Kubeconfig
from airflow_dispatch_provider.masking import describe

SECTION = "kubernetes_executor"

_FACTORY = {
    "client_factory": "Name a function that returns a CoreV1Api of kubernetes.",
    "async_client_factory": "Name a function that returns a CoreV1Api of kubernetes_asyncio.",
}


class Cluster:
    """Answers what ``[kubernetes_executor]`` of one backend says about its API server. Asks nobody but files."""

    def __init__(self, conf: Any) -> None:
        """
        :param conf: the executor's own configuration
        """
        self._conf = conf

    async def connect(self) -> Any:
        """A client of ``kubernetes_asyncio``, to be closed by whoever asked for it. Raises what the configuration of
        the cluster, or the factory that the user named, raises."""
        factory = self._factory("async_client_factory")
        if factory is not None:
            made = factory()
            return (await made if inspect.isawaitable(made) else made).api_client
        configuration = client.Configuration()
        if self._in_cluster:
            asynchronous: Any = config
            asynchronous.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration, **self._kube_config)
        return client.ApiClient(self._with_tls(configuration))

    def blocking_client(self) -> blocking.CoreV1Api:
        """A client for one thread that may wait, e.g. the API server of Airflow when it reads a log."""
        factory = self._factory("client_factory")
        if factory is not None:
            return factory()
        return blocking.CoreV1Api(blocking.ApiClient(self._with_tls(self._blocking_configuration())))

    def server(self) -> str:
        """The URL of the API server. Raises what cannot be read of it. Runs no plugin of a kubeconfig."""
        factory = self._factory("client_factory")
        if factory is not None:
            host = factory().api_client.configuration.host
        elif self._in_cluster:
            host = self._blocking_configuration().host
        else:
            host = Kubeconfig(**self._kube_config).server()
        return str(host).rstrip("/")

    def problems(self) -> Sequence[Problem]:
        """What is wrong with it, found without asking the cluster."""
        factories = {option: self._option(option) for option in ("client_factory", "async_client_factory")}
        if any(factories.values()):
            return (
                [_no_twin(factories)] if not all(factories.values()) else [*self._factory_problems(factories)]
            )
        if not self._in_cluster:
            return [
                Problem(f"[{SECTION}] {option}", *wrong)
                for option, *wrong in Kubeconfig.wrong(**self._kube_config)
            ]
        try:
            self.server()
        except Exception as error:
            found = f"is True, and this is no pod of a cluster ({type(error).__name__})."
            remedy = (
                "Set in_cluster to False and config_file to a kubeconfig, unless the scheduler runs in a pod."
            )
            return [Problem(f"[{SECTION}] in_cluster", found, remedy)]
        return []

    def _factory_problems(self, factories: Mapping[str, str | None]) -> Iterator[Problem]:
        for option in factories:
            try:
                if not callable(self._factory(option)):
                    yield Problem(
                        f"[{SECTION}] {option}", "names nothing that can be called.", _FACTORY[option]
                    )
                    return
            except Exception as error:
                yield Problem(
                    f"[{SECTION}] {option}", f"cannot be imported: {describe(error)}", _FACTORY[option]
                )
                return
        try:
            self.server()
        except Exception as error:
            yield Problem(
                f"[{SECTION}] client_factory",
                f"gives no client: {describe(error)}",
                _FACTORY["client_factory"],
            )

    def _blocking_configuration(self) -> Any:
        configuration = blocking.Configuration()
        if self._in_cluster:
            blocking_config.load_incluster_config(client_configuration=configuration)
        else:
            blocking_config.load_kube_config(client_configuration=configuration, **self._kube_config)
        return configuration

    @property
    def _in_cluster(self) -> bool:
        return bool(self._conf.getboolean(SECTION, "in_cluster"))

    @property
    def _kube_config(self) -> dict[str, str | None]:
        return {"config_file": self._option("config_file"), "context": self._option("cluster_context")}

    def _with_tls(self, configuration: Any) -> Any:
        if not self._conf.getboolean(SECTION, "verify_ssl"):
            configuration.verify_ssl = False
        authority = self._option("ssl_ca_cert")
        if authority:
            configuration.ssl_ca_cert = authority
        return configuration

    def _factory(self, option: str) -> Any:
        path = self._option(option)
        return resolve_name(path) if path else None

    def _option(self, option: str) -> str | None:
        return self._conf.get(SECTION, option, fallback=None) or None


def _no_twin(factories: Mapping[str, str | None]) -> Problem:
    """Only one of the two is set: the executor needs one for its pods, and one for logs."""
    missing, there = sorted(factories, key=lambda option: bool(factories[option]))
    return Problem(f"[{SECTION}] {missing}", f"is missing where {there} is set.", _FACTORY[missing])
