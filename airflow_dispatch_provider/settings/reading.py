# SPDX-License-Identifier: Apache-2.0
"""From the text of an option or a file to plain data; what cannot be read becomes a problem, never an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import yaml

from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.settings.file import MAX_BYTES
from airflow_dispatch_provider.settings.problems import show

Report = Callable[[Problem], None]

MAX_VALUES = 30_000
"""About 4,000 routes: what can be read and checked within a second."""

_MAX_DEPTH = 40
"""Far deeper than any right file, and far less than the stack bears."""

_TOO_DEEP = "is nested too deeply."
_TOO_MANY = f"has more than {MAX_VALUES} values."
_WRITE_OUT = "Write out what the routes and backends need, and no more."


def read_json(text: str, place: str, remedy: str, report: Report) -> Any:
    """The value, or None after a problem was reported.

    :param remedy: what to write there
    """
    if len(text) > MAX_BYTES:
        report(Problem(place, f"is longer than {MAX_BYTES} bytes.", _WRITE_OUT))
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        if sum(1 for _ in islice(_values(value), MAX_VALUES + 1)) <= MAX_VALUES:
            return value
        report(Problem(place, _TOO_MANY, _WRITE_OUT))
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
        if trouble := _too_much(text):
            report(Problem(place, trouble, _WRITE_OUT))
            return None
        return yaml.load(text, _Loader)  # a SafeLoader
    except _Duplicate as error:
        report(Problem(place, str(error), "Remove one of the two."))
    except _Misread as error:
        report(Problem(place, error.found, error.remedy))
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # that of libyaml, as PyYAML 6.0.4 brings it
            report(Problem(place, _TOO_DEEP, _WRITE_OUT))
        else:
            report(Problem(place, f"is not YAML: {_yaml_mistake(error)}.", "Correct it there."))
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        # All that PyYAML's constructors raise: !!bool x is a KeyError, !!timestamp x an AttributeError.
        found = "is not YAML that can be read: an impossible date, too long a number, or too many brackets."
        report(Problem(place, found, "Put text in quotes."))
    return None


def _too_much(text: str) -> str | None:
    """Why the text must not be loaded: what its aliases (``*name``) repeat would take minutes and gigabytes to go
    through, or its depth the stack. Told from the events, before anything is built."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(str(event.anchor), 0)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_.append((event.anchor, total))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, before = open_.pop()
            total += 1
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
        if len(open_) > _MAX_DEPTH:
            return _TOO_DEEP
        if total > MAX_VALUES:
            return f"{_TOO_MANY[:-1]}, those counted that its aliases (*name) repeat."
    return None


def _values(value: Any) -> Iterator[Any]:
    """Keys, texts, numbers, and what has them."""
    rest = [value]
    while rest:
        yield (each := rest.pop())
        if isinstance(each, dict):
            rest += (*each, *each.values())
        elif isinstance(each, list):
            rest += each


def _yaml_mistake(error: yaml.YAMLError) -> str:
    """The mistake and its place. Words out of the file are left out: they may be part of a password."""
    mark = getattr(error, "problem_mark", None)
    spot = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    return re.sub(r"""'(?!<| or )[^']{3,}'|"[^"]{3,}\"""", "...", str(what)).removeprefix("but ") + spot


class _Duplicate(Exception):
    """A key that stands twice in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _Duplicate(f"has the key {show(key)} twice in one object.")
        result[key] = value
    return result


class _Misread(Exception):
    """A scalar that YAML takes for something else than it looks like."""

    def __init__(self, found: str, remedy: str, node: yaml.Node) -> None:
        self.found, self.remedy = found.format(f"line {node.start_mark.line + 1}"), remedy


_TEXT = ("str", "merge")
_TYPES = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}
_DECIMAL = "Write it with decimal digits alone and no 0 before them, or put it in quotes."
_OCTAL = re.compile(r"[-+]?0_*[0-7][0-7_]*")


def _merged(value: yaml.Node) -> list[yaml.MappingNode]:
    """The mappings that ``<<`` names, the one that counts most first."""
    nodes: list[Any] = value.value if isinstance(value, yaml.SequenceNode) else [value]
    for node in nodes:
        if not isinstance(node, yaml.MappingNode):
            expected = "expected a mapping, or a list of mappings, after <<"
            raise yaml.constructor.ConstructorError(None, None, expected, node.start_mark)
    return nodes


def _name(key: yaml.Node) -> Any:
    return key.value if isinstance(key, yaml.ScalarNode) else id(key)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader that refuses a key that stands twice or is no text, and numbers that are not what they look like; the
    one of libyaml, where PyYAML has it: the file is read on the scheduler's thread."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (kind := key.tag.rpartition(":")[2]) not in _TEXT:
                    found = f"has the key {show(key.value)} at {{}}, which YAML takes for {_TYPES.get(kind, kind)}."
                    raise _Misread(found, "Put it in quotes.", key)
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise _Duplicate(f"has the key {show(key.value)} twice in one object, at line {line}.")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace ``<<`` by what it merges: a mapping's own keys count first, then the first mapping that has the key.
        PyYAML 6.0.4 lets the last one count, and those that were merged before any own one."""
        own = [(key, value) for key, value in node.value if not key.tag.endswith(":merge")]
        merged: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            for each in _merged(value) if key.tag.endswith(":merge") else ():
                self.flatten_mapping(each)
                for pair in each.value:
                    merged.setdefault(_name(pair[0]), pair)
        mine = {_name(key) for key, _ in own}
        node.value = [*(pair for name, pair in merged.items() if name not in mine), *own]

    def construct_scalar(self, node: yaml.Node) -> Any:
        if node.tag.endswith((":int", ":float")) and ":" in node.value:
            raise _Misread("has a number with colons at {}: YAML takes 1:30 for 90.", _DECIMAL, node)
        if node.tag.endswith(":int") and _OCTAL.fullmatch(node.value):
            raise _Misread("has a number that begins with 0 at {}: YAML takes 010 for 8.", _DECIMAL, node)
        return super().construct_scalar(node)
