# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes client's model objects, without what makes them slow: each carries a ``Configuration`` of its
own, and a deep copy of a pod copies dozens of these."""

from __future__ import annotations

import copy
import json
from collections.abc import Hashable
from datetime import date
from functools import cache
from typing import Any

from kubernetes.client import ApiClient, Configuration

Model = Any
"""An instance of one of the classes in ``kubernetes.client.models``."""

_PRIMITIVES = (str, int, float, bool, bytes, date, type(None))

# Most of a pod: looked up by exact type, for speed.
_ATOMS = frozenset({str, int, float, bool, type(None)})


class SharedConfiguration(Configuration):  # type: ignore[misc, unused-ignore]
    """The client's default settings, which all copies of a model have in common."""

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedConfiguration:
        return self


@cache
def _shared() -> SharedConfiguration:
    return SharedConfiguration()


def copy_model(value: Any) -> Any:
    """A deep copy of models, lists and dicts, whose models share one ``Configuration``."""
    if type(value) in _ATOMS or isinstance(value, _PRIMITIVES):
        return value
    if isinstance(value, list):
        return [copy_model(item) for item in value]
    if isinstance(value, dict):
        return {key: copy_model(item) for key, item in value.items()}
    if isinstance(value, Configuration):
        return _shared()
    if not hasattr(value, "openapi_types"):
        return copy.deepcopy(value)
    clone = object.__new__(type(value))
    fields = vars(clone)
    for name, item in vars(value).items():
        fields[name] = item if type(item) in _ATOMS else copy_model(item)
    return clone


def fingerprint(value: Any) -> Hashable:
    """
    Equal for models of equal content, and only for these: lists differ from tuples and models from dicts, since
    Airflow merges them differently.

    :raises TypeError: for content that the client's models do not know
    """
    kind = type(value)
    if isinstance(value, _PRIMITIVES):
        return kind, value
    if isinstance(value, (list, tuple)):
        return kind, tuple(fingerprint(item) for item in value)
    if isinstance(value, dict):
        return kind, tuple((fingerprint(key), fingerprint(item)) for key, item in value.items())
    if not hasattr(value, "openapi_types"):
        raise TypeError(f"{kind.__name__} is no part of a pod")
    return kind, tuple(
        (name, fingerprint(item))
        for name, item in vars(value).items()
        if item is not None and name != "local_vars_configuration"
    )


@cache
def _client() -> Any:
    return ApiClient(configuration=_shared())


def to_json(pod: Model) -> dict[str, Any]:
    """
    The pod as the API server takes it.

    :raises Exception: of whatever type, when something in it cannot be written as JSON
    """
    manifest: dict[str, Any] = _client().sanitize_for_serialization(pod)
    json.dumps(manifest)
    return manifest
