# SPDX-License-Identifier: Apache-2.0
"""The right way to get results for each of Celery's result backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.app.backends import by_url
from celery.backends.base import DisabledBackend
from celery.exceptions import ImproperlyConfigured
from kombu import Queue

from airflow_dispatch_provider.engines.celery.results import (
    ResultBackendError,
    ResultSource,
    Timing,
)
from airflow_dispatch_provider.engines.celery.results_database import open_database
from airflow_dispatch_provider.engines.celery.results_polled import open_other
from airflow_dispatch_provider.engines.celery.results_rpc import open_rpc
from airflow_dispatch_provider.masking import masked

Opener = Callable[[Celery, type[Any], "str | None", Timing], ResultSource]


def backend_class(app: Celery) -> tuple[type[Any], str | None]:
    """The class of the app's result backend, and the URL for it. Asks nobody.

    :raises ResultBackendError: there is none, it is not installed, or it gives no results
    """
    configured = app.backend_cls or app.conf.result_backend
    try:
        found, url = by_url(configured, app.loader)
    except (ImproperlyConfigured, ImportError) as error:
        remedy = "Correct [celery] result_backend, or install what it needs."
        raise ResultBackendError(
            f"The result backend {backend_name(app)} is not usable: {error} {remedy}"
        ) from error
    if issubclass(found, DisabledBackend):
        raise ResultBackendError(
            "Celery has no result backend, so nobody would learn how a task has ended. "
            "Set [celery] result_backend, for example to db+ and the URL of Airflow's database."
        )
    return found, url


def backend_name(app: Celery) -> str:
    """The result backend's URL without password and options."""
    return masked(str(app.backend_cls or app.conf.result_backend)).partition("?")[0]


def reply_queue(app: Celery) -> Queue | None:
    """The queue that workers have to send results to, of the thread that calls; None unless results are messages."""
    found, url = backend_class(app)
    return found(app=app, url=url).binding if _opener(found) is open_rpc else None


def open_source(app: Celery, timing: Timing) -> ResultSource:
    """Connect to the app's result backend. For one thread alone, which reads and closes what it has opened.

    :raises ResultBackendError: there is none
    """
    found, url = backend_class(app)
    return _opener(found)(app, found, url, timing)


def _names(found: type[Any]) -> list[str]:
    """A class and its bases by name: to import them would ask for redis and others to be installed."""
    return [f"{base.__module__}.{base.__qualname__}" for base in found.__mro__]


def _opener(found: type[Any]) -> Opener:
    return next((_OPENERS[name] for name in _names(found) if name in _OPENERS), open_other)


def _open_redis(app: Celery, found: type[Any], url: str | None, timing: Timing) -> ResultSource:
    from airflow_dispatch_provider.engines.celery.results_redis import open_redis

    return open_redis(app, found, url, timing)


_OPENERS: dict[str, Opener] = {
    "celery.backends.redis.RedisBackend": _open_redis,
    "celery.backends.database.DatabaseBackend": open_database,
    "celery.backends.rpc.RPCBackend": open_rpc,
}
