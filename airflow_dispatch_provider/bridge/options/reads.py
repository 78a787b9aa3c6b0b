# SPDX-License-Identifier: Apache-2.0
"""Which options the executors of this package read from their own configuration, and how.

A test collects from the code, for each Airflow version, what they ask for, and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES

Kind = Literal[
    "text", "filled", "whole", "count", "positive", "number", "seconds", "flag", "object", "template"
]
"""The kinds of values. ``filled``: a text that is not empty; ``whole``: a whole number; ``count``: one of 0 or more;
``positive``: one of 1 or more; ``seconds``: a number of 0 or more; ``object``: JSON;
``template``: a way to make the LocalExecutor's template process."""

_WORKERS = "is read by Celery's workers, which do not see a backend's config."
_FLOWER = "is read by Flower, which does not see a backend's config."
_ELSEWHERE = "Set it where these are configured, and leave it out here."
_NOT_USED = "is not used by this executor, though by Airflow's."
_UNSENT = "Leave it out; [dispatch] {} bounds what is sent at a time."
_LEAVE_OUT = "Leave it out."


@dataclass(frozen=True)
class Engine:
    """The options of one executor."""

    reads: Mapping[str, Mapping[str, Kind]]
    """By section. A section of which nothing is said but ``*`` is read as a whole, whatever it holds."""

    without_effect: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Options of Airflow's executor of the same name that change nothing here: what to say, and a remedy."""

    is_all: bool = True
    """False: a subclass, which may read others besides."""

    def kind(self, section: str, option: str) -> Kind | None:
        """The kind that the option's value has to be; None where it is not read."""
        options = self.reads.get(section, {})
        return options.get(option) or ("text" if "*" in options else None)


_LOCAL = Engine(
    reads={
        "api": {"base_url": "text"},
        "core": {"execution_api_server_url": "text"},
        "dispatch": {
            "local_ahead": "count",
            "local_preload": "text",
            "local_template": "template",
            "local_warm_dags": "count",
        },
    }
)

_CELERY = Engine(
    reads={
        "celery": {
            "broker_url": "filled",
            "celery_app_name": "text",
            "celery_config_options": "text",
            "extra_celery_config": "object",
            "operation_timeout": "seconds",
            "result_backend": "text",
            "result_backend_sqlalchemy_engine_options": "object",
            "ssl_active": "flag",
            "ssl_cacert": "text",
            "ssl_cert": "text",
            "ssl_key": "text",
            "ssl_mutual_tls": "flag",
            # Without effect, but whoever reads them fails over what is no number or flag.
            "broker_connection_retry_on_startup": "flag",
            "sync_parallelism": "whole",
            "task_acks_late": "flag",
            "task_publish_max_retries": "whole",
            "task_track_started": "flag",
            "worker_concurrency": "whole",
            "worker_enable_remote_control": "flag",
            "worker_prefetch_multiplier": "whole",
        },
        "celery_broker_transport_options": {"*": "text"},
        "celery_result_backend_transport_options": {"*": "text"},
        "database": {"sql_alchemy_conn": "text"},
        "dispatch": {"celery_max_unsent": "positive"},
        "operators": {"default_queue": "text"},
    },
    without_effect={
        **{
            ("celery", option): (_WORKERS, _ELSEWHERE)
            for option in (
                "broker_connection_retry_on_startup",
                "json_logs",
                "mp_forkserver_preload",
                "mp_start_method",
                "pool",
                "task_acks_late",
                "task_logs_to_stdout",
                "task_track_started",
                "worker_autoscale",
                "worker_concurrency",
                "worker_enable_remote_control",
                "worker_precheck",
                "worker_prefetch_multiplier",
                "worker_umask",
            )
        },
        **{
            ("celery", f"flower_{option}"): (_FLOWER, _ELSEWHERE)
            for option in ("basic_auth", "host", "port", "url_prefix")
        },
        ("celery", "sync_parallelism"): (_NOT_USED, _UNSENT.format("celery_max_unsent")),
        ("celery", "task_publish_max_retries"): (_NOT_USED, "Leave it out: what cannot be sent is kept."),
    },
)

_KUBERNETES = Engine(
    reads={
        "dispatch": {
            "kubernetes_concurrency": "positive",
            "kubernetes_max_unsent": "positive",
        },
        "kubernetes_executor": {
            "async_client_factory": "text",
            "client_factory": "text",
            "cluster_context": "text",
            "config_file": "text",
            "delete_option_kwargs": "object",
            "delete_worker_pods": "flag",
            "delete_worker_pods_on_failure": "flag",
            "in_cluster": "flag",
            "kube_client_request_args": "object",
            "multi_namespace_mode": "flag",
            "multi_namespace_mode_namespace_list": "text",
            "namespace": "text",
            "pod_template_file": "text",
            "running_pod_log_lines": "positive",
            "ssl_ca_cert": "text",
            "verify_ssl": "flag",
            "worker_container_repository": "text",
            "worker_container_tag": "text",
            "worker_pod_pending_fatal_container_state_reasons": "text",
        },
    },
    without_effect={
        **{
            ("kubernetes_executor", option): (_NOT_USED, _UNSENT.format("kubernetes_concurrency"))
            for option in (
                "async_pod_creation",
                "pod_creation_max_concurrency",
                "worker_pods_creation_batch_size",
            )
        },
        **{
            ("kubernetes_executor", option): (_NOT_USED, "Leave it out; [dispatch] launch_retries bounds it.")
            for option in (
                "pod_launch_failure_excluded_container_reasons",
                "pod_launch_failure_retries",
            )
        },
        **{
            ("kubernetes_executor", option): (_NOT_USED, _LEAVE_OUT)
            for option in (
                "api_client_retry_configuration",
                "enable_tcp_keepalive",
                "task_publish_max_retries",
                "tcp_keep_cnt",
                "tcp_keep_idle",
                "tcp_keep_intvl",
                "worker_pods_queued_check_interval",
            )
        },
    },
)


def not_used() -> dict[tuple[str, str], str]:
    """Options that Airflow's executors use, and those of the same name here do not; and what to know about each."""
    engines = (_LOCAL, _CELERY, _KUBERNETES)
    found = (item for engine in engines for item in engine.without_effect.items())
    return {
        address: f"no effect any more{remedy.removeprefix('Leave it out').removesuffix('.')}"
        for address, (why, remedy) in found
        if why == _NOT_USED
    }


ENGINES: Mapping[str, Engine] = {
    EXECUTOR_ALIASES["LocalExecutor"]: _LOCAL,
    EXECUTOR_ALIASES["CeleryExecutor"]: _CELERY,
    EXECUTOR_ALIASES["KubernetesExecutor"]: _KUBERNETES,
}
"""By import path. Of executors that are none of these, nor a subclass of one, it is not known what they read."""


def engine_of(cls: type[Any]) -> Engine | None:
    """Options that a class reads, or at least those that it inherits."""
    paths = [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]
    found = next((ENGINES[path] for path in paths if path in ENGINES), None)
    return found if found is None or paths[0] in ENGINES else replace(found, is_all=False)
