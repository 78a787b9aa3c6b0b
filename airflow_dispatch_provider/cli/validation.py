# SPDX-License-Identifier: Apache-2.0
"""Everything that ``airflow dispatch validate`` says: what is wrong, what is probably a mistake, what would change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow.executors.base_executor import ExecutorConf

from airflow_dispatch_provider.bridge.backend_conf import RunOnce, settings_source
from airflow_dispatch_provider.cli.inspection import import_problems, inspect_backends, warnings
from airflow_dispatch_provider.cli.option_findings import Findings, check_listed, check_options
from airflow_dispatch_provider.cli.output import only_answers
from airflow_dispatch_provider.cli.surroundings import (
    file_is_found,
    is_missing,
    no_router,
    slots_fit,
    surrounding_problems,
    surrounding_warnings,
)
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.executors.by_name import entry_problems
from airflow_dispatch_provider.executors.configured import router_classes
from airflow_dispatch_provider.executors.entries import PLACE
from airflow_dispatch_provider.operate.inspection import ConfiguredBackend
from airflow_dispatch_provider.settings.changes import DRAINED, REPLACED, STARTED, Change, changes
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.parse import MOST_PROBLEMS
from airflow_dispatch_provider.settings.source import SettingsSource

MISTAKE, WARNING = "mistake", "warning"


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    severity: str
    """``mistake``: it does not work. ``warning``: it is allowed but probably a mistake."""

    where: str
    found: str
    remedy: str


@dataclass(frozen=True)
class Answer:
    """All that was found."""

    findings: tuple[Finding, ...]
    settings: Settings | None
    """None where they cannot be read."""

    @property
    def mistakes(self) -> int:
        return sum(finding.severity == MISTAKE for finding in self.findings)


@dataclass(frozen=True)
class Comparison:
    """A file that is not in use yet, against the configuration that is."""

    changes: tuple[Change, ...] | None
    """None: the configuration in use is wrong itself."""

    restart_for: tuple[str, ...] = ()
    """Why no running scheduler would read it; empty: it takes over all changes, within seconds."""

    @property
    def verdict(self) -> str:
        """In a sentence."""
        if self.changes is None:
            return "The configuration in use is wrong itself: there is nothing to compare with."
        if not self.changes:
            return "It says the same as the configuration in use."
        if self.restart_for:
            return f"No scheduler would read it before a restart, because of {', '.join(self.restart_for)}."
        return "A running scheduler would take it over within seconds, without a restart."

    @property
    def data(self) -> dict[str, Any]:
        """For programs."""
        found = None if self.changes is None else [asdict(change) for change in self.changes]
        return {"changes": found, "restart_for": list(self.restart_for)}


@only_answers()
def validate(source: SettingsSource, conf: Any, team: str | None, config_file: str | None = None) -> Answer:
    """
    :param conf: Airflow's configuration, or the view of the team
    :param config_file: checked in place of the configured one
    """
    around = list(surrounding_problems())
    wrong, doubts, settings = _of_router(source, conf, team, config_file, around)
    if team is None and config_file is None and not around:
        for other, cls in router_classes().items():
            if other is not None:
                view = ExecutorConf(other)
                theirs = _of_router(settings_source(view, cls.hybrid), view, other, None, around)
                wrong, doubts = wrong + theirs[0], doubts + theirs[1]
    beside, doubtful = _beside([*around, *wrong], team)
    mistakes, warned = dict.fromkeys([*around, *wrong, *beside]), dict.fromkeys([*doubts, *doubtful])
    findings = (*_bounded(MISTAKE, mistakes, source.place), *_bounded(WARNING, warned, source.place))
    return Answer(findings, settings)


def _of_router(
    source: SettingsSource, conf: Any, team: str | None, config_file: str | None, around: Sequence[Problem]
) -> tuple[list[Problem], list[Problem], Settings | None]:
    """Mistakes, doubts and the settings of one router, everybody's or that of a team."""
    try:
        settings = source.load(config_file)
    except DispatchConfigError as error:
        alone = bool(around) or no_router() or _only_teams_route(team)
        wrong = [problem for problem in error.problems if not (alone and is_missing(problem))]
        named = [] if around else entry_problems(team, None)
        return [*named, *wrong], [*surrounding_warnings()] if alone and not around else [], None
    place, statuses = source.place, inspect_backends(settings)
    # Executors that are made for the checks below set some of Airflow's options, such as a secret.
    elsewhere = [] if around else [*surrounding_warnings(), *_slots_fit(settings, statuses)]
    named = [] if around else entry_problems(team, settings)
    options, doubtful = check_options(settings, conf, place)
    # One in airflow.cfg itself is told by its own place, and not once more by the import that ends over it.
    in_airflow = any(each.where.startswith("[") and not each.where.startswith(place) for each in options)
    failed = [status for status in statuses if not (in_airflow and status.misread)]
    found = file_is_found(None if config_file else source.config_file)
    return (
        [*named, *import_problems(failed, place), *options],
        [*found, *warnings(settings, statuses, conf, place), *doubtful, *elsewhere],
        settings,
    )


def _slots_fit(settings: Settings, statuses: Sequence[ConfiguredBackend]) -> Iterator[Problem]:
    """As long as the slots of every backend are known."""
    if all(status.key != "slots" for status in statuses):
        yield from slots_fit(settings)


def _only_teams_route(team: str | None) -> bool:
    routers = router_classes()
    return team is None and bool(routers) and None not in routers


@only_answers()
def compare(source: SettingsSource, new: Settings, conf: Any) -> Comparison:
    """
    :param source: of the configuration in use
    :param conf: Airflow's configuration, or the view of the team
    """
    try:
        old = source.load()
    except DispatchConfigError:
        return Comparison(None)
    found = tuple(_later(changes(old, new), old, new, conf))
    if not source.config_file and found:
        return Comparison(found, ("[dispatch] config_file, which is not set",))
    return Comparison(found)


def _later(found: Iterable[Change], old: Settings, new: Settings, conf: Any) -> Iterator[Change]:
    """With the backends that cannot be started before another one is empty, since both would use the same."""
    changed = tuple(found)
    conf, team = RunOnce(conf), getattr(conf, "team_name", None)
    going = [
        Backend(change.name, old.backends[change.name], conf, team)
        for change in changed
        if change.effect in (DRAINED, REPLACED)
    ]
    for change in changed:
        if change.effect != STARTED or not going:
            yield change
            continue
        added = Backend(change.name, new.backends[change.name], conf, team)
        names = ", ".join(repr(other.name) for other in going if added.clashes(other))
        effect = f"{STARTED} when {names}, which uses the same, is empty" if names else STARTED
        yield replace(change, effect=effect)


def _findings(severity: str, problems: Iterable[Problem]) -> tuple[Finding, ...]:
    return tuple(Finding(severity, problem.where, problem.found, problem.remedy) for problem in problems)


def _bounded(severity: str, problems: Iterable[Problem], place: str) -> tuple[Finding, ...]:
    """As many as somebody may read."""
    findings = _findings(severity, problems)
    more = len(findings) - MOST_PROBLEMS
    if more <= 1:  # the parser has its own last line
        return findings
    rest = Finding(severity, place.strip(" :"), f"has {more} more {severity}s.", "Correct these first.")
    return (*findings[:MOST_PROBLEMS], rest)


def _beside(known: Sequence[Problem], team: str | None) -> Findings:
    """Findings of the executors that ``[core] executor`` lists in place of a router, or beside it.

    :param known: mistakes that are told anyway; what ``[core] executor`` lists is not asked where it is wrong itself
    """
    places = {problem.where for problem in known}
    mistakes, doubts = ([], []) if PLACE in places else check_listed(team)
    return [each for each in mistakes if each.where not in places], doubts
