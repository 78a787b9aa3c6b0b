# SPDX-License-Identifier: Apache-2.0
"""Findings about the options of backends: of each by itself, and of those that two share."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from airflow.configuration import conf as airflow_conf
from airflow.executors.base_executor import ExecutorConf

from airflow_dispatch_provider.bridge.backend_conf import FORMS, PREFIX, RunOnce, is_given
from airflow_dispatch_provider.bridge.options.reads import engine_of
from airflow_dispatch_provider.bridge.users_code import bounded_executor
from airflow_dispatch_provider.dispatch.backend import Backend, clashes, import_executor_class
from airflow_dispatch_provider.dispatch.option_check import OptionCheck
from airflow_dispatch_provider.engines.protocols import ChecksConfig, DoubtsConfig
from airflow_dispatch_provider.exceptions import BackendUnavailable, Problem, TookTooLong
from airflow_dispatch_provider.executors.configured import configured_executors
from airflow_dispatch_provider.executors.entries import PLACE
from airflow_dispatch_provider.masking import kind_of, may_be_secret
from airflow_dispatch_provider.routing.model import Route, Target
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES, BackendSettings, Settings
from airflow_dispatch_provider.settings.problems import show

Findings = tuple[list[Problem], list[Problem]]
"""Mistakes; and doubts: what is allowed but probably a mistake."""


LISTED = f"{PLACE}: "
"""Place of the executors that ``[core] executor`` itself lists; they are no backends."""

_IN_AIRFLOW = re.compile(r"\[(\w+)\] (\w+)")
"""Place of an option that no backend has set for itself."""


def check_options(settings: Settings, conf: Any, place: str) -> Findings:
    """
    :param conf: Airflow's configuration, or the view of a team
    :param place: where ``backends`` stands: ``[dispatch] `` or the name of the file
    """
    team, conf = getattr(conf, "team_name", None), RunOnce(conf)
    backends = {name: Backend(name, backend, conf, team) for name, backend in settings.backends.items()}
    check = OptionCheck(settings, place)
    mistakes, doubts = [*check.mistakes()], [*check.doubts()]
    found: list[tuple[str, Problem]] = []
    doubted: list[tuple[str, Problem]] = []
    wrong_ones = check.backends_with_mistakes()
    for name, backend in backends.items():
        wrong = check.values(name, backend.conf)
        own, doubtful = ([], []) if wrong else _executors_own(backend)
        wrong_ones |= {name} if wrong or own else set()
        found += [(name, each) for each in (*wrong, *(_placed(each, name, check, place) for each in own))]
        doubted += [(name, _placed(each, name, check, place)) for each in doubtful]
    names_told = "" if place == LISTED else "backend"
    mistakes += _of_backends(found, conf, names_told)
    doubts += _of_backends(doubted, conf, names_told)
    # What one with a mistake uses is not what it is meant to use.
    mistakes += clashes([backend for name, backend in backends.items() if name not in wrong_ones], place)
    doubts += [] if mistakes else _shared_queues(settings, backends, place)
    refused = {problem.where for problem in mistakes}
    return list(dict.fromkeys(mistakes)), [
        each for each in dict.fromkeys(doubts) if each.where not in refused
    ]


def check_listed(team: str | None) -> Findings:
    """Of the executors that ``[core] executor`` itself lists, each with the options of all.

    :param team: None: of every team
    """
    mistakes, doubts = dict[Problem, None](), dict[Problem, None]()
    for name, cls in configured_executors():
        if engine_of(cls) is None or (team is not None and name.team_name != team):
            continue
        backend = BackendSettings(f"{cls.__module__}.{cls.__qualname__}", 1)
        settings = Settings({cls.__name__: backend}, (), Route(queue="*", to=(Target(backend=cls.__name__),)))
        conf = ExecutorConf(name.team_name) if name.team_name else airflow_conf
        for found, all_ in zip(check_options(settings, conf, LISTED), (mistakes, doubts), strict=True):
            all_.update((_of_listed(each), None) for each in found if not each.where.startswith(PREFIX))
    return list(mistakes), list(doubts)


def _of_listed(problem: Problem) -> Problem:
    is_the_executors = problem.where.startswith(LISTED)
    return (
        replace(problem, where=PLACE, found=f"lists one that {problem.found}")
        if is_the_executors
        else problem
    )


def _executors_own(backend: Backend) -> Findings:
    """Findings of an executor that can be imported about its own options."""
    try:
        # Only those are made that can be asked: others might start processes in their constructor.
        if not hasattr(import_executor_class(backend.settings), "config_problems"):
            return [], []
        with bounded_executor(backend.name):
            return _asked(backend)
    except BackendUnavailable:
        return [], []
    except TookTooLong as error:
        return [Problem("executor", f"{error.found}.", error.remedy)], []
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = f"cannot be made ({kind_of(error)} at line {place.lineno} of {place.filename})."
        return [Problem("executor", found, "Correct what is read there, or the executor's own code.")], []


def _asked(backend: Backend) -> Findings:
    if problems := [*backend.conf_problems()]:
        return problems, []
    executor: Any = backend.executor
    if isinstance(executor, ChecksConfig) and (problems := [*(executor.config_problems() or ())]):
        return problems, []
    return [], [*(executor.config_doubts() or ())] if isinstance(executor, DoubtsConfig) else []


def _placed(problem: Problem, backend: str, check: OptionCheck, place: str) -> Problem:
    """An executor knows the option, but not where it was set."""
    if problem.where.startswith("["):
        return replace(problem, where=check.place(backend, problem.where))
    return replace(problem, where=f"{place}backends.{backend}.{problem.where}")


def _of_backends(found: Sequence[tuple[str, Problem]], conf: Any, called: str) -> Iterator[Problem]:
    """Each problem once, with the names of its backends where it does not stand at one of them.

    :param called: what has these names, ``backend``; empty: nothing that a user would know
    """
    names: dict[Problem, list[str]] = {}
    for name, problem in found:
        names.setdefault(problem, []).append(name)
    for problem, those in names.items():
        if option := _IN_AIRFLOW.fullmatch(problem.where):
            owners = f"{called}{'s' if len(those) > 1 else ''} {', '.join(those)}" if called else ""
            told = "; ".join(filter(None, (_source(problem.found, option[1], option[2], conf), owners)))
            yield replace(problem, found=f"{problem.found.rstrip('.')} ({told}).") if told else problem
        else:
            yield problem


def _source(found: str, section: str, option: str, conf: Any) -> str:
    """Whether a value is the default, and the file that it names."""
    try:
        value = str(conf.get(section, option, fallback="") or "")
    except Exception:  # whatever a command may raise; that is the mistake then
        return ""
    if not value and option == "config_file":
        value = os.environ.get("KUBECONFIG", "~/.kube/config")  # as the client of Kubernetes does
    team = getattr(conf, "team_name", None)
    is_default = bool(value) and not any(is_given(section, option + form, team) for form in FORMS)
    is_whole_path = os.path.isabs(value) and not may_be_secret(value)  # ``show`` would cut a long one
    quoted = f'"{value}"' if is_whole_path else show(value)
    file = quoted if re.search(r"\bfile\b", found) and value not in found else ""
    return ": ".join(filter(None, ("default" if is_default else "", file)))


def _shared_queues(settings: Settings, backends: dict[str, Backend], place: str) -> Iterator[Problem]:
    """Routes whose second target is the first one again: the same queue of the same broker."""
    for where, route in settings.routes_by_place.items():
        seen: dict[tuple[str, str | None], str] = {}
        for target in route.to:
            broker = _broker(backends[target.backend])
            if broker is None:
                continue
            other = seen.setdefault((broker, target.queue), target.backend)
            if other != target.backend:
                found = f"sends to {target.backend!r} what {other!r} gets: the same queue of the same broker."
                yield Problem(
                    place + where, found, "Give one of them another broker_url, or its target a queue."
                )


def _broker(backend: Backend) -> str | None:
    if backend.settings.class_path != EXECUTOR_ALIASES["CeleryExecutor"]:
        return None
    try:
        return str(backend.conf.get("celery", "broker_url", fallback=None))
    except Exception:
        return None
