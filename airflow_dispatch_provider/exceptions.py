# SPDX-License-Identifier: Apache-2.0
"""Errors, as types. Importable without Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class DispatchError(Exception):
    """Base of every error that this package raises."""


@dataclass(frozen=True)
class Problem:
    """One mistake in the configuration, ready to be shown."""

    where: str
    """Where it stands, e.g. ``[dispatch] routes[2].to[0]`` or ``dispatch.yaml: backends.gpu.slots``."""

    found: str
    """The mistake that was found there, in one sentence, secrets masked."""

    remedy: str
    """The remedy, in one sentence."""

    def __str__(self) -> str:
        return f"{self.where}: {self.found} {self.remedy}"


class DispatchConfigError(DispatchError):
    """The ``[dispatch]`` configuration is wrong; names every mistake that was found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} mistake" + ("s" if len(self.problems) != 1 else "")
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"The [dispatch] configuration has {count}:\n{lines}")


class BackendUnavailable(DispatchError):
    """The executor of a backend cannot be imported, or cannot be used as its backend is configured.

    :param found: what is wrong, in one or two sentences
    :param remedy: what to do about it, in one sentence
    :param key: the key of the backend whose value is wrong
    :param misread: whether its module ends over an option of Airflow's that it reads as it is imported
    """

    def __init__(self, found: str, remedy: str, *, key: str = "executor", misread: bool = False) -> None:
        super().__init__(f"{found} {remedy}")
        self.found = found
        self.remedy = remedy
        self.key = key
        self.misread = misread


class MigrationError(DispatchError):
    """A configuration that is to be migrated cannot be read; says which part, and what to do about it. Quotes no
    line of it, which may hold a password."""


class TookTooLong(DispatchError):
    """Code or a command of a user's was interrupted."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what} takes longer than {seconds:g} s")
        self.found = f"takes longer than {seconds:g} s"
        self.remedy = "See what it waits for, or raise [core] dagbag_import_timeout."


class EndsProcess(DispatchError):
    """Code of a user's raised SystemExit or the like, ``kind``, which would end the scheduler. Has its traceback."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"tries to end the process ({kind})")
        self.kind = kind
