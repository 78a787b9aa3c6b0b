# SPDX-License-Identifier: Apache-2.0
"""Names of sections and options that a user has set for a backend, against those that exist. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from airflow_dispatch_provider.bridge.options.described import Described
from airflow_dispatch_provider.bridge.options.reads import Engine
from airflow_dispatch_provider.exceptions import Problem

ROUTERS_OWN = {
    **{
        ("core", option): "Leave it out; 'slots' is the parallelism of a backend."
        for option in ("executor", "parallelism")
    },
    **{
        ("dispatch", option): "Leave it out; it stands in [dispatch] itself."
        for option in (
            "backends",
            "config_file",
            "default",
            "max_held",
            "retry_max_delay",
            "retry_min_delay",
            "routes",
        )
    },
}
"""Options that are the router's, each with a remedy."""


@dataclass(frozen=True)
class Given:
    """One option that somebody has set for one backend. Names in lower case."""

    where: str
    """The place, as problems tell it."""

    section_where: str
    """The place of its section; the same where both stand in one name."""

    section: str
    option: str
    """Without ``_cmd`` or ``_secret``."""

    spell: Callable[[str, str], str]
    """How a section and an option are written there, for a suggestion."""


@dataclass(frozen=True)
class Finding:
    """A mistake, or a doubt: what is allowed but probably a mistake."""

    problem: Problem
    is_mistake: bool


def check_name(given: Given, engine: Engine | None, executor: str, described: Described) -> Finding | None:
    """The mistake in the name of an option.

    :param engine: None: it is not known what the executor reads, so nothing is a mistake
    :param executor: its name, for messages
    """
    address = given.section, given.option
    if remedy := ROUTERS_OWN.get(address):
        return Finding(Problem(given.where, "is set by the router.", remedy), is_mistake=engine is not None)
    if engine and address in engine.without_effect:
        found, remedy = engine.without_effect[address]
        return _doubt(given, found, remedy)
    if engine and engine.kind(*address):
        return None
    if address in described.moved:
        return _renamed(given, described.moved[address], engine)
    if given.option in described.options.get(given.section, {}):
        return _not_read(given, executor) if engine and engine.is_all else None
    return _unknown(given, engine, executor, described)


def _renamed(given: Given, new: tuple[str, str] | None, engine: Engine | None) -> Finding:
    # An executor of somebody else's may read what Airflow itself no longer does.
    is_mistake = engine is not None and engine.is_all
    if new is None:
        found, remedy = "is an option that Airflow no longer has.", "Leave it out."
        return Finding(Problem(given.where, found, remedy), is_mistake)
    section, option = new
    found = f"is called [{section}] {option} by now."
    if engine is None or engine.kind(section, option):
        remedy, is_mistake = f"Set [{section}] {option} instead.", engine is not None
    else:
        remedy = f"Leave it out, or set {option} in [{section}] of airflow.cfg, for all."
    return Finding(Problem(given.where, found, remedy), is_mistake)


def _not_read(given: Given, executor: str) -> Finding:
    found = f"is not read by the {executor}: it has no effect here."
    return _doubt(given, found, f"Leave it out, or set it in [{given.section}] of airflow.cfg, for all.")


def _unknown(given: Given, engine: Engine | None, executor: str, described: Described) -> Finding | None:
    sections = _known(engine, described)
    options = sections.get(given.section)
    if engine is None or not engine.is_all:
        return _misspelt(given, options or [], engine, executor, described)
    if options is None:
        found = "names a section that does not exist."
        meant = _closest(given.section, [*sections])
        if meant or not (holder := _holder(given.option, sections)):
            # One mistake, however many options stand in it.
            given = replace(given, where=given.section_where)
        else:
            found, meant = "stands in a section that does not exist.", holder
        address = (meant or "", given.option)
    else:
        found = f"is an option that [{given.section}] does not have."
        meant = _closest(given.option, options)
        address = (given.section, meant or "")
    if meant is None:
        of_section = "" if options is None else f" --section {given.section}"
        remedy = f"Leave it out; 'airflow config list --defaults{of_section}' lists what exists."
    else:
        other = replace(given, section=address[0], option=address[1])
        remedy = _suggested(other, meant, check_name(other, engine, executor, described))
    return _mistake(given, found, remedy)


def _misspelt(
    given: Given, options: list[str], engine: Engine | None, executor: str, described: Described
) -> Finding | None:
    """An option for an executor that may have options of its own: all that can be told is that it is spelt nearly
    like one that exists."""
    meant = _closest(given.option, options, cutoff=0.92)
    if meant is None:
        return None
    found = f"is an option that [{given.section}] does not have."
    other = replace(given, option=meant)
    wrong = check_name(other, engine, executor, described)
    is_read = engine is not None and engine.kind(given.section, meant) is not None
    remedy = _suggested(other, meant, wrong)
    return Finding(Problem(given.where, found, remedy), is_mistake=is_read and wrong is None)


def _suggested(given: Given, name: str, finding: Finding | None) -> str:
    """
    :param name: the part of it that differs from what was written
    :param finding: what would be wrong with that in turn
    """
    if finding is None or name == given.section:
        return f'Did you mean "{given.spell(given.section, given.option)}"?'
    return f'Leave it out: "{name}" {finding.problem.found}'


def _known(engine: Engine | None, described: Described) -> dict[str, list[str]]:
    reads = engine.reads if engine else {}
    sections = {**dict.fromkeys(reads), **dict.fromkeys(described.options)}
    return {section: [*reads.get(section, {}), *described.options.get(section, {})] for section in sections}


def _holder(option: str, sections: Mapping[str, list[str]]) -> str | None:
    """The only section that has such an option."""
    found = [section for section, options in sections.items() if option in options]
    return found[0] if len(found) == 1 else None


def _closest(word: str, known: list[str], cutoff: float = 0.65) -> str | None:
    return next(iter(get_close_matches(word, known, n=1, cutoff=cutoff)), None)


def _mistake(given: Given, found: str, remedy: str) -> Finding:
    return Finding(Problem(given.where, found, remedy), is_mistake=True)


def _doubt(given: Given, found: str, remedy: str) -> Finding:
    return Finding(Problem(given.where, found, remedy), is_mistake=False)
