# SPDX-License-Identifier: Apache-2.0
"""Options of backends, by whatever source: names that exist and are read, values that can be read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from math import inf
from typing import Any

from airflow_dispatch_provider.bridge.backend_conf import (
    FORMS,
    BackendConf,
    EmptyValue,
    NotGiven,
    environment_variable,
    plain_name,
    read_as,
    several_teams,
)
from airflow_dispatch_provider.bridge.options.described import Described, describe_options
from airflow_dispatch_provider.bridge.options.names import Finding, Given, check_name
from airflow_dispatch_provider.bridge.options.reads import ENGINES, Engine, engine_of
from airflow_dispatch_provider.bridge.options.variables import Variable, read_variables, unread_variables
from airflow_dispatch_provider.dispatch.backend import import_executor_class
from airflow_dispatch_provider.exceptions import BackendUnavailable, Problem
from airflow_dispatch_provider.settings.model import BackendSettings, Settings
from airflow_dispatch_provider.settings.problems import path

Address = tuple[str, str]
"""A section and an option, in lower case."""

_WRONG_KIND = {
    "whole": ("is not a whole number.", "Give a whole number, e.g. 16."),
    "positive": ("is not a whole number of 1 or more.", "Give a whole number of 1 or more, e.g. 16."),
    "count": ("is not a whole number of 0 or more.", "Give a whole number of 0 or more, e.g. 2."),
    "number": ("is not a number.", "Give a number, e.g. 1.5."),
    "seconds": ("is not a number of 0 or more.", "Give seconds, e.g. 1.5."),
    "filled": ("is empty.", "Give a URL, e.g. redis://broker:6379/0."),
    "flag": ("is neither true nor false.", "Give True or False, e.g. True."),
    "template": ("is neither fork nor exec.", "Give fork or exec, e.g. fork."),
    "object": ("is not a JSON object.", "Give a JSON object as text, e.g. {}."),
}


class OptionCheck:
    """All options that were set for the backends of one router."""

    def __init__(self, settings: Settings, place: str) -> None:
        """
        :param place: where ``backends`` stands: ``[dispatch] `` or the name of the file
        """
        self._described = describe_options()
        self._settings = settings
        self._engines = {name: _engine(backend) for name, backend in settings.backends.items()}
        self._names = names = _all_names(self._described)
        variables, self._nobodys = read_variables(os.environ, settings.backends, names)
        self._given: dict[str, dict[Address, Given]] = defaultdict(dict)
        for name, backend in settings.backends.items():
            self._given[name].update(_in_config(name, backend, place, names))
        for variable in variables:
            self._given[variable.backend][variable.section, variable.option] = _in_environment(variable)

    def mistakes(self) -> Iterator[Problem]:
        """Names that no backend, no section or no option has. Whoever wrote them meant another one."""
        # With several teams, a backend of another one may be called so.
        yield from (each for each in self._nobodys if not several_teams())
        found = (finding.problem for _, finding in self._findings() if finding.is_mistake)
        yield from dict.fromkeys(found)

    def backends_with_mistakes(self) -> set[str]:
        """Those with one in the name of an option."""
        return {name for name, finding in self._findings() if finding.is_mistake}

    def doubts(self) -> Iterator[Problem]:
        """Options that are legal, but have no effect."""
        yield from unread_variables(os.environ, self._settings.backends, self._names)
        yield from (finding.problem for _, finding in self._findings() if not finding.is_mistake)

    def _findings(self) -> Iterator[tuple[str, Finding]]:
        for name, backend in self._settings.backends.items():
            engine, executor = self._engines[name], backend.class_path.rpartition(".")[2]
            for given in self._given[name].values():
                finding = check_name(given, engine, executor, self._described)
                if finding is not None:
                    yield name, finding

    def values(self, name: str, conf: BackendConf) -> list[Problem]:
        """Values that its executor could not read, of a backend.

        :param conf: its configuration
        """
        kinds = self._kinds(name)
        return [
            self._value_problem(name, address, *wrong)
            for address, kind in kinds.items()
            if (wrong := _wrong_value(conf, *address, kind))
        ]

    def _value_problem(self, name: str, address: Address, found: str, remedy: str) -> Problem:
        engine = self._engines[name]
        if engine and address in engine.without_effect and address in self._given[name]:
            remedy = engine.without_effect[address][1]
        return Problem(self.place(name, "[{}] {}".format(*address)), found, remedy)

    def _kinds(self, name: str) -> dict[Address, str]:
        engine, described = self._engines[name], self._described.options
        reads = engine.reads.items() if engine else ()
        read: dict[Address, str] = {(s, o): kind for s, options in reads for o, kind in options.items()}
        if engine and engine.is_all:
            return read
        return {**{(s, o): described.get(s, {}).get(o, "text") for s, o in self._given[name]}, **read}

    def place(self, name: str, where: str) -> str:
        """Where an option of a backend was set.

        :param where: ``[section] option``, as executors name it
        """
        section, _, option = where.removeprefix("[").partition("] ")
        given = self._given[name].get((section, option))
        return given.where if given else where


def _engine(backend: BackendSettings) -> Engine | None:
    if backend.class_path in ENGINES:  # known without the libraries that it needs
        return ENGINES[backend.class_path]
    try:
        return engine_of(import_executor_class(backend))
    except BackendUnavailable:
        return None


def _all_names(described: Described) -> dict[str, list[str]]:
    names: dict[str, list[str]] = defaultdict(list)
    # The first to have an option is the one that a variable without a section is taken for.
    for options in (*(engine.reads for engine in ENGINES.values()), described.options):
        for section, known in options.items():
            names[section] += [option for option in known if option not in names[section] and option != "*"]
    return names


def _in_config(
    name: str, backend: BackendSettings, place: str, names: Mapping[str, Collection[str]]
) -> Iterator[tuple[Address, Given]]:
    for section, options in backend.config.items():
        section_where = path(["backends", name, "config", section], place)
        for option in options:
            where = path(["backends", name, "config", section, option], place)
            plain = _plain(option.lower(), names.get(section.lower(), ()))
            spell = _spelling(section.lower(), form=option.lower().removeprefix(plain))
            yield (section.lower(), plain), Given(where, section_where, section.lower(), plain, spell)


def _plain(option: str, known: Collection[str]) -> str:
    """Some options, such as ``jwt_secret``, end themselves like those that name a secret."""
    return option if option in known else plain_name(option)


def _spelling(section: str, form: str) -> Callable[[str, str], str]:
    """Of a name that stands in a section of a ``config``: what of it would have to be changed.

    :param form: its end, where it is that of a command or a secret
    """
    return lambda other, option: option + form if other == section else other


def _in_environment(variable: Variable) -> Given:
    ends = (form.upper() for form in FORMS if form and not variable.option.endswith(form))
    form = next(filter(variable.name.endswith, ends), "")

    def spell(section: str, option: str) -> str:
        return environment_variable(variable.backend, section, option) + form

    return Given(variable.name, variable.name, variable.section, variable.option, spell)


def _wrong_value(conf: Any, section: str, option: str, kind: str) -> tuple[str, str] | None:
    """The mistake and a remedy; None where all is well, or nothing is set."""
    try:
        value = conf.get(section, option, fallback=None)
    except EmptyValue:
        return "is empty: the command or the secret gives no text.", "Correct the command or the secret."
    except NotGiven as error:
        return f"cannot be read. {error}", "Correct the command or the secret that gives it."
    except Exception as error:
        found = f"cannot be read ({type(error).__name__})."
        return found, "Correct the command or the secret that gives it."
    if value is None or _is_of(kind, str(value)):
        return None
    return _WRONG_KIND[kind]


def _is_of(kind: str, text: str) -> bool:
    try:
        return bool(_READERS[kind](text))
    except ValueError:
        return False


def _is_object(text: str) -> bool:
    found = read_as("getjson", text)
    return found is None or isinstance(found, dict)


def _reads(getter: str) -> Any:
    def reads(text: str) -> bool:
        read_as(getter, text)
        return True

    return reads


_READERS: Mapping[str, Any] = {
    "text": lambda text: True,
    "whole": _reads("getint"),
    "positive": lambda text: read_as("getint", text) >= 1,
    "count": lambda text: read_as("getint", text) >= 0,
    "number": _reads("getfloat"),
    "seconds": lambda text: 0 <= read_as("getfloat", text) < inf,
    "filled": str.strip,
    "flag": _reads("getboolean"),
    "object": _is_object,
    "template": lambda text: text.strip() in ("fork", "exec"),
}
