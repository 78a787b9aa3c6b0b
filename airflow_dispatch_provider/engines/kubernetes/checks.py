# SPDX-License-Identifier: Apache-2.0
"""Checks of a Kubernetes backend's options that need no answer of the API server."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from airflow.utils import yaml
from kubernetes.client import V1DeleteOptions, models

from airflow_dispatch_provider.engines.certificates import wrong_authority
from airflow_dispatch_provider.engines.kubernetes.cluster import SECTION, Cluster
from airflow_dispatch_provider.engines.kubernetes.pod_template import TemplateError, Templates
from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.settings.file import read_file

BASE = "base"
"""The container of a worker pod that runs the task."""

NAMESPACES = "multi_namespace_mode_namespace_list"

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""A name that Kubernetes accepts for a namespace (RFC 1123)."""

_POLICIES = ("Background", "Foreground", "Orphan")
"""How Kubernetes deletes what depends on a pod."""

_REQUEST_ARGUMENTS = ("_request_timeout",)
"""Of ``kube_client_request_args``, what the executor uses."""


def kubernetes_problems(conf: Any, cluster: Cluster) -> list[Problem]:
    """
    :param conf: the executor's own configuration
    """
    return [
        *cluster.problems(),
        *_certificate_problems(conf),
        *_namespace_problems(conf),
        *_delete_problems(conf),
        *_request_problems(conf),
        *_template_problems(conf),
    ]


def kubernetes_doubts(conf: Any) -> Iterator[Problem]:
    """
    :param conf: one without problems
    """
    yield from Cluster(conf).doubts()
    yield from _image_problems(conf)
    yield from _field_problems(_get(conf, "pod_template_file"))
    if _get(conf, NAMESPACES) and not conf.getboolean(SECTION, "multi_namespace_mode"):
        remedy = "Set multi_namespace_mode to True, or leave the list out."
        yield _problem(NAMESPACES, "is not used without multi_namespace_mode.", remedy)
    for key in conf.getjson(SECTION, "kube_client_request_args", fallback={}) or {}:
        if key not in _REQUEST_ARGUMENTS:
            remedy = 'Leave it out; only "_request_timeout" is used.'
            yield _problem("kube_client_request_args", f"has {key!r}, which is not used.", remedy)


def _problem(option: str, found: str, remedy: str) -> Problem:
    return Problem(f"[{SECTION}] {option}", found, remedy)


def _get(conf: Any, option: str) -> str:
    return str(conf.get(SECTION, option, fallback="") or "")


def _certificate_problems(conf: Any) -> Iterator[Problem]:
    path = _get(conf, "ssl_ca_cert")
    if path and (wrong := wrong_authority(path)):
        yield _problem("ssl_ca_cert", *wrong)


def _namespace_problems(conf: Any) -> Iterator[Problem]:
    names = {"namespace": [_get(conf, "namespace")], NAMESPACES: _get(conf, NAMESPACES).split(",")}
    for option, given in names.items():
        wrong = [name for name in given if name and not _LABEL.fullmatch(name)]
        if wrong or (len(given) > 1 and "" in given):
            remedy = "Use small letters, digits and -, at most 63, e.g. team-a."
            yield _problem(option, f"names {(wrong or [''])[0]!r}, which can be no namespace.", remedy)


def _delete_problems(conf: Any) -> Iterator[Problem]:
    known = set(V1DeleteOptions.attribute_map)
    camel = {json: name for name, json in V1DeleteOptions.attribute_map.items()}
    given = conf.getjson(SECTION, "delete_option_kwargs", fallback={}) or {}
    for key in given:
        if key not in known:
            meant = camel.get(key) or next(iter(get_close_matches(key, known, n=1)), "grace_period_seconds")
            found = f"has {key!r}, which V1DeleteOptions does not."
            yield _problem("delete_option_kwargs", found, f'Did you mean "{meant}"?')
    period, policy = given.get("grace_period_seconds"), given.get("propagation_policy")
    if period is not None and (type(period) is not int or period < 0):
        found = "has a grace_period_seconds that is not a whole number from 0 on."
        yield _problem("delete_option_kwargs", found, "Give a whole number of seconds, e.g. 30.")
    if policy is not None and policy not in _POLICIES:
        found = "has a propagation_policy that does not exist."
        yield _problem("delete_option_kwargs", found, f"Use one of these: {', '.join(_POLICIES)}.")


def _request_problems(conf: Any) -> Iterator[Problem]:
    given = conf.getjson(SECTION, "kube_client_request_args", fallback={}) or {}
    timeout = given.get("_request_timeout", 1)
    numbers = timeout if isinstance(timeout, list) and len(timeout) == 2 else [timeout]
    if timeout is not None and not all(map(_is_time, numbers)):
        remedy = 'Give seconds, e.g. {"_request_timeout": 30}.'
        yield _problem("kube_client_request_args", "has a _request_timeout that is no time.", remedy)


def _is_time(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def _template_problems(conf: Any) -> Iterator[Problem]:
    path = _get(conf, "pod_template_file")
    if path and (wrong := _wrong_template(path)):
        yield _problem("pod_template_file", *wrong)


def _wrong_template(path: str) -> tuple[str, str] | None:
    """The mistake in the file, and a remedy."""
    try:
        pod = Templates().get(path).pod
    except TemplateError as error:
        return f"{error}.", error.remedy
    if pod.kind not in (None, "Pod"):
        return f"names a file with the kind {pod.kind!r}.", "Give the path of a YAML file with kind: Pod."
    names = [container.name for container in (pod.spec.containers if pod.spec else None) or ()]
    if BASE not in names:
        for key, close in _misspelt(yaml.safe_load(read_file(path).text), "V1Pod"):
            return _no_key(key, close)
        return f"has no container {BASE!r}.", f"Call the container of the task {BASE}."
    return None


def _field_problems(path: str) -> Iterator[Problem]:
    """Keys that the client leaves out without a word. Only those that look misspelt: newer clusters know more."""
    if not path:
        return
    misspelt = [*_misspelt(yaml.safe_load(read_file(path).text), "V1Pod")]
    for key, close in misspelt:
        yield _problem("pod_template_file", *_no_key(key, close))
    policy = Templates().get(path).pod.spec.restart_policy
    if not misspelt and policy in (None, "Always"):
        found = (
            "has the restartPolicy Always."
            if policy
            else "has no restartPolicy, and Kubernetes takes Always."
        )
        remedy = "Set it in the spec, e.g. restartPolicy: Never"
        yield _problem("pod_template_file", found, f"{remedy}.")


def _no_key(key: str, close: str) -> tuple[str, str]:
    return f"has {key!r}, which is no key of a pod there.", f'Did you mean "{close}"?'


def _misspelt(value: Any, kind: str) -> Iterator[tuple[str, str]]:
    """
    Keys that the client does not know, each with the one it is close to.

    :param kind: the client's type, e.g. ``V1Pod`` or ``list[V1Container]``
    """
    model = getattr(models, kind, None)
    if kind.startswith("list[") and isinstance(value, list):
        for each in value:
            yield from _misspelt(each, kind.removeprefix("list[").removesuffix("]"))
    elif model is not None and isinstance(value, dict):
        fields = {key: model.openapi_types[name] for name, key in model.attribute_map.items()}
        for key in map(str, value):
            if key in fields:
                yield from _misspelt(value[key], fields[key])
            elif close := get_close_matches(_camel(key), fields, n=1, cutoff=0.85):
                yield key, close[0]


def _camel(key: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), key)


def _image_in(path: str) -> str | None:
    containers: Sequence[Any] = Templates().get(path).pod.spec.containers
    return next((each.image for each in containers if each.name == BASE), None)


def _image_problems(conf: Any) -> Iterator[Problem]:
    """A pod without an image is refused, unless its task has a ``pod_override`` with one."""
    path = _get(conf, "pod_template_file")
    if path and _image_in(path):
        return
    options = ("worker_container_repository", "worker_container_tag")
    missing = [option for option in options if not _get(conf, option)]
    if len(missing) == 1:
        (there,) = {*options} - {*missing}
        yield _problem(there, f"is set without {missing[0]}, so that neither is used.", f"Set {missing[0]}.")
    elif missing:
        found = (
            f"has no image for the container {BASE!r}."
            if path
            else "is missing, and so is an image for the pods."
        )
        remedy = (
            "Name a pod template with an image, or set worker_container_repository and worker_container_tag."
        )
        yield _problem("pod_template_file", found, remedy)
