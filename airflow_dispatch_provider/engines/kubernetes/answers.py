# SPDX-License-Identifier: Apache-2.0
"""Meaning of the API server's answer to a create, patch or delete, for the pod's task and for the backend."""

from __future__ import annotations

import contextlib
import http
import json
import math
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from kubernetes.utils.quantity import parse_quantity

from airflow_dispatch_provider.engines.kubernetes._verdicts import (
    MAX_RETRY_AFTER,
    Answer,
    Scope,
    Verdict,
)
from airflow_dispatch_provider.masking import describe, one_line


@dataclass(frozen=True)
class _Response:
    """An answer's parts, as far as they could be read."""

    status: int
    message: str
    retry_after: float | None

    from_api_server: bool
    """Whether the body is a ``Status`` object: a proxy or load balancer sends other things."""

    reason: str = ""
    """``Status.reason``, e.g. ``AlreadyExists``."""

    kind: str = ""
    """``Status.details.kind``: the resource that the answer is about, e.g. ``namespaces``."""

    def verdict(self, verdict: Verdict, what: str, scope: Scope = Scope.UNKNOWN) -> Answer:
        return Answer(verdict, f"{what} (HTTP {self.status}): {self.message}", self.retry_after, scope)


def of_create(
    status: int,
    headers: Mapping[str, str],
    body: str,
    *,
    sent_before: bool,
    namespace: str,
    own_namespace: bool,
) -> Answer:
    """
    Meaning of the answer to the POST of a pod.

    :param headers: compared without regard to case
    :param sent_before: a request with this pod name was sent already and its answer was lost. Only meaningful
        where the name is the executor's own: a name out of a ``pod_override`` may belong to another pod.
    :param namespace: the one that the pod was to be created in
    :param own_namespace: the backend is configured for it. A namespace that only a ``pod_override`` or the
        mutation hook names is that task's affair, whether it is missing or forbidden.
    """
    response = _read(status, headers, body)
    if status == 409 and _exists(response):
        if sent_before:
            return response.verdict(Verdict.DONE, "An earlier request has created the pod already")
        return response.verdict(Verdict.INVALID, "Another pod has this name")
    if status == 409 and _CHANGED in response.message:
        return response.verdict(Verdict.THROTTLED, "The namespace's quota was being counted", Scope.JOB)
    if _lacks_namespace(response):
        verdict = Verdict.TROUBLE if own_namespace else Verdict.INVALID
        return response.verdict(verdict, f"The namespace {namespace} cannot take pods")
    answer = _judge(response)
    if answer.verdict is Verdict.TROUBLE and not own_namespace and _permission(response):
        return Answer(Verdict.INVALID, answer.reason)
    return answer


def of_change(status: int, headers: Mapping[str, str], body: str) -> Answer:
    """Meaning of the answer to the DELETE or PATCH of a pod; ``GONE`` also when another pod has its name now."""
    response = _read(status, headers, body)
    if status == 404 and response.from_api_server and not _unknown_path(response):
        return response.verdict(Verdict.GONE, "The pod does not exist")
    if status == 409 and "UID in precondition" in response.message:
        return response.verdict(Verdict.GONE, "Another pod has this name by now")
    return _judge(response)


def of_exception(error: BaseException) -> tuple[Answer, bool]:
    """
    Meaning of a request that raised instead of being answered: always ``TROUBLE``.

    :return: the answer, and whether the request certainly did not reach the server. Otherwise it may have been
        carried out: a create has to be repeated with the same name.
    """
    unsent = isinstance(error, _UNSENT)
    what = "The API server cannot be reached" if unsent else "The API server did not answer"
    scope = Scope.SERVER if unsent else Scope.UNKNOWN
    return Answer(Verdict.TROUBLE, f"{what}: {describe(error)}", scope=scope), unsent


# All of these are raised before the first byte of a request is written. A timeout or a reset is not among them
# unless it is known to have been the connection's, and neither is a bare SSLError: TLS 1.3 servers refuse a
# client's certificate after the client has begun to send.
_UNSENT: tuple[type[BaseException], ...] = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    ssl.SSLCertVerificationError,
    socket.gaierror,
    ConnectionRefusedError,
)

_PERMISSION = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"'
    r'(?:.*? in the namespace "(?P<namespace>[^"]+)")?'
)
_DENIED = re.compile(r"admission webhook .* denied the request|ValidatingAdmissionPolicy .* denied request")
_NO_ROOM = ("exceeded quota", "exceeded hierarchical quota", "status unknown for quota")
_QUOTA = re.compile(r"requested: (?P<requested>\S+), used: \S+, limited: (?P<limited>[^\s;]+)")

# The API server notes every pod in the quotas of its namespace; several at a time get into each other's way.
_CHANGED = "the object has been modified"

# What the pod refers to is not there: it may be put there, and it may be missed by every pod of the template.
_MISSING = re.compile(
    r"error looking up service account|no PriorityClass with name|RuntimeClass .*not found", re.IGNORECASE
)

# By etcd, whose limit is below the API server's own, and by the connection to it.
_TOO_LARGE = ("etcdserver: request is too large", "trying to send message larger than max")

# A proxy may refuse these in its own words, and they are still about this request alone.
_ABOUT_THE_REQUEST = frozenset({413, 414, 415, 422, 431})
_PASSING = frozenset({408, 409, 410})


def _judge(response: _Response) -> Answer:
    """The cases that every kind of request has in common, most specific first."""
    status = response.status
    if 200 <= status < 300:
        return Answer(Verdict.DONE, "The API server has accepted it")
    if 400 <= status < 500 and _DENIED.search(response.message):
        verdict = Verdict.TROUBLE if status == 429 else Verdict.INVALID
        return response.verdict(verdict, "An admission policy of the cluster forbids it")
    if status == 429:
        return response.verdict(Verdict.THROTTLED, "The API server asks for a pause", Scope.SERVER)
    if status == 401:
        what = "The API server refuses the backend's credentials"
        return response.verdict(Verdict.TROUBLE, what, Scope.SERVER)
    if status == 403:
        return _forbidden(response)
    if status == 500 and any(words in response.message for words in _TOO_LARGE):
        return response.verdict(Verdict.INVALID, "The pod is too large for the cluster's database")
    if status in _PASSING or not 400 <= status < 500:
        return response.verdict(Verdict.TROUBLE, "The API server could not do it")
    if not _about_the_request(response):
        what = "This is no API server, or it is not ready"
        return response.verdict(Verdict.TROUBLE, what, Scope.SERVER)
    return response.verdict(Verdict.INVALID, "The API server refuses the request")


def _forbidden(response: _Response) -> Answer:
    if any(words in response.message for words in _NO_ROOM):
        return _no_room(response)
    if _MISSING.search(response.message):
        return response.verdict(Verdict.TROUBLE, "The pod needs something that is not there")
    if permission := _permission(response):
        return response.verdict(Verdict.TROUBLE, permission)
    if not response.from_api_server:
        return response.verdict(Verdict.TROUBLE, "Something before the API server forbids it")
    return response.verdict(Verdict.INVALID, "The API server refuses the request")


def _no_room(response: _Response) -> Answer:
    if _never_fits(response.message):
        what = "The pod asks for more than the namespace's whole quota"
        return response.verdict(Verdict.FULL, what, Scope.JOB)
    return response.verdict(Verdict.FULL, "The namespace's quota is used up")


def _never_fits(message: str) -> bool:
    """Whether a pod asks for more than an empty namespace would have, as the quota's own message words it."""
    return any(
        _exceeds(_quantities(found["requested"]), _quantities(found["limited"]))
        for found in _QUOTA.finditer(message)
    )


def _exceeds(requested: Mapping[str, Decimal], limited: Mapping[str, Decimal]) -> bool:
    return any(amount > limited[name] for name, amount in requested.items() if name in limited)


def _quantities(text: str) -> dict[str, Decimal]:
    """Of ``pods=1,requests.cpu=500m``; what is no quantity is left out."""
    found = {}
    for name, _, quantity in (part.partition("=") for part in text.split(",")):
        with contextlib.suppress(ValueError):
            found[name] = parse_quantity(quantity)
    return found


def _permission(response: _Response) -> str | None:
    """Which permission is missing, in words; None when it is not that."""
    found = _PERMISSION.search(response.message)
    if response.status != 403 or not found:
        return None
    where = f"in namespace {found['namespace']}" if found["namespace"] else "in the whole cluster"
    return f"{found['user']} lacks the permission to {found['verb']} {found['resource']} {where}"


def _exists(response: _Response) -> bool:
    return response.reason == "AlreadyExists" or "already exists" in response.message


def _lacks_namespace(response: _Response) -> bool:
    """Whether there is no such namespace, or soon there will be none."""
    if response.status == 404:
        return response.kind == "namespaces" or 'namespaces "' in response.message
    return response.status == 403 and "because it is being terminated" in response.message


def _unknown_path(response: _Response) -> bool:
    """Whether the server knows of no pods at all, as an aggregator or a virtual cluster that is starting."""
    return response.status == 404 and "could not find the requested resource" in response.message


def _about_the_request(response: _Response) -> bool:
    if response.status in _ABOUT_THE_REQUEST:
        return True
    return response.from_api_server and not _unknown_path(response)


def _read(status: int, headers: Mapping[str, str], body: str) -> _Response:
    low = {name.lower(): value for name, value in headers.items()} if status >= 400 else {}
    fields = _status_object(body) if status >= 400 else None
    details = (fields or {}).get("details")
    details = details if isinstance(details, dict) else {}
    text = str((fields or {}).get("message") or (fields or {}).get("reason") or body)
    return _Response(
        status=status,
        message=one_line(text) or _phrase(status),
        retry_after=_retry_after(low, details),
        from_api_server=fields is not None,
        reason=str((fields or {}).get("reason") or ""),
        kind=str(details.get("kind") or ""),
    )


def _status_object(body: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and fields.get("kind") == "Status" else None


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "no message"


def _retry_after(headers: Mapping[str, str], details: Mapping[str, Any]) -> float | None:
    """From the header (seconds or a date), else from the ``Status`` object."""
    seconds = _seconds(headers.get("retry-after"), headers.get("date"))
    if seconds is None:
        seconds = _seconds(details.get("retryAfterSeconds"), None)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _seconds(value: object, now: str | None) -> float | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return _until(str(value), now)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _until(date: str, now: str | None) -> float | None:
    """Seconds from ``now``, the server's own clock where it tells it, to ``date``."""
    try:
        moment = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    try:
        return moment - parsedate_to_datetime(str(now)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return moment - time.time()
