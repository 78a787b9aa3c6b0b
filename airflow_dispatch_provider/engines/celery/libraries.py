# SPDX-License-Identifier: Apache-2.0
"""How to install what a transport or a driver needs, by the extras of the package that brings it."""

from __future__ import annotations

import re
from importlib.metadata import metadata

from kombu.transport import TRANSPORT_ALIASES

from airflow_dispatch_provider.bridge.installed import pip_install


def for_transport(name: str) -> str:
    """
    :param name: one of kombu's schemes
    """
    _, _, module, *_ = re.split("[:.]", TRANSPORT_ALIASES[name])  # kombu.transport.SQS:Transport
    return _install("kombu", f"what kombu needs for {name}://", module)


def for_driver(url: str) -> str:
    """
    :param url: ``db+dialect+driver://...``
    """
    _, dialect, *driver = [*url.partition("://")[0].split("+"), ""][:3]
    extras = [f"{dialect}-{driver[0]}", driver[0]] if any(driver) else [dialect]
    return _install("sqlalchemy", f"the driver of {dialect}", *extras)


def for_results(name: str) -> str:
    """
    :param name: one of Celery's schemes of result backends
    """
    extra = {"cache": "memcache", "gs": "gcs"}.get(name, name)
    return _install("celery", f"what Celery needs for {name}://", extra)


def _install(package: str, what: str, *extras: str) -> str:
    known = {_normal(extra): extra for extra in metadata(package).get_all("Provides-Extra") or ()}
    found = next((known[extra] for extra in map(_normal, extras) if extra in known), None)
    return f"Run: {pip_install([f'{package}[{found}]'])}" if found else f"Install {what}."


def _normal(extra: str) -> str:
    return re.sub("[-_.]+", "-", extra).lower()
