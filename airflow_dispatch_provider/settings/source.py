# SPDX-License-Identifier: Apache-2.0
"""Where the settings come from: Airflow's configuration, and the file that it may name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.settings.model import Limits, Settings, needs_restart
from airflow_dispatch_provider.settings.options import OPTIONS, SECTION
from airflow_dispatch_provider.settings.parse import ROUTING_KEYS, Raw, parse
from airflow_dispatch_provider.settings.presets import (
    DEFAULT_KUBERNETES_QUEUE,
    Hybrid,
    completed,
    preset,
    without_own_slots,
)
from airflow_dispatch_provider.settings.problems import REMEDIES, path, show, suggest
from airflow_dispatch_provider.settings.reading import read_json, read_yaml


class ConfReader(Protocol):
    """What is used of Airflow's configuration, global or of a team (``ExecutorConf``)."""

    def get(self, section: str, key: str, *, fallback: Any = ...) -> Any: ...


class SettingsSource:
    """Reads the settings, and again when the file changes."""

    def __init__(
        self,
        conf: ConfReader,
        given: Callable[[], Mapping[str, Any]] = dict,
        hybrid: Hybrid | None = None,
        parallelism: Callable[[], int] = int,
    ) -> None:
        """
        :param given: tells every option found in ``[dispatch]``, to catch misspelt names; called by ``load``
        :param hybrid: what the backends and routes are completed by
        :param parallelism: tells ``[core] parallelism``; called by ``load`` where there is a hybrid
        """
        self._conf = conf
        self._given = given
        self._hybrid = hybrid
        self._parallelism = parallelism
        self._file: str | None = None
        self._stamp: tuple[int, ...] | None = None
        self._current: Settings | None = None

    def load(self) -> Settings:
        """Read everything; raises DispatchConfigError naming every mistake."""
        raw = Raw()
        raw.problems += _unknown_options(self._given())
        self._file = self._get("config_file", raw)
        if self._file:
            self._stamp = _stamp(self._file)
            self._refuse_both(raw)
            _read_file(self._file, raw)
        else:
            self._read_options(raw)
        if self._hybrid is not None:
            self._complete(raw, self._hybrid)
        self._read_limits(raw)
        self._current = parse(raw)
        return self._current

    def changed(self) -> bool:
        """Whether the file is another one than at the last read, good or bad. Costs one ``stat``."""
        return self._file is not None and _stamp(self._file) != self._stamp

    def reload(self) -> Settings:
        """Read again, for a running scheduler; raises DispatchConfigError where that cannot be taken over."""
        before = self._current
        try:
            after = self.load()
            if before is not None and (changed := needs_restart(before, after)):
                place = f"{self._file}: backends" if self._file else "[dispatch] backends"
                found = f"added, removed or redefined while the scheduler runs: {', '.join(changed)}."
                remedy = "Restart the scheduler; only routes, default, slots and cordoned change on the fly."
                raise DispatchConfigError([Problem(place, found, remedy)])
        except DispatchConfigError:
            self._current = before
            raise
        return after

    def _get(self, option: str, raw: Raw, section: str = SECTION, fallback: str | None = None) -> str | None:
        """The text of an option; None where it is not set or empty, or after a problem was reported."""
        try:
            value = self._conf.get(section, option, fallback=fallback)
        except Exception as error:  # whatever a command, a secrets backend or an interpolation may raise
            found = f"cannot be read ({type(error).__name__})."
            remedy = f"See whether 'airflow config get-value {section} {option}' works."
            raw.problems.append(Problem(f"[{section}] {option}", found, remedy))
            raw.unreadable.add(option)
            return None
        return None if value is None else str(value).strip() or None

    def _refuse_both(self, raw: Raw) -> None:
        for option in ROUTING_KEYS:
            value = self._get(option, raw)
            if value is not None and value != OPTIONS[option]["default"]:
                raw.problems.append(
                    Problem(
                        f"[dispatch] {option}",
                        "is set, and so is config_file.",
                        "Either the options or config_file can be used, not both: remove one of them.",
                    )
                )

    def _read_options(self, raw: Raw) -> None:
        for option in ROUTING_KEYS:
            text = self._get(option, raw)
            if text is None:
                continue
            before = len(raw.problems)
            bare_default = option == "default" and not text.startswith(("{", "[", '"'))
            place, remedy = f"[dispatch] {option}", REMEDIES[option]
            value = text if bare_default else read_json(text, place, remedy, raw.problems.append)
            if len(raw.problems) == before:
                raw.values[option] = value
            else:
                raw.unreadable.add(option)

    def _complete(self, raw: Raw, hybrid: Hybrid) -> None:
        """Add what the hybrid has and was not set. A key that is set but cannot be read stays missing."""
        queue = self._get("kubernetes_queue", raw, hybrid.section, DEFAULT_KUBERNETES_QUEUE)
        ready_made = preset(hybrid, queue or "", self._parallelism())
        raw.share_parallelism = without_own_slots(raw.values, ready_made)
        values = completed(raw.values, ready_made)
        raw.values = {key: value for key, value in values.items() if key not in raw.unreadable}

    def _read_limits(self, raw: Raw) -> None:
        for option in Limits.__dataclass_fields__:
            text = self._get(option, raw)
            if text is None:
                continue
            kind = int if OPTIONS[option]["type"] == "integer" else float
            try:
                raw.values[option] = kind(text)
            except ValueError:
                found = f"found {show(text)}."
                raw.problems.append(Problem(f"[dispatch] {option}", found, REMEDIES[option]))


def _stamp(config_file: str) -> tuple[int, ...] | None:
    """Tells one version of the file from another, a renamed-in one (Kubernetes ConfigMap) included."""
    try:
        stat = os.stat(config_file)
    except (OSError, ValueError):
        return None
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev)


def _read_file(config_file: str, raw: Raw) -> None:
    raw.place = f"{config_file}: "
    value = _file_value(config_file, raw.problems.append)
    if value is None:
        raw.unreadable.update(ROUTING_KEYS)
        return
    for key in value:
        if key not in ROUTING_KEYS:
            remedy = suggest(str(key), ROUTING_KEYS)
            raw.problems.append(Problem(path([str(key)], raw.place), "is not a known key.", remedy))
    raw.values.update({key: value[key] for key in ROUTING_KEYS if key in value})


def _file_value(config_file: str, report: Callable[[Problem], None]) -> dict[Any, Any] | None:
    try:
        text = Path(config_file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        found = f"found {config_file}, which cannot be read ({reason})."
        remedy = "Give the path of a YAML file that the scheduler may read."
        report(Problem("[dispatch] config_file", found, remedy))
        return None
    problems: list[Problem] = []
    remedy = "Write backends, routes and default."
    if config_file.endswith(".json"):
        value = read_json(text, config_file, remedy, problems.append)
    else:
        value = read_yaml(text, config_file, problems.append)
    if not problems and not isinstance(value, dict):
        found = "has nothing in it." if value is None else f"found {show(value)}."
        problems.append(Problem(config_file, found, remedy))
    for problem in problems:
        report(problem)
    return None if problems else value


def _unknown_options(given: Mapping[str, Any]) -> Iterator[Problem]:
    """Options of ``[dispatch]`` that do not exist. Airflow takes commands and secrets for sensitive ones only."""
    known = list(OPTIONS)
    taken = {name + end for name in known if OPTIONS[name].get("sensitive") for end in ("_cmd", "_secret")}
    for option in given:
        if option.lower() not in {*known, *taken}:
            yield Problem(f"[dispatch] {option}", "is not a known option.", suggest(option, known))
