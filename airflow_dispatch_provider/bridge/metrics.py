# SPDX-License-Identifier: Apache-2.0
"""Airflow's metrics client, wherever the installed version keeps it, and the names that this package gives to it.

What is sent of a backend has its name in the metric's (``dispatch.slots.small``), as plain statsd needs it, and again
as a tag (``dispatch.slots``, ``backend=small``) where the client keeps tags. None of these names is in Airflow's own
registry of metrics, which providers cannot extend: such names are sent as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from airflow.configuration import conf

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")
"""In a part of a name; a dot begins the next part."""

HEARTBEAT = "dispatch.heartbeat"
HEARTBEAT_LONGEST = "dispatch.heartbeat_longest"
HELD_BACK = "dispatch.held_back"
API_AWAY = "dispatch.execution_api_away"
FILE_REFUSED = "dispatch.config_file_refused"
HELD_BY_REASON = "dispatch.held_by_reason"
DISPATCHED, FAILURES = "dispatch.dispatched", "dispatch.failures"


class Ways(NamedTuple):
    """How the client is configured."""

    on: bool
    plain: bool
    """Names are sent that have the backend in them."""

    tagged: bool
    """Names are sent that have the backend as a tag, since the client keeps tags."""


@cache
def ways() -> Ways:
    """Read once, as Airflow does. The first of these that is on is used: Datadog's client, statsd, OpenTelemetry."""

    def is_on(option: str, fallback: bool = False) -> bool:
        return bool(conf.getboolean("metrics", option, fallback=fallback))

    on, tagged = True, False
    if is_on("statsd_datadog_enabled"):
        tagged = is_on("statsd_datadog_metrics_tags", True)
    elif is_on("statsd_on"):
        tagged = is_on("statsd_influxdb_enabled")
    elif is_on("otel_on"):
        tagged = True
    else:
        on = False
    return Ways(on, not tagged or is_on("legacy_names_on", True), tagged)


def stats() -> Any:
    """An object with ``gauge``, ``incr`` and ``timing``."""
    if AIRFLOW_V_3_3_PLUS:
        from airflow.observability import stats as module

        return module
    if AIRFLOW_V_3_2_PLUS:
        from airflow.observability import stats as module

        return module.Stats
    from airflow.stats import Stats

    return Stats


def safe(part: str) -> str:
    """A part of a name, as statsd and OpenTelemetry allow it: Airflow drops a metric whose name they do not, and logs
    each. The names of backends are checked; that of an executor's class may have any letter."""
    return _NOT_ALLOWED.sub("_", part)


def gauge(metric: str, value: float, tags: Mapping[str, str] | None = None) -> None:
    """One of the whole router."""
    stats().gauge(metric, value, tags=dict(tags or {}))


def timing(metric: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
    """One of a timer, which counts in milliseconds."""
    stats().timing(metric, seconds * 1000, tags=dict(tags or {}))


def count(metric: str, number: int, tags: Mapping[str, str]) -> None:
    """Add to one of Airflow's counters, which have tags alone."""
    stats().incr(metric, number, tags=dict(tags))


def gauge_backend(metric: str, backend: str, value: float, *more: str, **tags: str) -> None:
    """
    :param more: what follows the backend in the plain name
    :param tags: besides ``backend``
    """
    client, way = stats(), ways()
    if way.plain:
        client.gauge(".".join([metric, *map(safe, (backend, *more))]), value)
    if way.tagged:
        client.gauge(metric, value, tags={"backend": backend, **tags})


def count_backend(metric: str, backend: str, number: int, **tags: str) -> None:
    """Add to a counter of a backend.

    :param tags: besides ``backend``
    """
    client, way, all_tags = stats(), ways(), {"backend": backend, **tags}
    if way.plain:
        client.incr(f"{metric}.{safe(backend)}", number, tags=all_tags)
    if way.tagged:
        client.incr(metric, number, tags=all_tags)


def gauge_executor(backend: str, *, open_slots: int, running: int, held: int) -> None:
    """The gauges that every executor has, under the backend's name, so that two of one class stay apart."""
    client, name = stats(), safe(backend)
    client.gauge(f"executor.open_slots.{name}", open_slots)
    client.gauge(f"executor.running_tasks.{name}", running)
    client.gauge(f"executor.queued_tasks.{name}", held)


def count_dispatches(backend: str, reason: str, number: int) -> None:
    """A batch that a backend was given for one reason."""
    count_backend(DISPATCHED, backend, number, reason=reason)


def count_failure(backend: str) -> None:
    """A backend itself has failed."""
    count_backend(FAILURES, backend, 1)


def gauge_refused_file(refused: bool) -> None:
    """Whether ``config_file`` on disk is another version than the one in use, because it is wrong."""
    stats().gauge(FILE_REFUSED, int(refused))
