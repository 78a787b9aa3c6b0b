# SPDX-License-Identifier: Apache-2.0
"""Tasks of dead schedulers that an executor of somebody else's may have: asked about together, and each by itself where
that fails."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, NamedTuple

from airflow_dispatch_provider.bridge import airflow_api, task_instances
from airflow_dispatch_provider.bridge.users_code import is_for_the_process
from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.masking import LateTraceback, describe

log = logging.getLogger(__name__)

_TRIES = 5
"""Questions about one task that may fail before the executor counts as not having it."""

_AT_A_TIME = 10
"""Tasks that are asked about one by one in a heartbeat: each question may take long."""


class Answer(NamedTuple):
    """About one task."""

    found: Found
    child_key: Hashable
    has: bool
    """Whether the executor has it."""


class _Asked:
    """A task about which nothing is known yet."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.alone = False
        """A question about it and others has failed."""

        self.backoff = Backoff()


class Adopting:
    """Whatever an executor does with one of them, the others are asked about, and it goes on working."""

    def __init__(self, name: str) -> None:
        """
        :param name: the backend's
        """
        self._name = name
        self._asked: dict[int, _Asked] = {}
        self._said = False

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, found: Iterable[Found]) -> None:
        self._asked |= {each.dispatch: _Asked(each) for each in found}

    def forget(self, dispatch: int) -> bool:
        """Whether it was among them."""
        return self._asked.pop(dispatch, None) is not None

    def ask(self, executor: Any, now: float) -> Iterator[Answer]:
        """Ask about those that are due; about the others it cannot be said anything yet."""
        due = [each for each in self._asked.values() if each.backoff.due(now)]
        together = [each for each in due if not each.alone]
        alone = [[each] for each in due if each.alone][:_AT_A_TIME]
        for group in (together, *alone):
            if group:
                yield from self._ask(executor, group, now)

    def _ask(self, executor: Any, group: list[_Asked], now: float) -> Iterator[Answer]:
        try:
            tis = [each.found.ti for each in group]
            with task_instances.attached(tis):
                gone = {ti.id for ti in executor.try_adopt_task_instances(tis)}
            keys = [airflow_api.task_key(executor, ti) for ti in tis]
        except BaseException as error:
            if is_for_the_process(error):
                raise
            yield from self._failed(group, error, now)
            return
        for each, key in zip(group, keys, strict=True):
            del self._asked[each.found.dispatch]
            yield Answer(each.found, key, each.found.ti.id not in gone)

    def _failed(self, group: list[_Asked], error: BaseException, now: float) -> Iterator[Answer]:
        level = logging.DEBUG if self._said else logging.ERROR
        message = "Backend %r could not be asked about tasks of a dead scheduler; it goes on working. %s%s"
        log.log(level, message, self._name, describe(error), LateTraceback(error))
        self._said = True
        for each in group:
            if each.alone:
                each.backoff = each.backoff.failed(now)
            each.alone = True
            if each.backoff.failures >= _TRIES:
                del self._asked[each.found.dispatch]
                yield Answer(each.found, None, has=False)
