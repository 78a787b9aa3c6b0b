# SPDX-License-Identifier: Apache-2.0
"""Pod template files, each parsed once and read again when it changes."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.utils import yaml
from kubernetes.client import models

from airflow_dispatch_provider.engines.kubernetes.models import Model, copy_model
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.settings.file import UnreadableError, read_file, stamp_of

MAX_TEMPLATES = 256
"""Templates that are kept parsed. Each task may name one of its own."""


class TemplateError(DispatchError):
    """A template cannot be used; what is wrong with it, as the end of a sentence. Quotes none of its values."""

    remedy = "Give the path of a YAML file with a pod."


class MisshapenError(TemplateError):
    """A value is of another kind than Kubernetes has there."""

    remedy = "Correct it there: the client would make another value of it without a word."


class Template:
    """One version of a template file, the same object as long as the file stays the same."""

    def __init__(self, path: str, version: Hashable, pod: Model) -> None:
        self.path = path
        self.version = version
        self.pod = pod


class Templates:
    """The templates that are in use, each in its present version."""

    def __init__(self) -> None:
        self._known: dict[str, Template] = {}
        self._none = Template("(none)", None, PodGenerator.deserialize_model_dict({}))

    def get(self, path: Any) -> Template:
        """
        The template in that file; an empty pod for an empty path, with which Airflow works as well.

        :raises TemplateError: when the file is missing, cannot be read or is no pod
        """
        if not path:
            return self._none
        if not isinstance(path, (str, os.PathLike)):
            raise TemplateError(f"is a {type(path).__name__}, and not a path")
        name = os.fspath(path)
        version = stamp_of(name)
        known = self._known.get(name)
        if known is None or known.version != version:
            self._forget(name)
            known = self._known[name] = Template(name, version, _read(name))
        return known

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        if len(self._known) >= MAX_TEMPLATES:
            del self._known[next(iter(self._known))]


def _read(name: str) -> Model:
    try:
        fields = yaml.safe_load(read_file(name).text)
        if not isinstance(fields, dict):
            raise TemplateError(f"is not valid ({name}): a pod is a mapping, and not {type(fields).__name__}")
        for place, wrong in misshapen(fields, "V1Pod"):
            raise MisshapenError(f"is not valid ({name}): {place} {wrong}")
        return copy_model(PodGenerator.deserialize_model_dict(fields))
    except UnreadableError as error:
        raise TemplateError(f"{error}: {name}") from None
    except TemplateError:
        raise
    except Exception as error:
        raise TemplateError(f"is not valid ({name}): {_place(error)}") from None


def misshapen(value: Any, kind: str, place: str = "") -> Iterator[tuple[str, str]]:
    """The places of values that the client would turn into others, and what is wrong with each. It takes any text for
    true, a text for the list of its characters, and for an object what has none of its keys.

    :param kind: the client's type, e.g. ``V1Pod``, ``list[V1Container]`` or ``dict(str, str)``
    """
    model, (of_list, of_dict) = getattr(models, kind, None), (_LIST.fullmatch(kind), _DICT.fullmatch(kind))
    wanted = list if of_list else dict if of_dict or model else {"bool": bool}.get(kind)
    if value is None:
        return
    if (wanted and not isinstance(value, wanted)) or (kind == "str" and isinstance(value, list | dict)):
        yield place or "the pod", f"is {_kind_of(value)}, and not {_WORDS[wanted or str]}"
    elif of_list:
        for index, each in enumerate(value):
            yield from misshapen(each, of_list[1], f"{place}[{index}]")
    elif of_dict:
        for key, each in value.items():
            yield from misshapen(each, of_dict[1], f"{place}.{key}")
    elif model:
        for name, key in model.attribute_map.items():
            inner = f"{place}.{key}" if place else key
            yield from misshapen(value.get(key), model.openapi_types[name], inner)


def _kind_of(value: Any) -> str:
    return next((words for kind, words in _WORDS.items() if isinstance(value, kind)), "a number")


_LIST = re.compile(r"list\[(.+)\]")
_DICT = re.compile(r"dict[(\[]str, (.+)[)\]]")
_WORDS: Mapping[type, str] = {bool: "true or false", dict: "an object", list: "a list", str: "text"}


def _place(error: Exception) -> str:
    """The line or the field that is wrong: the errors of YAML and of the client quote the values, too."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"no YAML, see line {mark.line + 1}"
    field = re.match(r"Invalid value for `(\w+)`", str(error))
    return f"its field {field[1]} cannot be as it is" if field else f"no pod ({type(error).__name__})"
