# SPDX-License-Identifier: Apache-2.0
"""Methods that an executor may offer to the router beyond Airflow's interface; each is optional. They are looked for
once, when it has started."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from airflow_dispatch_provider.engines.engine import Engine
from airflow_dispatch_provider.exceptions import Problem


@runtime_checkable
class HasEngine(Protocol):
    """An executor that is nothing but Airflow's side of an engine. The router takes the engine, and never starts the
    executor."""

    def make_engine(self, name: str, slots: int, *, counts_workers: bool) -> Engine:
        """A new engine, not started.

        :param name: names it in the log
        :param counts_workers: its slots are what its workers can run, and ``slots`` only as long as none is known
        """
        ...


@runtime_checkable
class CountsWorkers(Protocol):
    """An executor that knows how many tasks its workers can run."""

    def worker_slots(self) -> int | None:
        """How many that are at the moment, of all live workers together; None while none is known. Asked for again
        and again on the scheduler's thread, from the start on, where ``slots`` is ``"workers"``; must not block."""
        ...


@runtime_checkable
class ChecksConfig(Protocol):
    """An executor that can tell from its configuration alone that it will not start."""

    def config_problems(self) -> Sequence[Problem]:
        """Mistakes in its options, found without asking any server. Called before ``start``, also by
        ``airflow dispatch validate``."""
        ...


class ChecksConf(Protocol):
    """An executor class that can tell from a configuration that no executor can be made of it."""

    @staticmethod
    def conf_problems(conf: Any) -> Sequence[Problem]:
        """Mistakes in the options of ``conf``. Called before the constructor, which would raise over them."""
        ...


@runtime_checkable
class DoubtsConfig(Protocol):
    """An executor that can tell from its configuration alone what is probably a mistake."""

    def config_doubts(self) -> Sequence[Problem]:
        """Options that are legal, yet without effect. Called by ``airflow dispatch validate`` alone, where
        ``config_problems`` has found nothing."""
        ...


@dataclass(frozen=True)
class Claim:
    """A thing that two backends must not share."""

    resource: str
    """E.g. the URL of an API server."""

    part: str | None = None
    """E.g. a namespace; None: all of it."""

    def __str__(self) -> str:
        return f"{self.part or 'everything'} of {self.resource}"

    def clashes(self, other: Claim) -> bool:
        parts = (self.part, other.part)
        return self.resource == other.resource and (None in parts or self.part == other.part)


@runtime_checkable
class Claims(Protocol):
    """An executor that would disturb another one that uses the same thing."""

    def claims(self) -> Collection[Claim]:
        """Things that no other backend may use, from its configuration alone. Called before ``start``, also by
        ``airflow dispatch validate``."""
        ...
