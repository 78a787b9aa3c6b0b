# SPDX-License-Identifier: Apache-2.0
"""How long Airflow waits before it takes something for lost: the life cycle goes by the same options."""

from __future__ import annotations

from airflow.configuration import conf

from airflow_dispatch_provider.lifecycle.events import Limits


def queued_timeout() -> float:
    """Seconds after which Airflow takes a queued task for stuck."""
    return conf.getfloat("scheduler", "task_queued_timeout")


def limits(max_held: int) -> Limits:
    """Those of the life cycle."""
    return Limits(
        max_held=max_held,
        launch_retries=conf.getint("dispatch", "launch_retries", fallback=10),
        refresh_every=queued_timeout() / 4,
        silence=4 * conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0),
        paused_after=conf.getfloat("scheduler", "scheduler_health_check_threshold") * 5 / 6,
    )
