# SPDX-License-Identifier: Apache-2.0
"""Options of Airflow itself without which no backend works: what a new deployment meets first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from airflow.configuration import conf as airflow_conf
from airflow.exceptions import AirflowConfigException

from airflow_dispatch_provider.bridge.airflow_api import executor_names
from airflow_dispatch_provider.bridge.backend_conf import FORMS, RunOnce, several_teams
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.executors.entries import (
    PLACE,
    ROUTERS,
    entries,
    is_router_configured,
    list_problems,
)
from airflow_dispatch_provider.get_provider_info import EXECUTORS
from airflow_dispatch_provider.masking import one_line
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.options import SECTION
from airflow_dispatch_provider.settings.problems import show

_OURS = "airflow_dispatch_provider"

_ROUTERS_OWN = ("backends", "config_file")
"""Either of them says that a router is meant."""


def surrounding_problems() -> Iterator[Problem]:
    """Settings that end the scheduler at its start, or fail every task."""
    if AIRFLOW_V_3_2_PLUS and (wrong := _wrong_flag("core", "multi_team")):
        yield wrong  # with which Airflow reads no list of executors
    else:
        yield from _executors_are_usable()
    yield from _parallelism_is_usable()
    yield from _execution_api_is_a_url()


def surrounding_warnings() -> Iterator[Problem]:
    """Settings that work only where something is set elsewhere."""
    yield from _router_is_used()
    yield from _teams_are_used()
    yield from _tokens_are_shared()


def no_router() -> bool:
    """Whether none is configured, and ``[dispatch]`` names no backends."""
    return not is_router_configured(text_of("core", "executor")) and not any(
        _is_given(SECTION, key) for key in _ROUTERS_OWN
    )


def executor_problem() -> Problem | None:
    """The first thing in ``[core] executor`` that Airflow refuses."""
    return next(_executors_are_usable(), None)


def is_missing(problem: Problem) -> bool:
    """No backends: a ready-made router and an executor that runs alone need none, and which one was meant is unknown
    as long as ``[core] executor`` is wrong."""
    return problem.where.endswith(f"{SECTION}] backends") and problem.found == "is missing."


def tests_connections() -> bool:
    """Whether users may ask for connection tests, which executors run from Airflow 3.3 on."""
    return AIRFLOW_V_3_3_PLUS and text_of("core", "test_connection").lower() == "enabled"


def text_of(section: str, option: str) -> str:
    """An option of Airflow's, empty where it is not set or cannot be read."""
    try:
        return str(RunOnce(airflow_conf).get(section, option, fallback="") or "").strip()
    except AirflowConfigException:
        return ""


def _is_given(section: str, option: str) -> bool:
    """Told without running the command that may give it."""
    return any(text_of(section, option + form) for form in reversed(FORMS))


def parallelism() -> int | None:
    """None where it is no number."""
    try:
        return airflow_conf.getint("core", "parallelism")
    except (AirflowConfigException, ValueError):
        return None


def _wrong_flag(section: str, option: str) -> Problem | None:
    try:
        airflow_conf.getboolean(section, option, fallback=False)
    except (AirflowConfigException, ValueError):
        found = f"found {show(text_of(section, option))}: the scheduler does not start."
        return Problem(f"[{section}] {option}", found, "Give True or False, e.g. True.")
    return None


def _executors_are_usable() -> Iterator[Problem]:
    problems = list(list_problems(text_of("core", "executor")))
    yield from problems
    try:
        executor_names()
    except AirflowConfigException as error:
        if not problems:
            remedy = "Correct it: the scheduler does not start."
            yield Problem(PLACE, f"is refused by Airflow: {one_line(str(error)).rstrip('.!')}.", remedy)


def _parallelism_is_usable() -> Iterator[Problem]:
    number = parallelism()
    if number is None or number < 1:
        found = f"found {show(text_of('core', 'parallelism'))}: the scheduler does not start."
        remedy = "Give a whole number of 1 or more, at least the slots of all backends together, e.g. 64."
        yield Problem("[core] parallelism", found, remedy)


def _execution_api_is_a_url() -> Iterator[Problem]:
    url = text_of("core", "execution_api_server_url")
    if not url:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        found = "is no URL of http or https: no task can report that it starts."
        remedy = "Give scheme, host, port and path, e.g. http://localhost:8080/execution/."
        yield Problem("[core] execution_api_server_url", found, remedy)


def _teams_are_used() -> Iterator[Problem]:
    teams = dict.fromkeys(entry.team for entry in entries(text_of("core", "executor")) if entry.team)
    if AIRFLOW_V_3_2_PLUS and teams and not several_teams():
        found = f"lists executors of teams ({', '.join(teams)}), and Airflow passes over them."
        yield Problem(PLACE, found, "Set [core] multi_team to True, or leave them out.")


def _router_is_used() -> Iterator[Problem]:
    text = text_of("core", "executor")
    if is_router_configured(text):
        yield from _router_is_first()
    elif AIRFLOW_V_3_2_PLUS and not _runs_alone(text):
        found = f"found {text!r}: nothing of [dispatch] is in use."
        yield Problem(PLACE, found, f"Set it to {ROUTERS[0]!r}.")


def _runs_alone(text: str) -> bool:
    """Whether an executor of this package is configured in place of a router."""
    return no_router() and any(entry.path in EXECUTORS for entry in entries(text))


def _router_is_first() -> Iterator[Problem]:
    """Airflow takes the first executor for tasks that name none."""
    listed = entries(text_of("core", "executor"))
    first = next((entry for entry in listed if entry.team is None), None)
    if first and not first.path.startswith(f"{_OURS}.") and not is_router_configured(first.text):
        found = (
            f"has {first.path!r} before the router: it gets the tasks of every queue, and the router none."
        )
        router = next(entry.path for entry in listed if is_router_configured(entry.text))
        yield Problem(PLACE, found, f"Put {router!r} first.")


def file_is_found(config_file: str | None) -> Iterator[Problem]:
    """
    :param config_file: as configured
    """
    if config_file and not os.path.isabs(config_file):
        found = (
            f"found the relative path {show(config_file)}: each process looks for it where it was started."
        )
        yield Problem(
            f"[{SECTION}] config_file", found, f"Write the whole path, e.g. {os.path.abspath(config_file)}."
        )


def slots_fit(settings: Settings) -> Iterator[Problem]:
    total, number = settings.slots_given, parallelism()
    if number is not None and total > number > 0:
        yield Problem(
            "[core] parallelism",
            f"found {number}, less than the {total} slots of all backends together.",
            f"Give at least {total}: with less, the backends cannot use all their slots at the same time.",
        )


def _tokens_are_shared() -> Iterator[Problem]:
    """Without a secret every process makes up its own (``airflow.api_fastapi.auth.tokens.get_signing_key``), so that
    the API server refuses the scheduler's tokens."""
    if any(text_of("api_auth", option) for option in ("jwt_secret", "jwt_private_key_path")):
        return
    found = "is not set: each component makes up its own, and every task fails with 'Invalid auth token'."
    remedy = "Set it to the same long random text for the scheduler and the API server."
    yield Problem("[api_auth] jwt_secret", found, remedy)
