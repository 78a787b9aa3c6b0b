# SPDX-License-Identifier: Apache-2.0
"""How long Airflow waits before it takes something for lost: the life cycle goes by the same options."""

from __future__ import annotations

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException

from airflow_dispatch_provider.lifecycle.events import Limits

_MARGIN = 60.0
"""Seconds within which a supervisor that has ended its task stores the log and ends itself."""


def queued_timeout() -> float:
    """Seconds after which Airflow takes a queued task for stuck."""
    return conf.getfloat("scheduler", "task_queued_timeout")


def overtime(least: float) -> float:
    """Seconds that a process gets whose task is over: callbacks, listeners and its log come then. Airflow's supervisor
    ends one that has succeeded after ``[core] task_success_overtime``; it has the first word. Where that is no
    number, it is not this package's trouble."""
    try:
        allowed = conf.getfloat("core", "task_success_overtime", fallback=20.0)
    except (AirflowConfigException, ValueError):
        return least
    return max(least, allowed + _MARGIN)


def limits(max_held: int) -> Limits:
    """Those of the life cycle."""
    return Limits(
        max_held=max_held,
        launch_retries=conf.getint("dispatch", "launch_retries", fallback=10),
        told_after=conf.getfloat("dispatch", "waits_event_after", fallback=300.0),
        refresh_every=queued_timeout() / 4,
        silence=4 * conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0),
        paused_after=conf.getfloat("scheduler", "scheduler_health_check_threshold") * 5 / 6,
    )
