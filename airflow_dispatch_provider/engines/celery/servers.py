# SPDX-License-Identifier: Apache-2.0
"""The servers behind one Celery backend, from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from celery import Celery

from airflow_dispatch_provider.bridge.patience import queued_timeout
from airflow_dispatch_provider.engines.celery._outbox import Outbox
from airflow_dispatch_provider.engines.celery.brokers import Broker, broker_for
from airflow_dispatch_provider.engines.celery.capacity import WorkerCensus
from airflow_dispatch_provider.engines.celery.result_watcher import ResultWatcher
from airflow_dispatch_provider.engines.celery.results import Result
from airflow_dispatch_provider.masking import masked

LEAST_TIMEOUT = 5.0
"""Seconds for a single network call, unless ``[celery] operation_timeout`` is longer: none of them blocks the
scheduler."""


@dataclass(frozen=True, slots=True)
class CeleryOptions:
    """The configuration of one backend, beside its Celery app."""

    default_queue: str = "default"
    """For callbacks that name no queue."""

    timeout: float = LEAST_TIMEOUT
    """Seconds for a single network call."""

    max_unsent: int = 250
    """How many jobs may be on their way to the broker at a time."""

    queued_timeout: float = 600.0
    """Seconds after which Airflow takes a queued task for stuck."""

    @classmethod
    def of(cls, conf: Any) -> CeleryOptions:
        """The options in a configuration of Airflow's. The scheduler knows one time-out, whatever a team's says."""
        return cls(
            default_queue=str(conf.get_mandatory_value("operators", "default_queue")),
            timeout=max(LEAST_TIMEOUT, float(conf.get("celery", "operation_timeout", fallback=1.0))),
            max_unsent=conf.getint("dispatch", "celery_max_unsent", fallback=250),
            queued_timeout=queued_timeout(),
        )


class Drives(Protocol):
    """See ``Driver``."""

    @property
    def is_dead(self) -> bool: ...

    def start(self) -> None: ...

    def outbox(self, wake: bool = False) -> AbstractContextManager[Outbox]: ...

    def stop(self, deadline: float) -> list[int]: ...


class Watcher(Protocol):
    """See ``ResultWatcher``."""

    @property
    def problem(self) -> str | None: ...

    @property
    def outages(self) -> int: ...

    def start(self, wait: bool = True) -> None: ...

    def watch(self, celery_id: str) -> None: ...

    def look(self, celery_id: str) -> None: ...

    def forget(self, celery_id: str) -> None: ...

    def drain(self) -> list[Result]: ...

    def stop(self, timeout: float) -> None: ...


class Census(Protocol):
    """See ``WorkerCensus``."""

    @property
    def slots(self) -> int | None: ...

    @property
    def has_none(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Servers(NamedTuple):
    """All of them not started yet, or not connected."""

    broker: Broker
    broker_name: str
    """Without passwords."""

    watcher: Watcher
    census: Census | None = None
    """None: nobody asks how many tasks the workers can run."""

    tracks_started: bool = True
    """Whether the workers say that they have a message."""


def servers_of(
    make_app: Callable[[], Celery], options: CeleryOptions, count_workers: bool = False
) -> Servers:
    """
    Prepare to talk to an app's broker, result backend and workers. Asks none of them; raises what Celery and kombu
    raise over a configuration.

    :param make_app: gives Airflow's Celery app of the backend
    """
    app = make_app()
    watcher = ResultWatcher(app)
    broker = broker_for(
        app,
        options.timeout,
        reply_queue=watcher.await_reply_queue,
        queued_timeout=options.queued_timeout,
    )
    census = WorkerCensus(app, options.timeout) if count_workers else None
    return Servers(
        broker,
        masked(app.connection_for_write().as_uri()),
        watcher,
        census,
        bool(app.conf.task_track_started),
    )
