# SPDX-License-Identifier: Apache-2.0
"""Checks of a Celery backend's options before anything is connected, by trying what Celery would do.

Texts that may hold a password are never quoted, not even in part.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Set
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

from airflow.configuration import conf as airflow_conf
from celery import Celery
from celery.app.backends import BACKEND_ALIASES
from celery.app.defaults import DEFAULTS
from celery.exceptions import ImproperlyConfigured
from kombu.transport import TRANSPORT_ALIASES
from sqlalchemy import create_engine
from sqlalchemy.exc import NoSuchModuleError

from airflow_dispatch_provider.bridge.users_code import import_users_module
from airflow_dispatch_provider.engines.celery.libraries import for_driver, for_results, for_transport
from airflow_dispatch_provider.engines.celery.result_sources import backend_class
from airflow_dispatch_provider.engines.celery.results import ResultBackendError
from airflow_dispatch_provider.engines.celery.urls import (
    DATABASES,
    NO_URL,
    RESULT_EXAMPLE,
    meant_by,
    wrong_broker,
    wrong_results,
)
from airflow_dispatch_provider.engines.certificates import belong_together, unreadable, wrong_authority
from airflow_dispatch_provider.exceptions import Problem, TookTooLong
from airflow_dispatch_provider.masking import describe, kind_of

BROKER, RESULTS = "[celery] broker_url", "[celery] result_backend"
TRANSPORT = "celery_broker_transport_options"
RESULT_TRANSPORT = "celery_result_backend_transport_options"
EXTRA = "[celery] extra_celery_config"
ENGINE_OPTIONS = "[celery] result_backend_sqlalchemy_engine_options"

_NUMBERS = {
    "health_check_interval",
    "max_connections",
    "polling_interval",
    "socket_connect_timeout",
    "socket_timeout",
    "visibility_timeout",
    "wait_time_seconds",
}
"""Transport options that kombu's transports calculate with."""

_OF_RESULTS = {"global_keyprefix", "master_name", "retry_policy"}
"""Transport options that only result backends take."""

_OFFLINE = {
    f"celery.backends.{name}"
    for name in (
        "arangodb",
        "azureblockblob",
        "cache",
        "cassandra",
        "consul",
        "cosmosdbsql",
        "couchbase",
        "couchdb",
        "dynamodb",
        "elasticsearch",
        "mongodb",
        "redis",
        "s3",
    )
}
"""Modules of result backends that connect nowhere, and write nothing, as they are made."""

_LIBRARY = re.compile(r"(?:need to|must) install (?:the )?([\w-]+)|requires either ([\w-]+)")
"""How Celery's result backends name the library that they lack."""

_MAY_BE_0 = {"health_check_interval", "polling_interval", "wait_time_seconds"}
"""0 switches the check off, or asks without waiting."""

_ENGINE_OPTIONS = (
    "connect_args",
    "echo",
    "isolation_level",
    "max_overflow",
    "pool_pre_ping",
    "pool_recycle",
    "pool_size",
    "pool_timeout",
)
"""Those of ``create_engine`` that are used most; for suggestions only."""

_OBJECTS = {
    "predefined_exchanges",
    "predefined_queues",
    "queue_tags",
    "sentinel_kwargs",
    "sqs-creation-attributes",
}
"""Transport options that kombu's transports look up keys in."""


def conf_problems(conf: Any) -> list[Problem]:
    """Mistakes that would keep the app from being made, or that are found by names alone.

    :param conf: the executor's own configuration
    """
    if not hasattr(conf, "getsection"):  # Airflow 3.1's ExecutorConf, which has no options of its own
        conf = airflow_conf
    return [*_url_problems(conf), *_module_problems(conf), *_ssl_problems(conf), *_object_problems(conf)]


def app_problems(app: Celery) -> list[Problem]:
    """Mistakes that keep the app from its broker and its result backend."""
    return [*_transport_problems(app), *_result_problems(app)]


def _url_problems(conf: Any) -> Iterator[Problem]:
    # Kombu drops a line break at the end, which many a command prints; SQLAlchemy does not.
    broker = (conf.get("celery", "broker_url", fallback=None) or "").rstrip()
    urls = broker.split(";") if broker else []
    if wrong := [each for url in urls if (each := wrong_broker(url))]:
        yield Problem(BROKER, *wrong[0])
    result = conf.get("celery", "result_backend", fallback=None) or ""
    found = wrong_results(result)
    if found:
        yield Problem(RESULTS, *found)


def _module_problems(conf: Any) -> Iterator[Problem]:
    """As the provider imports what ``celery_config_options`` names, and then takes nothing but a dict."""
    path = conf.get("celery", "celery_config_options", fallback=None)
    if not path:
        return
    where, remedy = (
        "[celery] celery_config_options",
        "Give the import path of a dict, e.g. my_company.celery.CONFIG.",
    )
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_users_module(module), name)
    except TookTooLong as error:
        yield Problem(where, f"names a module whose import {error.found}.", error.remedy)
        return
    except Exception as error:
        yield Problem(where, f"cannot be imported ({kind_of(error)}).", remedy)
        return
    if not isinstance(found, dict):
        yield Problem(where, f"names a {type(found).__name__}, which is ignored.", remedy)


def _ssl_problems(conf: Any) -> Iterator[Problem]:
    if not conf.getboolean("celery", "ssl_active", fallback=False):
        return
    authority = conf.get("celery", "ssl_cacert", fallback="")
    if authority and (wrong := wrong_authority(authority)):
        yield Problem("[celery] ssl_cacert", *wrong)
    if conf.getboolean("celery", "ssl_mutual_tls", fallback=True):
        pair = (conf.get("celery", option, fallback="") or "" for option in ("ssl_cert", "ssl_key"))
        yield from _pair_problems(*pair)
    broker = conf.get("celery", "broker_url", fallback=None) or ""
    if broker and not re.search(r"(amqps?|rediss?|sentinel)://", broker):
        remedy = "Leave ssl_active out; only amqp, redis and sentinel take it."
        yield Problem("[celery] ssl_active", "is set for a broker that cannot use it.", remedy)


def _pair_problems(certificate: str, key: str) -> Iterator[Problem]:
    given = {"ssl_cert": certificate, "ssl_key": key}
    missing = [option for option, path in given.items() if not path]
    wrong = [
        Problem(f"[celery] {option}", *each)
        for option, path in given.items()
        if path and (each := unreadable(path))
    ]
    if missing:
        names = " and ".join(missing)
        found, remedy = f"is set without {names}.", f"Set {names}, or set ssl_mutual_tls to False."
        yield Problem("[celery] ssl_active", found, remedy)
    yield from wrong
    if not missing and not wrong and not belong_together(certificate, key):
        found = "and ssl_key name files that are no certificate and its key."
        yield Problem("[celery] ssl_cert", found, "Give two PEM files that belong together.")


def _object_problems(conf: Any) -> Iterator[Problem]:
    """The provider refuses the whole configuration for one of these, without a place."""
    for section in (TRANSPORT, RESULT_TRANSPORT):
        for option, value in (conf.getsection(section) or {}).items():
            if option in _OBJECTS and not _is_object(conf, section, option, value):
                remedy = (
                    'Give a JSON object as text, e.g. {"default": {"url": "https://sqs.example/1/default"}}.'
                )
                yield Problem(f"[{section}] {option}", "is not a JSON object.", remedy)


def _is_object(conf: Any, section: str, option: str, value: Any) -> bool:
    try:
        return isinstance(value, dict) or isinstance(conf.getjson(section, option), dict)
    except Exception:
        return False


def _transport_problems(app: Celery) -> Iterator[Problem]:
    url = app.conf.broker_write_url or app.conf.broker_url
    if not url:  # Celery would go to amqp://localhost
        yield Problem(BROKER, "is empty.", NO_URL[1])
        return
    urls = url.rstrip().split(";") if isinstance(url, str) else list(url)
    wrong_urls = [each for one in urls if (each := wrong_broker(str(one)))]
    if wrong_urls:
        # That of the option itself has been looked at before the app was made.
        found, remedy = wrong_urls[0]
        found = f"is overridden in extra_celery_config or celery_config_options by one that {found}"
        yield Problem(BROKER, found, remedy)
        return
    name = str(urls[0]).partition("://")[0].partition("+")[0]
    try:
        connection = app.connection_for_write()
        connection.transport  # noqa: B018  imports the client library
    except Exception as error:
        yield _no_transport(str(urls[0]), error)
        return
    options = connection.transport_options
    if name == "sentinel" and not options.get("master_name"):
        yield _no_master(BROKER, TRANSPORT)
    for option, value in options.items():
        if wrong := _wrong_option(option, value):
            yield Problem(f"[{TRANSPORT}] {option}", *wrong)


def _no_master(url: str, section: str) -> Problem:
    """Told where the URL stands that asks for one: the option itself stands nowhere."""
    remedy = f"Set master_name in [{section}] to the name under which the sentinels know the master."
    return Problem(url, "is a sentinel:// without a master_name.", remedy)


def _wrong_option(option: str, value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    if option in _NUMBERS and not _is_amount(value, option in _MAY_BE_0):
        least = "of 0 or more" if option in _MAY_BE_0 else "above 0"
        return f"is not a number {least}.", "Give a number, e.g. 30."
    if option == "priority_steps" and not _is_steps(value):
        remedy = "Leave it out, or set it in a dict that celery_config_options names."
        return "is not a list of whole numbers.", remedy
    if option in _OBJECTS and not isinstance(value, dict):
        remedy = "Set broker_transport_options in a dict that celery_config_options names, or install a newer"
        found = "is text for this version of the Celery provider, and not an object."
        return found, f"{remedy} apache-airflow-providers-celery."
    return None


def _is_amount(value: Any, may_be_0: bool) -> bool:
    """Whether it can be waited for, or counted up to."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return value > 0 or (may_be_0 and value == 0)


def _is_steps(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(step, int) for step in value)


def celery_doubts(app: Celery) -> Iterator[Problem]:
    """Transport options that look misspelt, of which no transport lists all that it takes, and options of Celery itself
    that look so, or have a name of Celery 3.

    :param app: one without problems
    """
    connection = app.connection_for_write()
    channel = getattr(type(connection.transport), "Channel", None)
    known = {*getattr(channel, "from_transport_options", ()), *_NUMBERS, *_OBJECTS}
    yield from _misspelt(TRANSPORT, connection.transport_options, known, "the transport")
    results = app.conf.result_backend_transport_options or {}
    yield from _misspelt(RESULT_TRANSPORT, results, _OF_RESULTS | _NUMBERS | _OBJECTS, "result backends")
    for option in sorted(set().union(*app.conf.maps[:-1]) - DEFAULTS.keys()):
        if meant := option_meant(option, DEFAULTS.keys()):
            found = f"has {option!r}, which Celery does not read."
            yield Problem(EXTRA, found, f'Did you mean "{meant}"?')


def _misspelt(section: str, options: Iterable[str], known: Set[str], by: str) -> Iterator[Problem]:
    for option in options:
        close = [] if option in known else get_close_matches(option, known, n=1, cutoff=0.85)
        if close:
            yield Problem(f"[{section}] {option}", f"is unknown to {by}.", f'Did you mean "{close[0]}"?')


def option_meant(name: str, known: Set[str]) -> str | None:
    """The option of Celery that a name which it does not know stands for: Celery 3 had them in capitals, and with other
    prefixes, e.g. CELERYD_CONCURRENCY for worker_concurrency."""
    lower = name.lower()
    if name.isupper():
        own = lower.partition("_")[2]
        for name_of_today in (lower, own):
            if name_of_today in known:
                return name_of_today
        other_prefix = [each for each in known if each.partition("_")[2] == own]
        return other_prefix[0] if len(other_prefix) == 1 else None
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.85)), None)


def _told(error: BaseException, url: str) -> str:
    """The error in one line; its kind alone where its text may quote a part of the URL, as that of a KeyError does."""
    values = {value for _, value in parse_qsl(url.partition("?")[2])}
    quotes = isinstance(error, LookupError) or any(value in str(error) for value in values)
    return f"{kind_of(error)}." if quotes else describe(error)


def _no_transport(url: str, error: Exception) -> Problem:
    name = url.partition("://")[0].partition("+")[0]
    # Where its library is missing, a transport of kombu raises ImportError, or trips over the names it lacks.
    if isinstance(error, ImportError | NameError) and name in TRANSPORT_ALIASES:
        needed = (isinstance(error, ImportError) and error.name) or "a client library"
        found = f"needs {needed} for {name}://, which is not installed."
        return Problem(BROKER, found, for_transport(name))
    meant = meant_by(name, TRANSPORT_ALIASES)
    remedy = f'Did you mean "{meant}"?' if meant else "Use redis, amqp, sqs or another transport of kombu."
    if name in TRANSPORT_ALIASES:
        return Problem(
            BROKER, f"cannot be used: {_told(error, url)}", f"Install what kombu needs for {name}://."
        )
    return Problem(BROKER, f"has the scheme {name!r}, which is no transport.", remedy)


def _result_problems(app: Celery) -> Iterator[Problem]:
    try:
        found, url = backend_class(app)
        names = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}
        if "celery.backends.database.DatabaseBackend" in names:
            create_engine(url or app.conf.database_url)  # imports the driver, and connects nowhere
            yield from _engine_problems(url or app.conf.database_url, app.conf.database_engine_options or {})
        elif found.__module__ in _OFFLINE or _lacks_google(found):
            made = found(app=app, url=url)  # the same
            if found.__module__ == "celery.backends.cache":
                made.client  # noqa: B018  the same
        options = app.conf.result_backend_transport_options or {}
        if "celery.backends.redis.SentinelBackend" in names and not options.get("master_name"):
            yield _no_master(RESULTS, RESULT_TRANSPORT)
    except Exception as error:
        yield _no_result_backend(str(app.backend_cls or app.conf.result_backend), error)


def _lacks_google(found: type[Any]) -> bool:
    """Whether the backend would say so as it is made, and not ask Google."""
    module = sys.modules[found.__module__]
    return module.__name__ == "celery.backends.gcs" and not (
        getattr(module, "storage", None) and getattr(module, "firestore", None)
    )


def _engine_problems(url: str, options: Any) -> Iterator[Problem]:
    """The scheduler's Celery leaves out some of them, the workers' none."""
    try:
        create_engine(url, **options)
    except Exception as error:
        unknown = re.findall(r"'(\w+)'", str(error).partition(" sent to create_engine()")[0])
        name = next((each for each in unknown if each in options), None)
        close = get_close_matches(name or "", _ENGINE_OPTIONS, n=1)
        found = (
            f"has {name!r}, which is no option of create_engine." if name else "is refused by create_engine."
        )
        remedy = f'Did you mean "{close[0]}"?' if close else "Leave it out."
        yield Problem(ENGINE_OPTIONS, found, remedy)


def _no_result_backend(configured: str, error: Exception) -> Problem:
    if isinstance(error, ResultBackendError) and error.__cause__ is None:
        return Problem(RESULTS, "gives no results: nobody would learn how a task has ended.", RESULT_EXAMPLE)
    cause = error.__cause__ or error
    name = configured.partition("://")[0].partition("+")[0]
    if "://" not in configured and name not in BACKEND_ALIASES:
        # A word alone may be a password.
        return Problem(RESULTS, "is neither a URL nor a result backend that can be imported.", RESULT_EXAMPLE)
    removed = isinstance(cause, ImportError) and str(cause.name).startswith("celery.")
    if isinstance(cause, ImportError) and name.isidentifier() and (removed or name not in BACKEND_ALIASES):
        meant = meant_by(name, BACKEND_ALIASES.keys() - {name})
        remedy = f'Did you mean "{meant}"?' if meant else RESULT_EXAMPLE
        return Problem(RESULTS, f"has the scheme {name!r}, which is no result backend.", remedy)
    if isinstance(error, NoSuchModuleError):
        dialect = configured.removeprefix("db+").partition("://")[0].partition("+")[0]
        meant = meant_by(f"db+{dialect}", DATABASES)
        remedy = f'Did you mean "{meant}"?' if meant else RESULT_EXAMPLE
        return Problem(RESULTS, f"names {dialect!r}, which is no database that SQLAlchemy knows.", remedy)
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        remedy = for_driver(configured) if name == "db" else for_results(name)
        return Problem(RESULTS, f"needs {cause.name}, which is not installed.", remedy)
    if isinstance(cause, ImproperlyConfigured) and (library := _LIBRARY.search(str(cause))):
        return Problem(
            RESULTS, f"needs {library[1] or library[2]}, which is not installed.", for_results(name)
        )
    return Problem(
        RESULTS, f"cannot be used: {_told(cause, configured)}", "Correct it, or install what it needs."
    )
