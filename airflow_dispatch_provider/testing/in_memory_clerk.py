# SPDX-License-Identifier: Apache-2.0
"""Answers of the database to a router, given by the test."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any

from airflow_dispatch_provider.lifecycle.events import Rows
from airflow_dispatch_provider.lifecycle.states import GONE, Row


class InMemoryClerk:
    """Answers at the next heartbeat: keys that are not in ``rows`` are in no database."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, Row] = {}
        self.refreshed: list[Hashable] = []
        """Keys of tasks that were kept from looking stuck, in order."""

        self.returned: list[Hashable] = []
        """Keys of tasks that were given back to Airflow, in order."""

        self.living: Collection[str] | None = None
        """Ids of the schedulers that live, the executor's own among them; None: nothing is known of them."""

        self.asked_api = 0
        """How often it was asked whether the Execution API answers; what it hears then is put into ``news``."""

        self.news: list[Any] = []
        """Further events for the next heartbeat."""

        self._answers: list[Rows] = []
        self._asked_living = False

    def start(self) -> None:
        """Nothing is needed."""

    def look_up(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        self._answers.append(Rows(asked, {key: self.rows.get(key, GONE) for key in ids}))

    def put_back(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        self.returned += ids
        self._answers.append(Rows(asked, dict.fromkeys(ids, GONE)))

    def restart(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        self.put_back(asked, ids)

    def unstart(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        self.put_back(asked, ids)

    def refresh(self, ids: Mapping[Hashable, Any]) -> None:
        self.refreshed += ids

    def stop(self, timeout: float) -> None:
        """Nothing is left to do."""

    def ask_api(self) -> None:
        self.asked_api += 1

    def answers(self) -> list[Any]:
        answers = [*self._answers, *self.news]
        self._answers, self.news = [], []
        return answers

    def ask_living(self) -> None:
        self._asked_living = True

    def take_living(self) -> Collection[str] | None:
        asked, self._asked_living = self._asked_living, False
        return self.living if asked else None
