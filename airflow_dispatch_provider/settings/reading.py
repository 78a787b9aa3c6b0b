# SPDX-License-Identifier: Apache-2.0
"""From the text of an option or a file to plain data; what cannot be read becomes a problem, never an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.settings.problems import show

Report = Callable[[Problem], None]


def read_json(text: str, place: str, remedy: str, report: Report) -> Any:
    """The value, or None after a problem was reported.

    :param remedy: what to write there
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _Duplicate as error:
        report(Problem(place, str(error), "Remove one of the two."))
    except json.JSONDecodeError as error:
        spot = f"line {error.lineno}, column {error.colno}"
        report(Problem(place, f"is not JSON: {error.msg} at {spot}.", remedy))
    except (ValueError, RecursionError):
        report(
            Problem(place, "is not JSON that can be read: too long a number, or too many brackets.", remedy)
        )
    return None


def read_yaml(text: str, place: str, report: Report) -> Any:
    """The value, or None after a problem was reported. Knows no tags but those of plain YAML."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except _Duplicate as error:
        report(Problem(place, str(error), "Remove one of the two."))
    except yaml.YAMLError as error:
        report(Problem(place, f"is not YAML: {_yaml_mistake(error)}.", "Correct it there."))
    except (ValueError, RecursionError):
        found = "is not YAML that can be read: an impossible date, too long a number, or too many brackets."
        report(Problem(place, found, "Put text in quotes."))
    return None


def _yaml_mistake(error: yaml.YAMLError) -> str:
    """What is wrong and where. Words out of the file are left out: they may be part of a password."""
    mark = getattr(error, "problem_mark", None)
    spot = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    return re.sub(r"""'(?!<)[^']{3,}'|"[^"]{3,}\"""", "...", str(what)).removeprefix("but ") + spot


class _Duplicate(Exception):
    """A key that stands twice in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _Duplicate(f"has the key {show(key)} twice in one object.")
        result[key] = value
    return result


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice."""

    def compose_mapping_node(self, anchor: dict[Any, Any]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise _Duplicate(f"has the key {show(key.value)} twice in one object, at line {line}.")
                seen.add(key.value)
        return node
