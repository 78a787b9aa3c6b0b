# SPDX-License-Identifier: Apache-2.0
"""``[dispatch]`` as Airflow's configuration has it: read once, while the file that it may name is read again."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from configparser import InterpolationError
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_dispatch_provider.exceptions import DispatchError, Problem
from airflow_dispatch_provider.settings.model import EngineOptions, Limits
from airflow_dispatch_provider.settings.options import OPTIONS, SECTION
from airflow_dispatch_provider.settings.parse import ROUTING_KEYS
from airflow_dispatch_provider.settings.presets import DEFAULT_KUBERNETES_QUEUE, Hybrid, preset
from airflow_dispatch_provider.settings.problems import closest, remedy_for, show, suggest
from airflow_dispatch_provider.settings.reading import read_json

OTHER_OPTIONS = (*Limits.__dataclass_fields__, *EngineOptions.__dataclass_fields__)
"""The options besides ``backends``, ``routes``, ``default`` and ``config_file``."""

_VARIABLE = f"AIRFLOW__{SECTION.upper()}__"

_NUMBERS: Mapping[str, Callable[[str], int | float]] = {"integer": int, "float": float}


class ConfReader(Protocol):
    """The part of Airflow's configuration that is used, global or of a team (``ExecutorConf``)."""

    def get(self, section: str, key: str, *, fallback: Any = ...) -> Any: ...


@dataclass
class Given:
    """The options as plain data."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    """A key that is not set is not there."""

    config_file: str | None = None
    chosen: bool = False
    """``config_file`` is another one than ``[dispatch]`` says."""

    problems: list[Problem] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    """Options that are set but could not be read: reported already, so not to be called missing."""

    preset: Mapping[str, Any] | None = None
    """Settings that a ready-made router brings along."""


class OptionReader:
    """Reads the options of one configuration."""

    def __init__(self, conf: ConfReader) -> None:
        self._conf = conf
        self._given = Given()

    def read(
        self,
        options: Collection[str],
        hybrid: Hybrid | None,
        parallelism: Callable[[], int],
        config_file: str | None = None,
    ) -> Given:
        """
        :param options: names of all options found in ``[dispatch]``, to catch misspelt ones, and of variables that
            are not read
        :param parallelism: tells ``[core] parallelism``; called where there is a hybrid
        :param config_file: to be used instead of the configured one, and of ``backends``, ``routes`` and ``default``
        """
        given = self._given = Given(config_file=config_file, chosen=config_file is not None)
        variables = [option for option in options if option.upper().startswith("AIRFLOW_")]
        unknown = [*_unknown_options({*options} - {*variables})]
        given.problems += [*unknown, *map(_not_read, variables)]
        given.unreadable.update(option for variable in variables for option in _set_by(variable))
        given.unreadable.update(option for each in {*options} - {*variables} for option in _misspelt(each))
        if hybrid is not None:
            queue = self._get("kubernetes_queue", hybrid.section, DEFAULT_KUBERNETES_QUEUE)
            given.preset = preset(hybrid, queue or "", parallelism())
        if config_file is None:
            given.config_file = self._get("config_file")
            if given.config_file:
                self._refuse_both()
            else:
                self._read_routing()
        self._read_others()
        return given

    def _get(self, option: str, section: str = SECTION, fallback: str | None = None) -> str | None:
        """The text of an option; None where it is not set or empty, or after a problem was reported."""
        try:
            value = self._conf.get(section, option, fallback=fallback)
        except Exception as error:  # whatever a command, a secrets backend or an interpolation may raise
            told = isinstance(error, DispatchError)
            found = f"cannot be read. {error}" if told else f"cannot be read ({type(error).__name__})."
            remedy = f"See whether 'airflow config get-value {section} {option}' works."
            if isinstance(error, InterpolationError):
                remedy = "In airflow.cfg, write %% for every %."
            self._report(option, found, remedy, section)
            return None
        return None if value is None else str(value).strip() or None

    def _remedy(self, option: str) -> str:
        given, ready_made = self._given.values.get("backends"), (self._given.preset or {}).get("backends", {})
        return remedy_for(option, [*(given if isinstance(given, dict) else {}), *ready_made])

    def _report(self, option: str, found: str, remedy: str, section: str = SECTION) -> None:
        self._given.problems.append(Problem(f"[{section}] {option}", found, remedy))
        self._given.unreadable.add(option)

    def _refuse_both(self) -> None:
        set_ = [key for key in ROUTING_KEYS if self._get(key) not in (None, OPTIONS[key]["default"])]
        if set_:
            rule = "Either config_file or these options can be used, not both: remove one or the others."
            self._report(
                "config_file", f"is set, and so {'is' if len(set_) == 1 else 'are'} {', '.join(set_)}.", rule
            )

    def _read_routing(self) -> None:
        for option in ROUTING_KEYS:
            text = self._get(option)
            if text is None:
                continue
            problems: list[Problem] = []
            bare = option == "default" and not text.startswith(("{", "[", '"'))
            place = f"[{SECTION}] {option}"
            value = text if bare else read_json(text, place, self._remedy(option), problems.append)
            if problems:
                self._given.problems += problems
                self._given.unreadable.add(option)
            else:
                self._given.values[option] = value

    def _read_others(self) -> None:
        for option in OTHER_OPTIONS:
            text = self._get(option)
            if text is None:
                continue
            try:
                self._given.values[option] = _NUMBERS.get(OPTIONS[option]["type"], str)(text)
            except ValueError:
                remedy = "Give a comment a line of its own." if "#" in text else self._remedy(option)
                self._report(option, f"found {show(text)}.", remedy)


def misnamed(variable: str) -> str | None:
    """The variable of an option of ``[dispatch]`` that is made of the same words, with other underscores; None: there
    is none, or it is that one itself."""
    words = _words(variable).replace("DISPATCHER", "DISPATCH")
    meant = next((each for each in _VARIABLES if _words(each) == words), None)
    return None if meant == variable else meant


def _words(variable: str) -> str:
    return re.sub("_+", "_", variable.upper())


_KNOWN = [
    option + form
    for option in OPTIONS
    for form in (("", "_cmd", "_secret") if OPTIONS[option].get("sensitive") else ("",))
]
"""Airflow takes commands and secrets for sensitive options only."""

_VARIABLES = [f"{_VARIABLE}{option}".upper() for option in _KNOWN]


def _not_read(variable: str) -> Problem:
    meant = misnamed(variable) or variable.upper()
    why = (
        "not all of its letters are capitals"
        if meant == variable.upper()
        else "no option is set by this name"
    )
    return Problem(variable, f"is not read: {why}.", f'Call it "{meant}".')


def _set_by(variable: str) -> Collection[str]:
    """Options that are not missing, because somebody meant to set them by that variable."""
    option = (misnamed(variable) or variable.upper()).removeprefix(_VARIABLE).lower()
    return ROUTING_KEYS if option == "config_file" else (re.sub("_(cmd|secret)$", "", option),)


def _misspelt(option: str) -> Collection[str]:
    """Options that are not missing, because somebody has written another name for one."""
    close = None if option.lower() in _KNOWN else closest(option.lower(), list(OPTIONS))
    return ROUTING_KEYS if close == "config_file" else (close,) if close else ()


def _unknown_options(given: Collection[str]) -> Iterator[Problem]:
    """Options of ``[dispatch]`` that do not exist."""
    for option in sorted(given):
        if option.count("__") == 2:
            meant = f"AIRFLOW_{SECTION}__{option}".upper()
            found = "sets no option of a backend under this name."
            yield Problem(f"{_VARIABLE}{option.upper()}", found, f'Call it "{meant}".')
        elif option.lower() not in _KNOWN:
            yield Problem(f"[{SECTION}] {option}", "is not a known option.", suggest(option, list(OPTIONS)))
