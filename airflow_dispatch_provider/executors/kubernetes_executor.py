# SPDX-License-Identifier: Apache-2.0
"""A pod for every task, with all traffic with the API server off the scheduler's thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from airflow.exceptions import AirflowConfigException

from airflow_dispatch_provider.bridge.coordinators import coordinator_extra
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.bridge.workload import with_fresh_token
from airflow_dispatch_provider.engines.kubernetes import pod_log
from airflow_dispatch_provider.engines.kubernetes._creating import FRESH
from airflow_dispatch_provider.engines.kubernetes._options import namespaces, options_of, watched
from airflow_dispatch_provider.engines.kubernetes.checks import kubernetes_doubts, kubernetes_problems
from airflow_dispatch_provider.engines.kubernetes.cluster import SECTION, Cluster
from airflow_dispatch_provider.engines.kubernetes.engine import KubernetesEngine, Pieces
from airflow_dispatch_provider.engines.kubernetes.kube_config import KubeConfig
from airflow_dispatch_provider.engines.kubernetes.labels import namespace_of
from airflow_dispatch_provider.engines.kubernetes.manifest import PodFactory
from airflow_dispatch_provider.engines.protocols import Claim
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.executors.standalone import Standalone


class KubernetesExecutor(Standalone):
    """
    The options, templates, hooks and pods of Airflow's KubernetesExecutor. One thread makes all API calls,
    concurrently; the scheduler's thread only exchanges lists with it.

    An outage of the API server fails no task: what was not sent is held.
    """

    supports_ad_hoc_ti_run = True

    RUNNING_POD_LOG_LINES = 100
    """Lines of the log of a running task that are shown, where ``running_pod_log_lines`` says nothing."""

    def make_engine(self, name: str, slots: int, *, counts_workers: bool = False) -> KubernetesEngine:
        """See ``protocols.HasEngine``; there are no workers to count."""
        if problems := self.config_problems():
            raise DispatchConfigError(problems)
        config = self.kube_config
        pieces = Pieces(
            self._cluster.connect,
            lambda scheduler_id: PodFactory(config, scheduler_id, coordinator_extra, watched(config)),
            options_of(config, self.conf),
            self._renewed,
        )
        return KubernetesEngine(name, slots, lambda: pieces)

    def _renewed(self, workload: Any) -> Any:
        """Called on the thread of the API calls."""
        return with_fresh_token(workload, lambda: self.jwt_generator, FRESH)

    @cached_property
    def kube_config(self) -> KubeConfig:
        """``[kubernetes_executor]`` of this executor's own configuration."""
        return KubeConfig.of(self.conf)

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self.conf)

    # What the router and ``airflow dispatch validate`` ask

    def config_problems(self) -> list[Problem]:
        """See ``protocols.ChecksConfig``: the way to the cluster, pod template, namespaces, arguments of requests."""
        return kubernetes_problems(self.conf, self._cluster)

    def config_doubts(self) -> list[Problem]:
        """See ``protocols.DoubtsConfig``: pods without an image, options that another one switches off."""
        return list(kubernetes_doubts(self.conf))

    def claims(self) -> Sequence[Claim]:
        """See ``protocols.Claims``: whoever watches a namespace finishes the pods of this scheduler there."""
        server = self._cluster.server()
        return [Claim(server, name and f"namespace {name}") for name in namespaces(self.kube_config)]

    # For people

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """The last lines of a running task's pod, from this backend's cluster. Works without ``start``."""
        messages, streams = self.get_streaming_task_log(ti, try_number)
        return messages, ["\n".join(stream) for stream in streams] or [""]

    def get_streaming_task_log(self, ti: Any, try_number: int) -> Any:
        """The same from Airflow 3.4 on."""
        return pod_log.read(self._cluster, self._get_pod_namespace(ti), ti, try_number, self._log_lines())

    def _log_lines(self) -> int:
        """A log is shown whatever the option says; ``validate`` tells what is wrong with it."""
        conf: Any = self.conf
        try:
            lines: int = conf.getint(SECTION, "running_pod_log_lines", fallback=self.RUNNING_POD_LOG_LINES)
        except (AirflowConfigException, ValueError):
            return self.RUNNING_POD_LOG_LINES
        return lines if lines > 0 else self.RUNNING_POD_LOG_LINES

    def _get_pod_namespace(self, ti: Any) -> str:
        return namespace_of(ti, str(self.conf.get(SECTION, "namespace")))

    @staticmethod
    def get_cli_commands() -> list[Any]:
        """Up to Airflow 3.1 the only way for the provider's ``airflow kubernetes`` to be there."""
        if AIRFLOW_V_3_2_PLUS:
            return []
        from airflow.providers.cncf.kubernetes.cli.definition import get_kubernetes_cli_commands

        return list(get_kubernetes_cli_commands())
