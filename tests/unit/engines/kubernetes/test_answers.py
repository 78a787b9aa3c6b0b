# SPDX-License-Identifier: Apache-2.0
"""Verdicts on answers as the API server, its admission plug-ins and what stands before it give them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from airflow_dispatch_provider.engines.kubernetes import answers
from airflow_dispatch_provider.engines.kubernetes.answers import (
    MAX_RETRY_AFTER,
    Scope,
    Verdict,
    of_change,
    of_create,
    of_exception,
)
from airflow_dispatch_provider.masking import MAX_LENGTH

DONE, FULL, THROTTLED, TROUBLE, GONE, INVALID = Verdict
POD = '"dag-task-1a2b3c4d"'
SERVICE_ACCOUNT = "system:serviceaccount:airflow:scheduler"


def status(code: int, reason: str, message: str, **details: Any) -> str:
    """A ``Status`` object as the API server sends it."""
    fields = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return json.dumps({**fields, "message": message, "reason": reason, "details": details, "code": code})


def forbidden(message: str) -> tuple[int, str]:
    message = f"pods {POD} is forbidden: {message}"
    return 403, status(403, "Forbidden", message, name=POD.strip('"'), kind="pods")


def no_permission(
    verb: str = "create", resource: str = "pods", where: str = 'in the namespace "airflow"'
) -> str:
    message = f'User "{SERVICE_ACCOUNT}" cannot {verb} resource "{resource}" in API group "" {where}'
    return status(403, "Forbidden", f"pods is forbidden: {message}", kind="pods")


EXISTS = status(409, "AlreadyExists", f"pods {POD} already exists", name=POD.strip('"'), kind="pods")
NO_NAMESPACE = status(404, "NotFound", 'namespaces "airflow" not found', name="airflow", kind="namespaces")
NO_POD = status(404, "NotFound", f"pods {POD} not found", name=POD.strip('"'), kind="pods")
TERMINATING = forbidden("unable to create new content in namespace airflow because it is being terminated")
UNKNOWN_PATH = status(404, "NotFound", "the server could not find the requested resource")
MODIFIED = status(
    409,
    "Conflict",
    'Operation cannot be fulfilled on resourcequotas "q": the object has been modified; please apply your '
    "changes to the latest version and try again",
    name="q",
    kind="resourcequotas",
)
DENIAL = 'admission webhook "policy.example.com" denied the request: no image from there'
PAGE = "<html><head><title>Forbidden by the gateway</title></head></html>"


def create(code: int, body: str, **options: Any) -> answers.Answer:
    fields = {"sent_before": False, "namespace": "airflow", "own_namespace": True, **options}
    return of_create(code, fields.pop("headers", {}), body, **fields)


CREATES = [
    # Accepted: created, and accepted for later.
    (201, '{"kind": "Pod"}', DONE),
    (202, "", DONE),
    # No room: the quota is used up, is a hierarchical one, or has not been counted yet.
    (*forbidden("exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"), FULL),
    (*forbidden("exceeded hierarchical quota in namespace airflow"), FULL),
    (*forbidden("status unknown for quota: q, resources: pods"), FULL),
    (
        *forbidden(
            "exceeded quota: q, requested: requests.cpu=8, used: requests.cpu=0, limited: requests.cpu=2"
        ),
        FULL,
    ),
    # Too many requests: by priority and fairness (text) and by the storage (Status).
    (429, "Too many requests, please try again later.", THROTTLED),
    (429, status(429, "TooManyRequests", "storage is (re)initializing", retryAfterSeconds=1), THROTTLED),
    # Rights: credentials refused, role missing.
    (401, status(401, "Unauthorized", "Unauthorized"), TROUBLE),
    (403, no_permission(), TROUBLE),
    # The backend's own namespace is missing or going away.
    (404, NO_NAMESPACE, TROUBLE),
    (*TERMINATING, TROUBLE),
    # What the pod refers to is missing: it may be created, and the template of the backend may name it.
    (*forbidden('error looking up service account airflow/w: serviceaccount "w" not found'), TROUBLE),
    (*forbidden("no PriorityClass with name high was found"), TROUBLE),
    (*forbidden('pod rejected: RuntimeClass "kata" not found'), TROUBLE),
    # A webhook that asks for a pause: it has not seen other pods.
    (429, status(429, "TooManyRequests", DENIAL), TROUBLE),
    # A conflict in the quota's bookkeeping, as where many pods are created at a time.
    (409, MODIFIED, THROTTLED),
    # Passing: an expired version, a time-out of the server's.
    (410, status(410, "Expired", "The provided continue parameter is too old"), TROUBLE),
    (408, status(408, "Timeout", "request timed out"), TROUBLE),
    # The server or its storage is unwell; a webhook that cannot be called.
    (500, status(500, "InternalError", 'failed calling webhook "w": connection refused'), TROUBLE),
    (500, "", TROUBLE),
    (503, "upstream connect error or disconnect/reset before headers", TROUBLE),
    (504, status(504, "Timeout", "context deadline exceeded"), TROUBLE),
    # Not an API server, or one that serves no pods yet.
    (302, "", TROUBLE),
    (400, "Client sent an HTTP request to an HTTPS server.", TROUBLE),
    (403, PAGE, TROUBLE),
    (404, "404 page not found", TROUBLE),
    (404, UNKNOWN_PATH, TROUBLE),
    (405, "[1, 2]", TROUBLE),
    # The pod: malformed, or against a rule of the API.
    (400, status(400, "BadRequest", 'Pod in version "v1" cannot be handled as a Pod: json: bad'), INVALID),
    (422, status(422, "Invalid", f"Pod {POD} is invalid: spec.containers[0].image: Required value"), INVALID),
    # The pod: too large, said by the API server and by a proxy.
    (413, status(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"), INVALID),
    (413, PAGE, INVALID),
    (500, status(500, "InternalError", "etcdserver: request is too large"), INVALID),
    (500, status(500, "InternalError", "trying to send message larger than max (3 vs. 2)"), INVALID),
    # The pod: against what an admission plug-in allows.
    (*forbidden('violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'), INVALID),
    (*forbidden("maximum cpu usage per Container is 1, but limit is 2"), INVALID),
    (*forbidden("failed quota: q: must specify limits.cpu for: base"), INVALID),
    # A webhook or policy may choose any code for its denial.
    (403, status(403, "Forbidden", DENIAL), INVALID),
    (400, status(400, "BadRequest", DENIAL), INVALID),
    (409, status(409, "Conflict", DENIAL), INVALID),
    (
        401,
        status(401, "Unauthorized", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
        INVALID,
    ),
    # Another pod has this name, and we have not sent it.
    (409, EXISTS, INVALID),
]


@pytest.mark.parametrize(("code", "body", "verdict"), CREATES)
def test_create(code, body, verdict):
    """Every answer to a create has the verdict of its row, and says what the server said."""
    answer = create(code, body)
    assert answer.verdict is verdict, answer.reason
    if code >= 300:
        assert f"HTTP {code}" in answer.reason
        text = json.loads(body)["message"] if body.startswith("{") else body
        assert text in answer.reason


QUOTA = "exceeded quota: q, requested: {}, used: {}, limited: {}"
SCOPES = [
    # Whoever asks meets these.
    (401, status(401, "Unauthorized", "Unauthorized"), Scope.SERVER),
    (429, "Too many requests, please try again later.", Scope.SERVER),
    (404, "404 page not found", Scope.SERVER),
    # More than the whole quota, in whatever unit, is this pod's affair; so is one of several resources.
    (*forbidden(QUOTA.format("requests.cpu=8", "requests.cpu=0", "requests.cpu=2")), Scope.JOB),
    (*forbidden(QUOTA.format("requests.cpu=2500m", "requests.cpu=0", "requests.cpu=2")), Scope.JOB),
    (*forbidden(QUOTA.format("limits.memory=3Gi", "limits.memory=0", "limits.memory=2G")), Scope.JOB),
    (*forbidden(QUOTA.format("pods=1,cpu=3", "pods=0,cpu=0", "pods=9,cpu=2")), Scope.JOB),
    # These fit when others have gone, or the message does not say.
    (*forbidden(QUOTA.format("pods=1", "pods=10", "pods=10")), Scope.UNKNOWN),
    (*forbidden(QUOTA.format("requests.cpu=500m", "requests.cpu=2", "requests.cpu=2")), Scope.UNKNOWN),
    (*forbidden("exceeded quota: q, requested: pods=much"), Scope.UNKNOWN),
    (*forbidden("exceeded quota: q"), Scope.UNKNOWN),
    # The answer does not tell whether others meet it.
    (500, status(500, "InternalError", 'failed calling webhook "w": connection refused'), Scope.UNKNOWN),
    (503, "upstream connect error", Scope.UNKNOWN),
    (403, no_permission(), Scope.UNKNOWN),
    (404, NO_NAMESPACE, Scope.UNKNOWN),
]


@pytest.mark.parametrize(("code", "body", "scope"), SCOPES)
def test_who_else_would_meet_the_same(code, body, scope):
    """As far as one answer tells; `judgement` asks others where it does not."""
    assert create(code, body).scope is scope


FOREIGN = [
    # A namespace that only the task names is the task's mistake ...
    (404, NO_NAMESPACE, INVALID),
    (*TERMINATING, INVALID),
    (403, no_permission(), INVALID),
    # ... but trouble that is not about the namespace is trouble there, too.
    (401, status(401, "Unauthorized", "Unauthorized"), TROUBLE),
    (500, "", TROUBLE),
    (*forbidden("exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"), FULL),
]


@pytest.mark.parametrize(("code", "body", "verdict"), FOREIGN)
def test_create_in_a_namespace_that_the_task_names(code, body, verdict):
    """One task with a bad namespace fails alone, and does not bring its backend down."""
    assert create(code, body, own_namespace=False).verdict is verdict


@pytest.mark.parametrize("body", [EXISTS, f"pods {POD} already exists"])
def test_a_repeated_create_that_had_worked(body):
    """After a lost answer, the pod's existence means that the first request was carried out."""
    assert create(409, body, sent_before=True).verdict is DONE


def test_a_repeated_create_with_another_conflict():
    """Only the existence of the pod counts as success."""
    assert create(409, MODIFIED, sent_before=True).verdict is THROTTLED


CHANGES = [
    # Accepted.
    (200, '{"kind": "Pod"}', DONE),
    # The pod is gone, alone or with its namespace, or its name has a new owner.
    (404, NO_POD, GONE),
    (404, NO_NAMESPACE, GONE),
    (
        409,
        status(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"),
        GONE,
    ),
    # A 404 that is not about the pod must not make us forget it.
    (404, "404 page not found", TROUBLE),
    (404, UNKNOWN_PATH, TROUBLE),
    # Conflicts, rights and outages pass.
    (409, MODIFIED, TROUBLE),
    (403, no_permission("delete"), TROUBLE),
    (401, status(401, "Unauthorized", "Unauthorized"), TROUBLE),
    (500, "", TROUBLE),
    (429, "Too many requests, please try again later.", THROTTLED),
    # Refused for good.
    (403, status(403, "Forbidden", DENIAL), INVALID),
    (422, status(422, "Invalid", f"Pod {POD} is invalid: metadata.labels: Invalid value"), INVALID),
]


@pytest.mark.parametrize(("code", "body", "verdict"), CHANGES)
def test_change(code, body, verdict):
    """Every answer to a delete or a patch has the verdict of its row."""
    assert of_change(code, {}, body).verdict is verdict


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (no_permission(), "to create pods in namespace airflow"),
        (no_permission("patch", "pods/log"), "to patch pods/log in namespace airflow"),
        (no_permission("list", where="at the cluster scope"), "to list pods in the whole cluster"),
    ],
)
def test_a_missing_permission_is_named(body, words):
    """Who lacks which verb on which resource where."""
    assert f"{SERVICE_ACCOUNT} lacks the permission {words} (HTTP 403)" in of_change(403, {}, body).reason


def test_refused_credentials_are_named():
    """A 401 says so in words, whatever its body says."""
    assert "refuses the backend's credentials (HTTP 401): Unauthorized" in create(401, "").reason


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        # As the server writes it, in any case of letters.
        ({"Retry-After": "7"}, "", 7.0),
        ({"retry-after": " 0 "}, "", 0.0),
        # A date: relative to the server's own clock where it is told, else to ours.
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "Fri, 31 Dec 1999 23:59:49 GMT"}, "", 10.0),
        ({"Retry-After": formatdate(1_000_020, usegmt=True)}, "", 20.0),
        ({"Retry-After": formatdate(999_000, usegmt=True)}, "", 0.0),
        ({"Retry-After": formatdate(1_000_020, usegmt=True), "Date": "yesterday"}, "", 20.0),
        # Out of bounds.
        ({"Retry-After": "1e9"}, "", MAX_RETRY_AFTER),
        # Garbage is as good as nothing.
        ({"Retry-After": "soon"}, "", None),
        ({"Retry-After": "-1"}, "", None),
        ({"Retry-After": "nan"}, "", None),
        ({"Retry-After": ""}, "", None),
        ({}, "", None),
        # The body says it, too; the header wins.
        ({}, status(429, "TooManyRequests", "m", retryAfterSeconds=3), 3.0),
        ({"Retry-After": "7"}, status(429, "TooManyRequests", "m", retryAfterSeconds=3), 7.0),
        ({}, status(429, "TooManyRequests", "m", retryAfterSeconds=None), None),
    ],
)
def test_retry_after(headers, body, seconds, monkeypatch):
    """Seconds, HTTP dates and garbage; on other answers than 429 as well."""
    monkeypatch.setattr(answers, "time", SimpleNamespace(time=lambda: 1_000_000.0))
    for code in (429, 503):
        assert create(code, body, headers=headers).retry_after == seconds
        assert of_change(code, headers, body).retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "null",
        '"text"',
        "[" * 100_000,
        '{"kind": "Status"}',
        '{"kind": "Status", "details": 1}',
        "\0\ufffd",
    ],
)
@pytest.mark.parametrize("code", [0, 199, 200, 307, 400, 401, 403, 404, 409, 410, 422, 429, 500, 999])
def test_garbage(code, body):
    """No body makes a verdict impossible, and the reason is one line."""
    for answer in (create(code, body), of_change(code, {}, body)):
        assert (answer.verdict is DONE) == (code == 200)
        assert "\n" not in answer.reason


def test_reasons_are_short_single_lines_without_tokens():
    """A message may repeat the pod, with the token in its arguments."""
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
    reason = create(422, status(422, "Invalid", f"bad\nargs {token} " + "x" * 10_000)).reason
    assert "\n" not in reason
    assert token not in reason
    assert "bad args ***" in reason
    assert len(reason) < MAX_LENGTH + 100


KEY = ConnectionKey("kube", 443, True, True, None, None, None)
TLS = ssl.SSLCertVerificationError("certificate has expired")
EXCEPTIONS = [
    # The connection was not made: refused, no such host, TLS, too slow, wrong fingerprint, refused by a proxy.
    (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError("refused")), True),
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror("no such host")), True),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError("wrong version number")), True),
    (aiohttp.ClientConnectorCertificateError(KEY, TLS), True),
    (aiohttp.ConnectionTimeoutError("Connection timeout"), True),
    (aiohttp.ServerFingerprintMismatch(b"a", b"b", "kube", 443), True),
    (aiohttp.ClientProxyConnectionError(KEY, OSError("unreachable")), True),
    (aiohttp.ClientHttpProxyError(SimpleNamespace(real_url="http://kube"), (), status=407), True),
    (aiohttp.InvalidURL("nonsense"), True),
    # The same, raised by other clients.
    (TLS, True),
    (socket.gaierror("no such host"), True),
    (ConnectionRefusedError("refused"), True),
    # The request was, or may have been, on its way.
    (aiohttp.ServerDisconnectedError(), False),
    (aiohttp.SocketTimeoutError("Timeout on reading data from socket"), False),
    (aiohttp.ClientOSError(104, "Connection reset by peer"), False),
    (aiohttp.ClientPayloadError("not all data"), False),
    (ConnectionResetError(104, "reset"), False),
    (ssl.SSLError("tlsv13 alert certificate required"), False),
    (TimeoutError(), False),
    (TimeoutError("timed out"), False),
    (asyncio.CancelledError(), False),
    # Something that nobody has thought of.
    (RuntimeError("Session is closed"), False),
]


@pytest.mark.parametrize(("error", "unsent"), EXCEPTIONS, ids=lambda value: type(value).__name__)
def test_exceptions(error, unsent):
    """No answer is trouble, and only what failed before the first byte is certain not to have been carried out."""
    answer, certainly_not_sent = of_exception(error)
    assert (answer.verdict, certainly_not_sent) == (TROUBLE, unsent)
    assert answer.scope is (Scope.SERVER if unsent else Scope.UNKNOWN)
    assert type(error).__name__ in answer.reason
    assert "\n" not in answer.reason
