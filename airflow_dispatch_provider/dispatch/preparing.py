# SPDX-License-Identifier: Apache-2.0
"""Settings that are to be used: their backends are checked, and imported, beside the scheduler's thread.

An import takes seconds, and an option may come from a command. No process is forked here, and no engine started: that
is left to the scheduler's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from airflow_dispatch_provider.bridge.backend_conf import RunOnce
from airflow_dispatch_provider.dispatch.backend import Backend, clashes, import_executor_class
from airflow_dispatch_provider.dispatch.option_check import OptionCheck
from airflow_dispatch_provider.engines.protocols import ChecksConfig
from airflow_dispatch_provider.exceptions import BackendUnavailable, Problem
from airflow_dispatch_provider.masking import describe
from airflow_dispatch_provider.settings.changes import is_same
from airflow_dispatch_provider.settings.model import Settings

PATIENCE = 120.0
"""Seconds for the checks of one version of the file; code of users that it imports may hang."""

Further = Callable[[Settings], Sequence[Problem]]


@dataclass(frozen=True)
class Prepared:
    """Settings, and what is needed to use them."""

    settings: Settings
    new: Mapping[str, Backend]
    """Not started, by name: those that are not there yet, or are there as they were configured before."""

    options: OptionCheck | None
    """None: there are no new ones."""

    problems: Sequence[Problem]
    """Mistakes over which the settings are refused."""

    def wrong_values(self, backend: Backend) -> Sequence[Problem]:
        """Those in the options of a new backend, which fails over them, and alone."""
        return self.options.values(backend.name, backend.conf) if self.options is not None else ()


class Preparing:
    """Prepares the settings of one router."""

    def __init__(
        self, conf: Any, team: str | None, place: Callable[[], str], further: Further = lambda settings: ()
    ) -> None:
        """
        :param conf: Airflow's configuration, or the view of the team
        :param place: tells where ``backends`` stands: ``[dispatch] `` or the name of the file
        :param further: finds mistakes that only other settings than those of the start can have
        """
        self._conf, self._team, self._place, self._further = conf, team, place, further
        self._results: list[Prepared | BaseException] = []
        self._settings: Settings | None = None
        """Those that are being prepared; None: nothing is."""

        self._until = 0.0

    @property
    def is_busy(self) -> bool:
        return self._settings is not None

    def now(self, settings: Settings, there: Mapping[str, Backend]) -> Prepared:
        """Prepare settings, and wait for that.

        :param there: backends that have engines
        """
        conf = RunOnce(self._conf)
        new = {
            name: Backend(name, settings.backends[name], conf, self._team) for name in _new(settings, there)
        }
        options = OptionCheck(settings, self._place())
        all_of_them = [new.get(name) or there[name] for name in settings.backends]
        problems = [*options.mistakes(), *clashes(all_of_them, self._place())]
        return Prepared(settings, new, options, problems)

    def begin(self, settings: Settings, there: Mapping[str, Backend], now: float) -> None:
        """Prepare them, on a thread where backends come or go.

        :param there: backends that have engines, without those that are leaving and are not configured
        :param now: monotonic seconds
        """
        results: list[Prepared | BaseException] = []
        self._settings, self._until, self._results = settings, now + PATIENCE, results
        if not _new(settings, there) and there.keys() == settings.backends.keys():
            results.append(Prepared(settings, {}, None, ()))
            return
        work = partial(self._work, settings, dict(there), results)
        threading.Thread(target=work, name="dispatch-preparing", daemon=True).start()

    def _work(
        self, settings: Settings, there: Mapping[str, Backend], results: list[Prepared | BaseException]
    ) -> None:
        try:
            prepared = self.now(settings, there)
            prepared = replace(prepared, problems=[*self._further(settings), *prepared.problems])
            for backend in prepared.new.values():
                _warm_up(backend, prepared)
            results.append(prepared)
        except BaseException as error:
            results.append(error)

    def result(self, now: float) -> Prepared | Sequence[Problem] | None:
        """Those that ``begin`` was called for, or why that cannot be done; once. None: not yet."""
        settings = self._settings
        if settings is None or not (self._results or now >= self._until):
            return None
        self._settings = None
        found = self._results.pop() if self._results else None
        if isinstance(found, Prepared):
            return found
        why = f"({describe(found)})" if found is not None else f"within {PATIENCE:.0f} s"
        remedy = "See what its executors import, and change the file again."
        return [Problem(self._place().strip(" :"), f"cannot be checked {why}.", remedy)]


def _new(settings: Settings, there: Mapping[str, Backend]) -> list[str]:
    return [
        name
        for name, wanted in settings.backends.items()
        if name not in there or not is_same(there[name].settings, wanted)
    ]


def _warm_up(backend: Backend, prepared: Prepared) -> None:
    """Import its executor and read its options, so that its start need not wait for either. What is wrong is said
    there."""
    with suppress(Exception):
        prepared.wrong_values(backend)
    with suppress(BackendUnavailable):
        if hasattr(import_executor_class(backend.settings), "make_engine"):
            with suppress(Exception):
                executor = backend.executor
                # Its checks import what its server needs.
                if isinstance(executor, ChecksConfig):
                    executor.config_problems()
