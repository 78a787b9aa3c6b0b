# SPDX-License-Identifier: Apache-2.0
"""The options that are set in an airflow.cfg of any version, and in the environment. Needs no Airflow: what a file of
Airflow 2 says must not be mixed with the defaults of the Airflow that is installed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from configparser import (
    ConfigParser,
    DuplicateOptionError,
    DuplicateSectionError,
    Error,
    InterpolationError,
    ParsingError,
    RawConfigParser,
)
from dataclasses import dataclass, field
from string import Template

from airflow_dispatch_provider.exceptions import MigrationError

Key = tuple[str, str]
"""Section and option, in lower case."""

_VARIABLE = re.compile(r"AIRFLOW__(?P<section>[^a-z]+?)__(?P<option>[^a-z]+)")
"""Airflow asks for capitals alone."""


@dataclass(frozen=True)
class Option:
    """One option as it is set."""

    section: str
    name: str
    value: str = field(repr=False)
    """May be a secret."""

    variable: str | None = None
    """The environment variable that it comes from; None: from the file."""

    @property
    def key(self) -> Key:
        return self.section, self.name

    @property
    def label(self) -> str:
        """How people call it. Never the value."""
        return self.variable or f"[{self.section}] {self.name}"


Options = Mapping[Key, Option]


def is_true(value: str) -> bool:
    """As Airflow reads it."""
    return value.strip().lower() in ("true", "t", "1", "yes", "y", "on")


def today(option: Option) -> Key:
    """The option's name since Airflow 2.5, without what says where its value comes from."""
    section = "kubernetes_executor" if option.section == "kubernetes" else option.section
    return section, re.sub("_(cmd|secret)$", "", option.name)


def read_ini(text: str, name: str) -> dict[Key, Option]:
    """The options of an airflow.cfg; raises MigrationError where it is none.

    :param name: how the file is called in messages
    """
    values, names = ConfigParser(), RawConfigParser(default_section="")
    try:
        values.read_string(text)
        names.read_string(text)
    except Error as error:
        raise MigrationError(f"{name} is no airflow.cfg: {_mistake(error)}") from None
    return {
        (section, option): Option(section, option, _interpolated(values, section, option))
        for section in names.sections()
        if section == section.lower()  # Airflow asks for no other
        for option in names.options(section)
    }


def _interpolated(parser: ConfigParser, section: str, option: str) -> str:
    """With the options that ``%(name)s`` names; as it stands where that is not possible."""
    try:
        return parser.get(section, option)
    except InterpolationError:
        return parser.get(section, option, raw=True).replace("%%", "%")


def _mistake(error: Error) -> str:
    if isinstance(error, DuplicateSectionError):
        return f"it has the section [{error.section}] twice (line {error.lineno}). Merge the two."
    if isinstance(error, DuplicateOptionError):
        spot = f"[{error.section}] {error.option}"
        return f"it has the option {spot} twice (line {error.lineno}). Remove one of the two."
    line = getattr(error, "lineno", None)
    if isinstance(error, ParsingError) and getattr(error, "errors", None):
        line = error.errors[0][0]
    spot = f"line {line} is" if line else "there is something that is"
    return (
        f"{spot} neither a [section] nor an 'option = value' in one. Give the path of an airflow.cfg, or correct"
        " the line."
    )


def from_environment(environ: Mapping[str, str]) -> dict[Key, Option]:
    """The options set by ``AIRFLOW__SECTION__OPTION``; a team's own (three underscores) are left out."""
    found: dict[Key, Option] = {}
    for variable, value in environ.items():
        parts = _VARIABLE.fullmatch(variable)
        if parts is not None and "___" not in variable:
            section, name = parts["section"].lower(), parts["option"].lower()
            found[section, name] = Option(section, name, value, variable)
    return found


def expand(value: str, environ: Mapping[str, str]) -> str:
    """With ``$NAME`` and ``${NAME}`` replaced, as Airflow does it when it reads an option."""
    return Template(value).safe_substitute(environ)
