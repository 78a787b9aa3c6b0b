# SPDX-License-Identifier: Apache-2.0
"""The environment variables that override options of backends, read back: whose option is which. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from airflow_dispatch_provider.bridge.backend_conf import (
    FORMS,
    PREFIX,
    environment_variable,
    plain_name,
)
from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.settings.given import misnamed
from airflow_dispatch_provider.settings.parse import in_variable


@dataclass(frozen=True)
class Variable:
    """The meaning of a variable's name."""

    name: str
    backend: str
    section: str
    option: str
    """Without ``_cmd`` or ``_secret``; in lower case, like the section."""


def read_variables(
    environ: Iterable[str], backends: Collection[str], options: Mapping[str, Collection[str]]
) -> tuple[list[Variable], list[Problem]]:
    """
    :param environ: names of all variables
    :param options: by section; what is there under no such name is guessed by its underscores
    """
    variables: list[Variable] = []
    problems: list[Problem] = []
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or misnamed(name):  # whoever reads [dispatch] has told of that
            continue
        found = _readings(name.upper(), backends, options)
        if name != name.upper():
            remedy = f'Call it "{name.upper()}".'
            problems.append(Problem(name, "is not read: not all of its letters are capitals.", remedy))
        elif not found:
            problems.append(_nobodys(name, backends, options))
        elif len(found) > 1:
            words = " or ".join(f"[{each.section}] {each.option} of {each.backend!r}" for each in found)
            problems.append(Problem(name, f"can mean {words}.", "Give one of the backends another name."))
        elif not found[0].option and found[0].section not in options:
            problems.append(_incomplete(found[0], options))
        else:
            variables += found
    return variables, problems


def _readings(name: str, backends: Iterable[str], options: Mapping[str, Collection[str]]) -> list[Variable]:
    """All that name known options; where none does, one guess. Nothing where no backend is called so."""
    starts = {backend: f"{PREFIX}{in_variable(backend)}__" for backend in backends}
    rests = {backend: name[len(start) :] for backend, start in starts.items() if name.startswith(start)}
    exact = [each for backend, rest in rests.items() for each in _known(name, backend, rest, options)]
    if exact or not rests:
        return exact
    backend = min(rests, key=lambda each: len(rests[each]))
    section, _, option = rests[backend].lower().partition("__")
    known = next((each for each in options if in_variable(each).lower() == section), section)
    return [Variable(name, backend, known, plain_name(option))]


def _known(name: str, backend: str, rest: str, options: Mapping[str, Collection[str]]) -> Iterator[Variable]:
    for section, names in options.items():
        start = f"{in_variable(section)}__"
        if rest.startswith(start):
            written = rest[len(start) :].lower()
            spelt = {in_variable(option).lower(): option for option in names}
            # Some options, such as ``jwt_secret``, end themselves like those that name a secret.
            option = spelt.get(written) or spelt.get(plain_name(written))
            if option is not None:
                yield Variable(name, backend, section, option)


def _incomplete(variable: Variable, options: Mapping[str, Collection[str]]) -> Problem:
    """A variable in which nothing stands between the backend and the option, or an underscore too few."""
    start = f"{PREFIX}{in_variable(variable.backend)}__"
    meant = _completed(variable.section, options)
    remedy = (
        f'Did you mean "{start}{meant}"?' if meant else f"Use three parts, e.g. {start}CELERY__BROKER_URL."
    )
    return Problem(variable.name, "does not name a backend, a section and an option.", remedy)


def _completed(words: str, options: Mapping[str, Collection[str]]) -> str | None:
    """``SECTION__OPTION`` for what has an underscore too few between the two, or no section."""
    written = in_variable(words).replace("__", "_")
    known = [
        (in_variable(section), in_variable(option + form))
        for section, names in options.items()
        for option in names
        for form in FORMS
    ]
    whole = (f"{section}__{option}" for section, option in known if f"{section}_{option}" == written)
    alone = (f"{section}__{option}" for section, option in known if option == written)
    return next(whole, None) or next(alone, None)


def unread_variables(
    environ: Iterable[str], backends: Collection[str], options: Mapping[str, Collection[str]]
) -> Iterator[Problem]:
    """Names of a backend, a section and an option that begin otherwise than with ``AIRFLOW_DISPATCH__``. What
    Kubernetes sets for a service named airflow-dispatch begins with no backend's name and two underscores."""
    starts = {
        f"{start}{in_variable(backend)}__": backend
        for backend in backends
        for start in (PREFIX.removesuffix("_"), "AIRFLOW__", "AIRFLOW_DISPATCHER__", "AIRFLOW__DISPATCHER__")
    }
    for name in sorted(environ):
        start = next((each for each in starts if name.startswith(each)), None)
        if start is None:
            continue
        rest = name[len(start) :]
        if start.startswith(PREFIX.removesuffix("_")) or any(_known(name, starts[start], rest, options)):
            meant = f"{PREFIX}{in_variable(starts[start])}__{rest}"
            yield Problem(name, f"is not read: it does not begin with {PREFIX}.", f'Call it "{meant}".')


def _nobodys(name: str, backends: Collection[str], options: Mapping[str, Collection[str]]) -> Problem:
    """A variable that begins with no backend's name."""
    backend, _, rest = name[len(PREFIX) :].partition("__")
    known = {in_variable(each): each for each in backends}
    close = get_close_matches(backend, known, n=1)
    if not rest:
        example = environment_variable(next(iter(backends), "a"), "celery", "broker_url")
        return Problem(name, "names no backend, section and option.", f"Use three parts, e.g. {example}.")
    # The section's name may stand where that of the backend belongs.
    short = None if "__" in rest else _completed(f"{backend}_{rest}", options) or _completed(rest, options)
    if close or short:
        meant = f"{PREFIX}{close[0] if close else min(known)}__{short or rest}"
        return Problem(name, "begins with no backend's name.", f'Did you mean "{meant}"?')
    starts = ", ".join(f"{PREFIX}{each}__" for each in sorted(known))
    return Problem(name, "begins with no backend's name.", f"Remove it, or begin it with {starts}.")
