# SPDX-License-Identifier: Apache-2.0
"""The cluster that one backend's own options name, and clients for it.

Airflow's client functions read the global options only, so that all executors of a process would share one cluster.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

from kubernetes import client as blocking
from kubernetes import config as blocking_config
from kubernetes_asyncio import client, config

from airflow_dispatch_provider.exceptions import Problem

SECTION = "kubernetes_executor"


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
        """The URL of the API server. Raises what cannot be read of the configuration."""
        factory = self._factory("client_factory")
        configuration = factory().api_client.configuration if factory else self._blocking_configuration()
        return str(configuration.host).rstrip("/")

    def problems(self) -> Sequence[Problem]:
        """What is wrong with it, found without asking the cluster."""
        try:
            if self._factory("client_factory") and not self._factory("async_client_factory"):
                return [
                    Problem(
                        f"[{SECTION}] async_client_factory",
                        "is missing where client_factory is set.",
                        "Name a function that returns a CoreV1Api of kubernetes_asyncio.",
                    )
                ]
            self.server()
        except Exception as error:
            where = "client_factory" if self._option("client_factory") else self._place
            found = f"gives no way to the cluster: {type(error).__name__}: {' '.join(str(error).split())}"
            return [Problem(f"[{SECTION}] {where}", found, "Correct it, or the file that it names.")]
        return []

    @property
    def _place(self) -> str:
        return "in_cluster" if self._in_cluster else "config_file, cluster_context"

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
