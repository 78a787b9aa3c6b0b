# SPDX-License-Identifier: Apache-2.0
"""The cluster that one backend's own options name, and clients for it.

Airflow's client functions read the global options only, so that all executors of a process would share one cluster.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pkgutil import resolve_name
from threading import Thread
from typing import Any

from kubernetes import client as blocking
from kubernetes import config as blocking_config
from kubernetes_asyncio import client, config

from airflow_dispatch_provider.engines.kubernetes.kubeconfig import Kubeconfig, without_data
from airflow_dispatch_provider.exceptions import DispatchError, Problem

SECTION = "kubernetes_executor"

_FACTORY = {
    "client_factory": "Name a function that returns a CoreV1Api of kubernetes.",
    "async_client_factory": "Name a function that returns a CoreV1Api of kubernetes_asyncio.",
}

_NO_POD = "Set in_cluster to False and config_file to a kubeconfig, unless the scheduler runs in a pod."

FACTORY_TIMEOUT = 5.0
"""Seconds for a factory of the user's, where others wait for what it gives."""


class FactoryError(DispatchError):
    """A factory gives no client; why, as the end of a sentence. Quotes nothing that the user's code says."""


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
            with without_data():
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
        if self._option("client_factory"):
            host = _within(
                FACTORY_TIMEOUT, lambda: self._factory("client_factory")().api_client.configuration.host
            )
        elif self._in_cluster:
            host = self._blocking_configuration().host
        else:
            host = Kubeconfig(**self._kube_config).server()
        return str(host).rstrip("/")

    def problems(self) -> Sequence[Problem]:
        """Mistakes in it, found without asking the cluster."""
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
        return [] if _no_pod() else [*self._pod_problems()]

    def doubts(self) -> Iterator[Problem]:
        """Mistakes where this runs, unless the scheduler runs elsewhere: charts are validated in pipelines."""
        if self._in_cluster and not self._option("client_factory") and _no_pod():
            found = "is True, and this is no pod of a cluster."
            yield Problem(f"[{SECTION}] in_cluster", found, _NO_POD)

    def _pod_problems(self) -> Iterator[Problem]:
        try:
            self.server()
        except Exception as error:
            found = f"is True, and this pod has no account of the cluster ({type(error).__name__})."
            yield Problem(f"[{SECTION}] in_cluster", found, _NO_POD)

    def _factory_problems(self, factories: Mapping[str, str | None]) -> Iterator[Problem]:
        for option in factories:
            try:
                usable = callable(_within(FACTORY_TIMEOUT, partial(self._factory, option)))
            except FactoryError as error:
                yield Problem(f"[{SECTION}] {option}", f"cannot be imported: {error}.", _FACTORY[option])
                return
            if not usable:
                found = "names nothing that can be called."
                yield Problem(f"[{SECTION}] {option}", found, _FACTORY[option])
                return
        try:
            self.server()
        except FactoryError as error:
            found = f"gives no client: {error}."
            yield Problem(f"[{SECTION}] client_factory", found, _FACTORY["client_factory"])

    def _blocking_configuration(self) -> Any:
        configuration = blocking.Configuration()
        if self._in_cluster:
            blocking_config.load_incluster_config(client_configuration=configuration)
        else:
            with without_data():
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
    return Problem(
        f"[{SECTION}] {there}", f"is set without {missing}.", f"Set {missing} as well. {_FACTORY[missing]}"
    )


def _no_pod() -> bool:
    return not os.environ.get("KUBERNETES_SERVICE_HOST")


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The answer of the user's code. It runs in a thread that may be left behind.

    :raises FactoryError: it raised, ended the process, or takes longer
    """
    answer: list[Any] = []
    failure: list[str] = []

    def run() -> None:
        try:
            answer.append(call())
        except BaseException as error:
            failure.append(type(error).__name__)

    thread = Thread(target=run, name="dispatch-client-factory", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer:
        raise FactoryError(failure[0] if failure else f"no answer within {seconds:g} s")
    return answer[0]
