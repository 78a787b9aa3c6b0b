# SPDX-License-Identifier: Apache-2.0
"""Which Dag files get a template process of their own, and when; without clock or processes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum

WORTH_IT = 2
"""Tasks of a file within ``REMEMBERED``, from which on it is parsed for all of them."""

REMEMBERED = 300.0
"""Seconds for which a task of a file counts."""

PARSED_AGAIN_AFTER = 600.0
"""Seconds after which a file is parsed again, whatever it looks like: it may have read the clock, or something that
nobody has seen. For as long, one that cannot be shared is left alone, and one that nobody asks for is kept."""

HANGS_AFTER = 30.0
"""Seconds for which a file is waited for: Airflow's own limit, unless ``[core] dagbag_import_timeout`` is another."""

CHANGED_AGAIN_AFTER = 10.0
"""Seconds between two parses of a file that changes: one that changes all the time is left to its tasks."""

IN_USE_FOR = 30.0
"""Seconds for which a file that was asked for keeps its place against others: more files than places would otherwise
drive each other out with every task."""


class Stage(Enum):
    """Of a file."""

    NONE = 0
    """Its tasks parse it."""

    PARSING = 1
    """Its tasks wait: their own parse would take as long."""

    READY = 2
    """Its tasks are forked from its template."""


@dataclass(frozen=True)
class _Known:
    stage: Stage = Stage.NONE
    asked: int = 0
    asked_at: float = 0.0
    parsed_at: float = 0.0
    left_alone_until: float = 0.0


class Warming:
    """All files that were asked for, and what is to be done about them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: dict[Hashable, _Known] = {}

    def stage(self, file: Hashable) -> Stage:
        return self._files.get(file, _Known()).stage

    def is_new(self, file: Hashable) -> bool:
        return file not in self._files

    def ask(self, file: Hashable, now: float) -> bool:
        """A task of this file is going to start; whether the file is to be parsed for it and for others."""
        known = self._files.get(file, _Known())
        recent = known.asked if now - known.asked_at < REMEMBERED else 0
        known = self._files[file] = replace(known, asked=min(recent + 1, WORTH_IT), asked_at=now)
        return known.stage is Stage.NONE and known.asked >= WORTH_IT and now >= known.left_alone_until

    def place_for(self, file: Hashable, now: float) -> tuple[bool, Hashable | None]:
        """Whether this file may have a template, and whose it takes, if it has to be another's."""
        warm = [each for each, known in self._files.items() if known.stage is not Stage.NONE]
        if len(warm) < self._most:
            return True, None
        oldest = min(warm, key=lambda each: self._files[each].asked_at)
        if now - self._files[oldest].asked_at < IN_USE_FOR:
            return False, None
        return True, oldest

    def parsing(self, file: Hashable, now: float) -> None:
        self._files[file] = replace(self._files[file], stage=Stage.PARSING, parsed_at=now)

    def ready(self, file: Hashable) -> None:
        self._files[file] = replace(self._files[file], stage=Stage.READY)

    def over(self, file: Hashable, now: float, *, cold: bool = False) -> None:
        """It has no template any more; ``cold``: and should not have another one soon."""
        known = self._files[file]
        until = now + PARSED_AGAIN_AFTER if cold else known.parsed_at + CHANGED_AGAIN_AFTER
        self._files[file] = replace(known, stage=Stage.NONE, left_alone_until=until)

    def due(self, now: float) -> list[Hashable]:
        """Files whose templates are too old, or take too long. Files that mean nothing any more are forgotten."""
        for file in [file for file, known in self._files.items() if _forgettable(known, now)]:
            del self._files[file]
        return [file for file, known in self._files.items() if _is_over(known, now)]


def _is_over(known: _Known, now: float) -> bool:
    age = now - known.parsed_at
    if known.stage is Stage.PARSING:
        return age >= HANGS_AFTER
    return known.stage is Stage.READY and age >= PARSED_AGAIN_AFTER


def _forgettable(known: _Known, now: float) -> bool:
    return known.stage is Stage.NONE and now - known.asked_at >= REMEMBERED and now >= known.left_alone_until
