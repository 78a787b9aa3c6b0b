# SPDX-License-Identifier: Apache-2.0
"""The recipes of docs/how-to/helm.md: each YAML block behind a comment ``<!-- values: NAME, ... -->``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .rendered import EXECUTOR

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "helm.md"

_BLOCK = re.compile(
    r"<!-- (values|manifest): ([\w.-]+)((?:, [\w]+: [^,]+?)*) -->\n```yaml\n(.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Recipe:
    """Values for the chart."""

    name: str
    values: dict[str, Any]
    on: str
    """The recipe that it is added to; or empty."""

    since: tuple[int, ...]
    """The first release of the chart that takes it."""

    def __str__(self) -> str:
        return self.name

    @property
    def executor(self) -> str:
        """The class that Airflow loads."""
        (value,) = (each["value"] for each in self.values["env"] if each["name"] == EXECUTOR)
        found: str = value
        return found


def recipes() -> dict[str, Recipe]:
    """All of them, by name."""
    return {name: _recipe(name, options, text) for kind, name, options, text in _blocks() if kind == "values"}


def whole() -> list[Recipe]:
    """Those that choose an executor, and so make a deployment by themselves."""
    return [recipe for recipe in recipes().values() if "executor" in recipe.values]


def manifest(name: str) -> list[dict[str, Any]]:
    """Manifests that the page has the reader apply beside the chart."""
    (text,) = (text for kind, found, _, text in _blocks() if (kind, found) == ("manifest", name))
    return list(yaml.safe_load_all(text))


def _blocks() -> list[tuple[str, str, str, str]]:
    found: list[tuple[str, str, str, str]] = _BLOCK.findall(PAGE.read_text())
    return found


def _recipe(name: str, options: str, text: str) -> Recipe:
    given = dict(option.split(": ") for option in options.split(", ")[1:])
    since = tuple(int(number) for number in given.get("since", "0").split("."))
    return Recipe(name, yaml.safe_load(text), given.get("on", ""), since)
