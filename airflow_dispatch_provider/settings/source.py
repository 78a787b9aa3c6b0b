# SPDX-License-Identifier: Apache-2.0
"""Where the settings come from: Airflow's configuration, and the file that it may name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.masking import masked
from airflow_dispatch_provider.settings import last_good
from airflow_dispatch_provider.settings.file import Stamp, UnreadableError, read_file, stamp_of
from airflow_dispatch_provider.settings.given import ConfReader, Given, OptionReader
from airflow_dispatch_provider.settings.model import LAST_GOOD, Settings
from airflow_dispatch_provider.settings.options import OPTIONS, SECTION
from airflow_dispatch_provider.settings.parse import ROUTING_KEYS, Raw, parse
from airflow_dispatch_provider.settings.presets import Hybrid, completed, without_own_slots
from airflow_dispatch_provider.settings.problems import closest, path, show, suggest
from airflow_dispatch_provider.settings.reading import read_json, read_yaml

Check = Callable[[Settings], Sequence[Problem]]


def _no_check(settings: Settings) -> Sequence[Problem]:
    return ()


def _passed(settings: Settings, check: Check) -> Settings:
    if problems := check(settings):
        raise DispatchConfigError(problems)
    return settings


class SettingsSource:
    """Reads the settings, and the file again when it changes."""

    def __init__(
        self,
        conf: ConfReader,
        options: Callable[[], Collection[str]] = tuple,
        hybrid: Hybrid | None = None,
        parallelism: Callable[[], int] = int,
        copies: Path | None = None,
        section: str = SECTION,
    ) -> None:
        """
        :param options: tells the names of all options found in ``[dispatch]``, to catch misspelt ones; called by
            ``load``
        :param hybrid: what the backends and routes are completed by
        :param parallelism: tells ``[core] parallelism``; called by ``load`` where there is a hybrid
        :param section: as it is called in airflow.cfg, where a team has one of its own
        :param copies: folder for the last good version of the file; None: none is kept
        """
        self._reader = OptionReader(conf)
        self._options = options
        self._hybrid = hybrid
        self._parallelism = parallelism
        self._copies = copies
        self._section = section
        self._given: Given | None = None
        self._stamp: Stamp | None = None
        self._text: str | None = None
        self.refused: DispatchConfigError | None = None
        """Why the file that is there is not in use; None: it is, or there is none."""

    @property
    def config_file(self) -> str | None:
        """Known once something was read."""
        return self._given.config_file if self._given else None

    @property
    def place(self) -> str:
        """Prefix of the place of ``backends``, ``routes`` and ``default``, once something was read."""
        return f"{masked(self.config_file)}: " if self.config_file else f"[{self._section}] "

    def load(self, config_file: str | None = None) -> Settings:
        """Read everything.

        :param config_file: read instead of the configured one, and of ``backends``, ``routes`` and ``default``
        :raises DispatchConfigError: naming every mistake
        """
        self._given = self._reader.read(self._options(), self._hybrid, self._parallelism, config_file)
        return self._read(self._given)

    def try_out(self, text: str, name: str) -> Settings:
        """The settings that a file with this text would make. Changes nothing of what is in use.

        :param name: how mistakes call the file; YAML, unless it ends in ``.json``
        :raises DispatchConfigError: naming every mistake
        """
        given = self._reader.read(self._options(), self._hybrid, self._parallelism, name)
        return self._checked(given, text)

    def load_or_last_good(self, check: Check = _no_check) -> Settings:
        """``load`` for a process that starts: goes on with the last good version of the file, where the operator
        chose that and there is one. ``refused`` tells.

        :param check: finds mistakes that cannot be seen in the file alone; called again for the last good version
        :raises DispatchConfigError: naming every mistake
        """
        try:
            return _passed(self.load(), check)
        except DispatchConfigError as error:
            given, text = self._given, self._last_good()
            if given is None or text is None:
                raise
            self.refused = error
        try:
            return _passed(self._checked(given, text), check)
        except DispatchConfigError:
            raise self.refused from None

    def changed(self) -> bool:
        """Whether the file is another one than at the last read, good or bad. Costs one ``stat``."""
        return self.config_file is not None and stamp_of(self.config_file) != self._stamp

    def reload(self) -> Settings:
        """Read the file again, for a running scheduler. No option is read again: that might run a command.

        :raises DispatchConfigError: naming every mistake
        """
        if self._given is None:
            return self.load()
        try:
            return self._read(self._given)
        except Exception as error:
            self.refused = (
                error if isinstance(error, DispatchConfigError) else _unforeseen(self.config_file, error)
            )
            raise self.refused from None

    def refuse(self, error: DispatchConfigError) -> None:
        """The version that was read last is not used: it has mistakes that could not be seen in the file alone."""
        self.refused = error

    def keep(self) -> str | None:
        """Copy the file that is in use, where the operator chose to go on with it if need be.

        :returns: why that cannot be done
        """
        if self.refused is not None or self._text is None or not self._keeps():
            return None
        assert self._copies is not None
        return last_good.keep(self._copies, str(self.config_file), self._text)

    def _keeps(self) -> bool:
        wanted = self._given is not None and self._given.values.get("on_refused_file") == LAST_GOOD
        return wanted and self._copies is not None

    def _last_good(self) -> str | None:
        if not self._keeps() or not self.config_file:
            return None
        assert self._copies is not None
        return last_good.recall(self._copies, self.config_file)

    def _read(self, given: Given) -> Settings:
        text = None
        if given.config_file:
            self._stamp = stamp_of(given.config_file)
            text = self._text_of(given.config_file)
        settings = self._checked(given, text)
        self._text = text if isinstance(text, str) else None
        self.refused = None
        return settings

    def _checked(self, given: Given, text: str | Problem | None) -> Settings:
        try:
            return _settings(given, text)
        except DispatchConfigError as error:
            problems = [self._placed(problem) for problem in error.problems]
        raise DispatchConfigError(problems)  # without the context of the one that was caught

    def _placed(self, problem: Problem) -> Problem:
        if not problem.where.startswith(f"[{SECTION}]"):
            return problem
        return replace(problem, where=problem.where.replace(SECTION, self._section, 1))

    def _text_of(self, config_file: str) -> str | Problem:
        try:
            version = read_file(config_file)
        except UnreadableError as error:
            remedy = "Give the path of a YAML file that the scheduler may read."
            if self._given is not None and self._given.chosen:
                return Problem(masked(config_file), f"{error}.", remedy)
            return Problem("[dispatch] config_file", f"found {masked(config_file)}, which {error}.", remedy)
        self._stamp = version.stamp
        return version.text


def _settings(given: Given, text: str | Problem | None) -> Settings:
    """
    :param text: of the file, or why it cannot be read; None where there is none
    """
    raw = Raw(dict(given.values), problems=list(given.problems), unreadable=set(given.unreadable))
    if given.config_file:
        raw.place = f"{masked(given.config_file)}: "
        is_reported = isinstance(text, Problem) and "config_file" in given.unreadable
        _add_file(given.config_file, None if is_reported else text, raw)
    if given.preset is not None:
        raw.share_parallelism = without_own_slots(raw.values, given.preset)
        values = completed(raw.values, given.preset)
        # A key that is set but cannot be read stays missing.
        raw.values = {key: value for key, value in values.items() if key not in raw.unreadable}
    return parse(raw)


def _add_file(config_file: str, text: str | Problem | None, raw: Raw) -> None:
    value = _file_value(config_file, text, raw.problems)
    if value is None:
        raw.unreadable.update(ROUTING_KEYS)
        return
    unknown = [str(key) for key in value if key not in ROUTING_KEYS]
    misspelt = {closest(key, ROUTING_KEYS) for key in unknown} - {None, *value}
    if unknown and len(unknown) == len(value) and not misspelt:
        raw.problems.append(_is_another_file(config_file, unknown))
        raw.unreadable.update(ROUTING_KEYS)
        return
    holders = [key for key in unknown if key.startswith(("x-", "."))]
    if holders:
        raw.problems.append(_holds_anchors(config_file, holders))
    for key in unknown:
        if key not in holders:
            remedy = f"Set it in [{SECTION}]." if key in OPTIONS else suggest(key, ROUTING_KEYS)
            raw.problems.append(Problem(path([key], raw.place), "is not a known key.", remedy))
    raw.values.update({key: value[key] for key in ROUTING_KEYS if key in value})
    raw.unreadable.difference_update(ROUTING_KEYS)
    raw.unreadable.update(key for key in misspelt if key)


def _is_another_file(config_file: str, keys: list[str]) -> Problem:
    """Such as one whose keys stand under ``dispatch``, or the manifest of a ConfigMap that holds it."""
    some = ", ".join(map(show, keys[:5])) + (", ..." if len(keys) > 5 else "")
    found = f"has {some} at the top, and none of backends, routes and default."
    return Problem(masked(config_file), found, "Write backends, routes and default at the top.")


def _holds_anchors(config_file: str, keys: list[str]) -> Problem:
    """Compose and other tools pass over such keys; here, one would hide a key that is misspelt."""
    some = ", ".join(map(show, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    found = f"has {some} beside backends, routes and default, which nothing reads."
    remedy = "Write an anchor (&name) where its value is first used, and *name or <<: *name where it is used again."
    return Problem(config_file, found, remedy)


def _file_value(
    config_file: str, text: str | Problem | None, problems: list[Problem]
) -> dict[Any, Any] | None:
    """The file's content; None after a problem was added."""
    if not isinstance(text, str):
        problems += [text] if text else []
        return None
    before = len(problems)
    remedy = "Write backends, routes and default."
    if config_file.endswith(".json"):
        value = read_json(text, config_file, remedy, problems.append)
    else:
        value = read_yaml(text, config_file, problems.append)
    if len(problems) == before and not isinstance(value, dict):
        found = "has nothing in it." if value is None else f"found {show(value)}."
        problems.append(Problem(config_file, found, remedy))
    return value if len(problems) == before else None


def _unforeseen(config_file: str | None, error: Exception) -> DispatchConfigError:
    found = f"cannot be checked ({type(error).__name__})."
    return DispatchConfigError(
        [Problem(str(config_file), found, "Restart the scheduler to see the whole error.")]
    )
